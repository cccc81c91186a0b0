//! LIST: a mirror at one revision, streamed from the store.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::weight::Load;
use super::write::Writer;
use super::{Reading, Token, blocking, json, unread};
use crate::api::request::{Options, Revision};
use crate::api::{Freshness, ObjectKey, Selection};
use crate::authorize::Permit;
use crate::body::{self, Body};
use crate::codec::{ObjectMeta, Status};
use crate::filter::chain::{FilterChainError, Filtered};
use crate::mirror::{Item, Mirror, Snapshot};
use crate::tasks;

/// Bytes of a list that are read at a time.
const PORTION: usize = 128 << 10;

/// Answers a LIST from a synced mirror.
///
/// # Errors
/// The status that the server would give: a revision to come or gone by, a token that is too old. 500 or 503 if the
/// store does not give the objects.
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
    let revision = view.revision;
    check(revision, fresh)?;
    let token = token(options, &selection)?;
    let is_of_server = match &token {
        Some(token) => token.v == super::SERVER_VERSION,
        None => fresh == Freshness::Latest,
    };
    let selected = select(view.snapshot, &selection, &writer).await;
    let mut snapshot = selected.inspect_err(|_| mirror.check_damage())?;
    if let Some(token) = token {
        if token.rv != revision {
            return Err(Status::expired_continue(Token::text(
                revision,
                &token.start,
            )));
        }
        snapshot.items.retain(|item| *item.key > *token.start);
    }
    let cut = limit(options, fresh).and_then(|limit| cut(&mut snapshot, limit));
    let paging = cut.map(|(last, remaining)| {
        // Through filters the cloud cannot go on, nor while it is away.
        let is_local = writer.chain().is_some() || !is_of_server;
        let token = if is_local {
            Token::text(revision, &last)
        } else {
            Token::server_text(revision, selection.namespace(), &last)
        };
        (token, selection.is_by_key().then_some(remaining))
    });
    let paging = paging
        .as_ref()
        .map(|(token, remaining)| (token.as_str(), *remaining));
    let head = writer.head(revision, paging);
    let load = Load::of::<Item>(snapshot.items.len());
    let weight = load.weight();
    let items = stream_items((mirror.clone(), load), snapshot, head, writer).await?;
    let mut response = json(StatusCode::OK, items);
    response.extensions_mut().insert(weight);
    Ok(response)
}

/// Reads where a paged list goes on.
fn token(options: &Options, selection: &Selection) -> Result<Option<Token>, Status> {
    let Some(text) = options.continue_token.as_deref() else {
        return Ok(None);
    };
    let token = Token::parse(text).or_else(|| Token::of_server(text, selection.namespace()));
    let invalid = "invalid continue token: continue key is not valid";
    token.map(Some).ok_or_else(|| Status::bad_request(invalid))
}

/// Returns after how many items a page ends, if the list has pages.
fn limit(options: &Options, fresh: Freshness) -> Option<usize> {
    let limit = usize::try_from(options.limit).unwrap_or(usize::MAX);
    let is_paged = limit > 0 && (fresh != Freshness::Any || options.revision != Revision::Zero);
    is_paged.then_some(limit)
}

/// Ends a page; returns the key of its last item and how many items there are after it, if there are any.
fn cut(snapshot: &mut Snapshot, limit: usize) -> Option<(ObjectKey, usize)> {
    let remaining = snapshot.items.len().checked_sub(limit)?;
    if remaining == 0 {
        return None;
    }
    snapshot.items.truncate(limit);
    let last = snapshot.items.last()?;
    Some((last.key.clone(), remaining))
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

/// Leaves what is selected and what the caller may see.
async fn select(
    mut snapshot: Snapshot,
    selection: &Selection,
    writer: &Writer,
) -> Result<Snapshot, Status> {
    if !selection.is_by_key() {
        snapshot = filter(snapshot, selection.clone()).await?;
    }
    if writer.chain().is_some() {
        snapshot = apply(snapshot, writer.clone()).await?;
    }
    Ok(snapshot)
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
async fn apply(mut snapshot: Snapshot, writer: Writer) -> Result<Snapshot, Status> {
    let filtered = blocking(move || {
        let mut kept = Vec::new();
        for item in std::mem::take(&mut snapshot.items) {
            let body = snapshot.read(&item)?;
            match writer.apply(&body) {
                Ok(Filtered::Shown(_)) => kept.push(item),
                Ok(Filtered::Hidden) => {}
                Err(error) => return Ok(Err::<Snapshot, FilterChainError>(error)),
            }
        }
        snapshot.items = kept;
        Ok(Ok(snapshot))
    });
    Ok(filtered.await??)
}

struct Sending {
    mirror: Arc<Mirror>,
    snapshot: Arc<Snapshot>,
    _load: Load,
    at: usize,
    head: Option<Bytes>,
    writer: Writer,
    is_done: bool,
}

/// Reads the first items before anything is answered, so that a store that does not give them is a refusal; the others
/// while they are sent.
async fn stream_items(
    (mirror, load): (Arc<Mirror>, Load),
    snapshot: Snapshot,
    head: Bytes,
    writer: Writer,
) -> Result<Body, Status> {
    let mut sending = Sending {
        mirror,
        snapshot: Arc::new(snapshot),
        _load: load,
        at: 0,
        head: Some(head),
        writer,
        is_done: false,
    };
    let first = sending.next().await?;
    if sending.is_done {
        return Ok(body::full(first));
    }
    let others = stream::unfold(sending, |mut sending| async move {
        if sending.is_done {
            return None;
        }
        let chunk = sending.next().await;
        let chunk = chunk.map_err(|status| body::BoxError::from(status.message));
        Some((chunk.map(Frame::data), sending))
    });
    let first = stream::once(async { Ok(Frame::data(first)) });
    Ok(StreamBody::new(first.chain(others)).boxed_unsync())
}

impl Sending {
    async fn next(&mut self) -> Result<Bytes, Status> {
        let (snapshot, at, head, writer) = (
            self.snapshot.clone(),
            self.at,
            self.head.take(),
            self.writer.clone(),
        );
        let read = tasks::blocking(move || portion(&snapshot, at, head, &writer)).await;
        if read.is_err() {
            self.is_done = true;
            self.mirror.check_damage();
        }
        let (chunk, at) = read?;
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
) -> Result<(Bytes, usize), Status> {
    let mut chunk = BytesMut::with_capacity(PORTION + (16 << 10));
    chunk.extend(head);
    while at < snapshot.items.len() && chunk.len() < PORTION {
        let body = snapshot.read(&snapshot.items[at]).map_err(unread)?;
        if at > 0 {
            chunk.put_u8(b',');
        }
        let Filtered::Shown(body) = writer.apply(&body)? else {
            return Err(Status::internal(
                "an object of the list is hidden after all",
            ));
        };
        if !writer.item(&body, &mut chunk) {
            return Err(Status::internal("an object of the list cannot be shaped"));
        }
        at += 1;
    }
    if at >= snapshot.items.len() {
        chunk.put_slice(Writer::tail());
    }
    Ok((chunk.freeze(), at))
}
