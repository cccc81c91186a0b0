//! The mirror's requests to the cloud: a list in pages, a list as a watch, and the watch.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::{Instant, timeout};

use super::incoming::Incoming;
use super::relist::{Finished, Item};
use super::{Mirror, Phase};
use crate::api::well_known::may_be_custom;
use crate::api::{ListAt, ObjectKey, key, split_key};
use crate::body::{self, Body};
use crate::codec::{
    self, EventLines, EventType, Inflate, ListError, ListHead, ListSplitter, ObjectError,
    ObjectMeta, Status, TypeMeta,
};
use crate::identity::Caller;
use crate::upstream::{AGENT, SendError, Upstream};

/// Objects of one page of a list.
const PAGE: u32 = 500;

/// Bytes of a list that are given to the store at a time.
const PORTION: usize = 256 << 10;

/// The longest namespace and name together: Kubernetes' names have 253 bytes at most, with few exceptions.
const KEY_LIMIT: usize = 1_024;

/// How long a list may keep silent in its middle, and a watch after it should have ended: a link that is
/// dead is noticed elsewhere, this is for a server that forgot us.
const SILENCE: Duration = Duration::from_secs(60);

/// Why a list or a watch ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("send the request")]
    Send(#[source] SendError),
    #[error("read the answer")]
    Read(#[source] body::BoxError),
    #[error("the server refused with {}", .0.code)]
    Refused(Status),
    #[error("the revision is no longer there")]
    Expired,
    #[error("read the list")]
    List(#[from] ListError),
    #[error("read an object")]
    Object(#[from] ObjectError),
    #[error("read the watch")]
    Events(#[from] codec::WatchError),
    #[error("decompress the answer")]
    Inflate(#[source] std::io::Error),
    #[error("take what came")]
    Take(#[source] yurt_core::store::Error),
    #[error("the initial events had no end")]
    Unended,
    #[error("the pages of the list have no end")]
    EndlessPages,
    #[error("an event at {now} came after one at {before}")]
    Backwards { before: u64, now: u64 },
    #[error("an object came that has no name of this scope")]
    Nameless,
    #[error("a {0} came where it does not belong")]
    OtherKind(String),
    #[error("the cloud said nothing for {0:?}")]
    Silent(Duration),
    #[error("what is stored may lack something")]
    Suspect,
    #[error("the cloud's revisions have gone back")]
    WentBack,
    #[error("the kind is over its budget")]
    OverBudget,
}

impl Mirror {
    /// Fetches the whole scope and makes it visible.
    pub(crate) async fn fetch_list(
        self: &Arc<Self>,
        upstream: &Upstream,
        caller: &Caller,
        limit: usize,
        at: ListAt,
    ) -> Result<(), FetchError> {
        self.counters.lists.fetch_add(1, Ordering::Relaxed);
        let mirror = self.clone();
        blocking(move || mirror.begin_list()).await?;
        let mut seen = HashSet::new();
        let mut next = None;
        loop {
            let mut query = self.query();
            query.push(("limit", PAGE.to_string()));
            match (&next, at) {
                (Some(token), _) => query.push(("continue", String::clone(token))),
                (None, ListAt::Exactly(revision)) => {
                    query.push(("resourceVersion", revision.to_string()));
                    query.push(("resourceVersionMatch", "Exact".to_owned()));
                }
                (None, ListAt::Latest) => {}
            }
            let response = self.ask(upstream, caller, &query).await?;
            self.callers.lock().listed_as = Some(caller.clone());
            let head = self.take_page(response, limit, &mut seen).await?;
            match head.continue_token {
                Some(token) if next.as_ref() == Some(&token) => {
                    return Err(FetchError::EndlessPages);
                }
                Some(token) => next = Some(token),
                None => return self.finish(head, seen).await,
            }
        }
    }

    /// Fetches the whole scope as the initial events of a watch, for when pages expire faster than they come.
    pub(crate) async fn fetch_watch_list(
        self: &Arc<Self>,
        upstream: &Upstream,
        caller: &Caller,
        limit: usize,
    ) -> Result<(), FetchError> {
        self.counters.lists.fetch_add(1, Ordering::Relaxed);
        let mirror = self.clone();
        blocking(move || mirror.begin_list()).await?;
        let mut query = self.query();
        query.extend([
            ("watch", "1".to_owned()),
            ("sendInitialEvents", "true".to_owned()),
            ("resourceVersionMatch", "NotOlderThan".to_owned()),
            ("allowWatchBookmarks", "true".to_owned()),
        ]);
        let mut body = self.ask(upstream, caller, &query).await?.into_body();
        let mut lines = EventLines::new(limit);
        let mut seen = HashSet::new();
        let mut end = None;
        while let Some(chunk) = self.next_chunk(&mut body, SILENCE).await? {
            let mut items = Vec::new();
            lines.push(&chunk, &mut |event_type, object| {
                match event_type {
                    EventType::Error => return Err(refusal(object)),
                    EventType::Bookmark if codec::is_initial_events_end(object) => {
                        end = Some(ObjectMeta::parse(object)?)
                    }
                    EventType::Bookmark => {}
                    _ => items.push(self.listed_event(object)?),
                }
                Ok(())
            })?;
            self.take_items(items, &mut seen).await?;
            if let Some(meta) = end {
                let kind = meta.kind.unwrap_or_default();
                let head = ListHead {
                    api_version: meta.api_version.unwrap_or_default(),
                    kind: format!("{kind}List"),
                    resource_version: meta.resource_version,
                    continue_token: None,
                };
                return self.finish(head, seen).await;
            }
        }
        Err(FetchError::Unended)
    }

    /// Follows the watch from the mirror's revision until it ends.
    pub(crate) async fn fetch_watch(
        self: &Arc<Self>,
        upstream: &Upstream,
        caller: &Caller,
        limit: usize,
        seconds: u64,
    ) -> Result<(), FetchError> {
        self.counters.watches.fetch_add(1, Ordering::Relaxed);
        let mut query = self.query();
        query.extend([
            ("watch", "1".to_owned()),
            ("resourceVersion", self.followed().to_string()),
            ("allowWatchBookmarks", "true".to_owned()),
            ("timeoutSeconds", seconds.to_string()),
        ]);
        let mut body = self.ask(upstream, caller, &query).await?.into_body();
        self.callers.lock().watched_as = Some(caller.clone());
        self.set_phase(Phase::Live);
        let mut lines = EventLines::new(limit);
        let mut reached = self.followed();
        let ends_at = Instant::now() + Duration::from_secs(seconds) + SILENCE;
        while let Some(chunk) = self.next_chunk(&mut body, ends_at - Instant::now()).await? {
            let mut events = Vec::new();
            let read = lines.push(&chunk, &mut |event_type, object| {
                if event_type == EventType::Error {
                    return Err(refusal(object));
                }
                let event = self.read_event(event_type, object)?;
                self.check_event(&event, reached)?;
                reached = event.revision;
                events.push(event);
                Ok::<(), FetchError>(())
            });
            if !events.is_empty() {
                self.counters.events.fetch_add(
                    u64::try_from(events.len()).unwrap_or(u64::MAX),
                    Ordering::Relaxed,
                );
                let mirror = self.clone();
                blocking(move || mirror.take(events)).await?;
            }
            read?;
        }
        lines.finish()?;
        Ok(())
    }

    /// Refuses what no server sends in a watch of this scope.
    fn check_event(&self, event: &Incoming, reached: u64) -> Result<(), FetchError> {
        if event.revision < reached {
            return Err(FetchError::Backwards {
                before: reached,
                now: event.revision,
            });
        }
        if event.event_type == EventType::Bookmark {
            return Ok(());
        }
        self.check_key(&event.key)?;
        let form = self.kind.form();
        match form.filter(|_| !may_be_custom(&self.scope.resource)) {
            Some(form) if event.kind != form.kind => Err(FetchError::OtherKind(event.kind.clone())),
            _ => Ok(()),
        }
    }

    /// Refuses names that no server accepts, and places outside of the scope.
    fn check_key(&self, key: &str) -> Result<(), FetchError> {
        let (namespace, name) = split_key(key);
        let is_inside = self
            .scope
            .namespace
            .as_ref()
            .is_none_or(|inside| inside == namespace);
        let is_plain = !name.is_empty() && !name.contains(['/', '\n']) && !namespace.contains('\n');
        if is_inside && is_plain && key.len() <= KEY_LIMIT {
            Ok(())
        } else {
            Err(FetchError::Nameless)
        }
    }

    fn listed(&self, item: &[u8]) -> Result<Item, FetchError> {
        let meta = ObjectMeta::parse(item)?;
        self.listed_as(&meta, Bytes::copy_from_slice(item))
    }

    fn listed_event(&self, object: &[u8]) -> Result<Item, FetchError> {
        let meta = ObjectMeta::parse(object)?;
        let form = TypeMeta {
            api_version: meta.api_version.clone().unwrap_or_default(),
            kind: meta.kind.clone().unwrap_or_default(),
            list_kind: String::new(),
        };
        self.listed_as(&meta, codec::without_type_meta(object, &form))
    }

    fn listed_as(&self, meta: &ObjectMeta, body: Bytes) -> Result<Item, FetchError> {
        let key = key(&meta.namespace, &meta.name);
        self.check_key(&key)?;
        Ok(Item {
            key,
            revision: meta.resource_version,
            body,
        })
    }

    /// Sends one request for the scope; an answer other than 200 is an error.
    pub(crate) async fn ask(
        &self,
        upstream: &Upstream,
        caller: &Caller,
        query: &[(&'static str, String)],
    ) -> Result<Response<Body>, FetchError> {
        let path = self.scope.resource.path(self.scope.namespace.as_deref());
        let response = get(upstream, caller, &format!("{path}?{}", encode(query)))
            .await
            .map_err(FetchError::Send)?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let code = response.status();
        let text = body::read(response.into_body(), 64 << 10)
            .await
            .map_err(FetchError::Read)?;
        Err(if code == StatusCode::GONE {
            FetchError::Expired
        } else {
            FetchError::Refused(Status::received(code, &text))
        })
    }

    /// The selectors of the scope as a query.
    pub(crate) fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        if !self.scope.labels.is_everything() {
            query.push(("labelSelector", self.scope.labels.to_string()));
        }
        if !self.scope.fields.is_everything() {
            query.push(("fieldSelector", self.scope.fields.to_string()));
        }
        query
    }

    async fn take_page(
        self: &Arc<Self>,
        response: Response<Body>,
        limit: usize,
        seen: &mut HashSet<ObjectKey>,
    ) -> Result<ListHead, FetchError> {
        let mut inflate = Inflate::for_encoding(response.headers().get(CONTENT_ENCODING));
        let mut body = response.into_body();
        let mut splitter = ListSplitter::new(limit);
        let mut items = Vec::new();
        let mut size = 0;
        while let Some(chunk) = self.next_chunk(&mut body, SILENCE).await? {
            inflate
                .push(&chunk, &mut |plain: &[u8]| {
                    splitter.push(plain, &mut |item| {
                        size += item.len();
                        items.push(self.listed(item)?);
                        Ok::<(), FetchError>(())
                    })
                })
                .map_err(|error| error.either(FetchError::Inflate))?;
            if size >= PORTION {
                size = 0;
                self.take_items(std::mem::take(&mut items), seen).await?;
            }
        }
        inflate.finish().map_err(FetchError::Inflate)?;
        self.take_items(items, seen).await?;
        Ok(splitter.finish()?)
    }

    async fn take_items(
        self: &Arc<Self>,
        items: Vec<Item>,
        seen: &mut HashSet<ObjectKey>,
    ) -> Result<(), FetchError> {
        if items.is_empty() {
            return Ok(());
        }
        seen.extend(items.iter().map(|item| item.key.clone()));
        let mirror = self.clone();
        blocking(move || mirror.take_listed(items)).await?;
        if self.is_over_budget() {
            return Err(FetchError::OverBudget);
        }
        Ok(())
    }

    async fn finish(
        self: &Arc<Self>,
        head: ListHead,
        seen: HashSet<ObjectKey>,
    ) -> Result<(), FetchError> {
        let kind = head
            .kind
            .strip_suffix("List")
            .unwrap_or(&head.kind)
            .to_owned();
        let form = TypeMeta {
            api_version: head.api_version,
            kind,
            list_kind: head.kind,
        };
        let known = self.kind.form();
        if known.is_some_and(|known| known.kind != form.kind)
            && !may_be_custom(&self.scope.resource)
        {
            return Err(FetchError::OtherKind(form.list_kind));
        }
        let mirror = self.clone();
        let finished =
            blocking(move || mirror.finish_list(head.resource_version, form, &seen)).await?;
        match finished {
            Finished::InPlace => Ok(()),
            Finished::WentBack => Err(FetchError::WentBack),
        }
    }

    async fn next_chunk(
        &self,
        body: &mut Body,
        within: Duration,
    ) -> Result<Option<Bytes>, FetchError> {
        loop {
            let came = timeout(within, body.frame()).await;
            let Some(frame) = came.map_err(|_| FetchError::Silent(within))? else {
                return Ok(None);
            };
            if let Ok(chunk) = frame.map_err(FetchError::Read)?.into_data() {
                self.counters.upstream_bytes.fetch_add(
                    u64::try_from(chunk.len()).unwrap_or(u64::MAX),
                    Ordering::Relaxed,
                );
                return Ok(Some(chunk));
            }
        }
    }
}

/// Sends a GET as the caller, asking for JSON.
pub(crate) async fn get(
    upstream: &Upstream,
    caller: &Caller,
    path: &str,
) -> Result<Response<Body>, SendError> {
    let mut request = Request::get(path)
        .header(ACCEPT, "application/json")
        .header(ACCEPT_ENCODING, "gzip")
        .header(USER_AGENT, AGENT)
        .body(body::empty())
        .expect("the parts of the path are encoded");
    caller.sign(request.headers_mut());
    upstream.send(caller.credential(), request).await
}

/// Writes a query, each value percent-encoded.
pub(crate) fn encode(query: &[(&'static str, String)]) -> String {
    let pairs: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
        .collect();
    pairs.join("&")
}

/// Runs what blocks on the store where that is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> yurt_core::store::Result<T> + Send + 'static,
) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(work)
        .await
        .expect("work on the store does not panic")
        .map_err(FetchError::Take)
}

fn refusal(object: &[u8]) -> FetchError {
    let status = Status::received(StatusCode::INTERNAL_SERVER_ERROR, object);
    if status.code == StatusCode::GONE {
        FetchError::Expired
    } else {
        FetchError::Refused(status)
    }
}
