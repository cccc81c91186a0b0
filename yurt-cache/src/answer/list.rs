//! LIST: a mirror at one revision, streamed from the store.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::write::Writer;
use super::{Reading, Token, blocking, json};
use crate::api::{Freshness, Selection};
use crate::authorize::Permit;
use crate::body::{self, Body};
use crate::codec::{ObjectMeta, Status};
use crate::filter::sieve::{SiftError, Sifted};
use crate::mirror::Mirror;
use crate::mirror::Snapshot;
use crate::tasks;

/// Bytes of a list that are read at a time.
const PORTION: usize = 128 << 10;

/// Answers a LIST from a synced mirror.
///
/// # Errors
/// The status that the server would give: a revision to come or gone by, a token that is too old.
pub(crate) async fn list(
    _permit: Permit,
    reading: Reading<'_>,
    fresh: Freshness,
) -> Result<Response<Body>, Status> {
    let Reading {
        mirror,
        selection,
        options,
        writer,
    } = reading;
    let view = mirror.view(selection.within());
    if mirror.has_failed() {
        return Err(ended());
    }
    check(view.revision, fresh)?;
    let token = options
        .continue_token
        .as_deref()
        .map(|token| Token::parse(token).or_else(|| Token::of_server(token, selection.namespace())))
        .map(|token| {
            token.ok_or_else(|| {
                Status::bad_request("invalid continue token: continue key is not valid")
            })
        })
        .transpose()?;
    let is_of_server = match &token {
        Some(token) => token.v == super::SERVER_VERSION,
        None => fresh == Freshness::Latest,
    };
    let limit = usize::try_from(options.limit).unwrap_or(usize::MAX);
    let is_paged = limit > 0
        && (fresh != Freshness::Any || options.revision != crate::api::request::Revision::Zero);
    let mut snapshot = view.snapshot;
    if !selection.is_by_key() {
        let filtered = filter(snapshot, selection.clone()).await;
        snapshot = filtered.inspect_err(|_| mirror.check_damage())?;
    }
    if writer.sieve().is_some() {
        let sifted = sift(snapshot, writer.clone()).await;
        snapshot = sifted.inspect_err(|_| mirror.check_damage())?;
    }
    if let Some(token) = token {
        if token.rv != view.revision {
            return Err(Status::expired_continue(Token::text(
                view.revision,
                &token.start,
            )));
        }
        snapshot.items.retain(|item| *item.key > *token.start);
    }
    let mut paging = None;
    if is_paged && snapshot.items.len() > limit {
        let remaining = snapshot.items.len() - limit;
        snapshot.items.truncate(limit);
        let last = snapshot
            .items
            .last()
            .expect("a limit above zero leaves an item");
        // Through filters the cloud cannot go on, nor while it is away.
        let is_local = writer.sieve().is_some() || !is_of_server;
        paging = Some((
            if is_local {
                Token::text(view.revision, &last.key)
            } else {
                Token::server_text(view.revision, selection.namespace(), &last.key)
            },
            selection.is_by_key().then_some(remaining),
        ));
    }
    let head = writer.head(
        view.revision,
        paging
            .as_ref()
            .map(|(token, remaining)| (token.as_str(), *remaining)),
    );
    let items = stream_items(mirror.clone(), snapshot, head, writer);
    Ok(json(StatusCode::OK, items))
}

/// What is said of a mirror that ended before its objects were looked at.
fn ended() -> Status {
    Status::unavailable("the node's copy has just been dropped", Some(super::RETRY))
}

/// Checks that a mirror at `revision` is what was asked for.
fn check(revision: u64, fresh: Freshness) -> Result<(), Status> {
    match fresh {
        Freshness::AtLeast(wanted) | Freshness::Exactly(wanted) if wanted > revision => {
            Err(Status::too_large_resource_version(wanted, revision))
        }
        Freshness::Exactly(wanted) if wanted < revision => Err(Status::expired_list()),
        _ => Ok(()),
    }
}

/// Leaves the items that are selected. Reads them all.
async fn filter(mut snapshot: Snapshot, selection: Selection) -> Result<Snapshot, Status> {
    blocking(move || {
        let kind = snapshot.kind().clone();
        let mut kept = Vec::new();
        for item in std::mem::take(&mut snapshot.items) {
            let body = snapshot.read(&item)?;
            let is_wanted = ObjectMeta::parse(&body)
                .is_ok_and(|meta| selection.matches(&item.key, &kind.traits(&meta, &body)));
            if is_wanted {
                kept.push(item);
            }
        }
        snapshot.items = kept;
        Ok(snapshot)
    })
    .await
}

/// Leaves the items that the caller may see. Reads them all, so that a filter that cannot decide refuses the
/// list before its first byte.
async fn sift(mut snapshot: Snapshot, writer: Writer) -> Result<Snapshot, Status> {
    let sifted = blocking(move || {
        let mut kept = Vec::new();
        for item in std::mem::take(&mut snapshot.items) {
            let body = snapshot.read(&item)?;
            match writer.sift(&body) {
                Ok(Sifted::Shown(_)) => kept.push(item),
                Ok(Sifted::Hidden) => {}
                Err(error) => return Ok(Err::<Snapshot, SiftError>(error)),
            }
        }
        snapshot.items = kept;
        Ok(Ok(snapshot))
    });
    Ok(sifted.await??)
}

struct Sending {
    mirror: Arc<Mirror>,
    snapshot: Arc<Snapshot>,
    at: usize,
    head: Option<Bytes>,
    writer: Writer,
    is_done: bool,
}

fn stream_items(mirror: Arc<Mirror>, snapshot: Snapshot, head: Bytes, writer: Writer) -> Body {
    let sending = Sending {
        mirror,
        snapshot: Arc::new(snapshot),
        at: 0,
        head: Some(head),
        writer,
        is_done: false,
    };
    let chunks = stream::unfold(sending, |mut sending| async move {
        if sending.is_done {
            return None;
        }
        let chunk = sending.next().await;
        if chunk.is_err() {
            sending.is_done = true;
            sending.mirror.check_damage();
        }
        Some((chunk.map(Frame::data), sending))
    });
    StreamBody::new(chunks).boxed_unsync()
}

impl Sending {
    async fn next(&mut self) -> Result<Bytes, body::BoxError> {
        let (snapshot, at, head, writer) = (
            self.snapshot.clone(),
            self.at,
            self.head.take(),
            self.writer.clone(),
        );
        let work = move || portion(&snapshot, at, head, &writer);
        let (chunk, at) = tasks::blocking(work).await?;
        self.at = at;
        self.is_done = at >= self.snapshot.items.len();
        Ok(chunk)
    }
}

/// Reads the next items; a version that is gone ends the list, which the client sees as cut off.
fn portion(
    snapshot: &Snapshot,
    mut at: usize,
    head: Option<Bytes>,
    writer: &Writer,
) -> Result<(Bytes, usize), body::BoxError> {
    let mut chunk = BytesMut::with_capacity(PORTION + (16 << 10));
    chunk.extend(head);
    while at < snapshot.items.len() && chunk.len() < PORTION {
        let body = snapshot.read(&snapshot.items[at])?;
        if at > 0 {
            chunk.put_u8(b',');
        }
        let Sifted::Shown(body) = writer.sift(&body)? else {
            return Err("an object of the list is hidden after all".into());
        };
        if !writer.item(&body, &mut chunk) {
            return Err("an object of the list cannot be shaped".into());
        }
        at += 1;
    }
    if at >= snapshot.items.len() {
        chunk.put_slice(Writer::tail());
    }
    Ok((chunk.freeze(), at))
}
