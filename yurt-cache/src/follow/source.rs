//! The follower's requests to the cloud, and why they fail.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::timeout;

use super::plan::Ended;
use super::run::Follower;
use crate::body::{self, Body};
use crate::codec::{
    self, EventLines, EventType, Inflate, ListError, ListHead, ListSplitter, ObjectError,
    ObjectMeta, Status,
};
use crate::identity::Caller;
use crate::mirror::Mirror;
use crate::tasks::blocking;
use crate::upstream::client::JSON;
use crate::upstream::{Purpose, SendError, Upstream};

/// How long a list may keep silent in its middle, and a watch after it should have ended: a link that is
/// dead is noticed elsewhere, this is for a server that forgot us.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// When it is tried again where the streams that its owner may hold are in use.
const IN_USE: Duration = Duration::from_secs(30);

/// Names and revisions are enough; a server that does not know how answers with whole objects.
pub(super) const METADATA: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// Why a list or a watch ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("send the request")]
    Send(#[source] SendError),
    #[error("read the answer")]
    Read(#[source] body::BoxError),
    #[error("the server refused with {}", .0.code)]
    Refused(Status),
    #[error("the server is busy for {0:?}")]
    Busy(Duration, Status),
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
    #[error("the cloud is at {now} and has been at {before}")]
    WentBack { before: u64, now: u64 },
    #[error("what is stored may lack something")]
    Suspect,
    #[error("the watch does not bring what the cloud has")]
    Unproven,
    #[error("an object came that has no name of this scope")]
    Nameless,
    #[error("its revisions are no numbers")]
    Unnumbered,
    #[error("a {0} came where it does not belong")]
    OtherKind(String),
    #[error("the cloud said nothing for {0:?}")]
    Silent(Duration),
    #[error("the kind is over its budget")]
    OverBudget,
}

impl FetchError {
    /// Returns whether an object was larger than is taken.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(
            self,
            Self::List(ListError::TooLarge { .. })
                | Self::Events(codec::WatchError::TooLarge { .. })
        )
    }

    /// Returns what it is to the plan.
    pub(super) fn ended(&self) -> Ended {
        match self {
            Self::Send(_) | Self::Read(_) | Self::Silent(_) => Ended::Lost,
            Self::Expired => Ended::Expired,
            Self::Busy(wait, _) => Ended::Busy(*wait),
            Self::Refused(status) => match status.code.as_u16() {
                401 | 403 => Ended::Forbidden,
                404 => Ended::Missing,
                405 => Ended::Unsupported,
                code => Ended::Refused {
                    is_lasting: !matches!(code, 408 | 429) && (400..500).contains(&code),
                },
            },
            Self::List(_)
            | Self::Object(_)
            | Self::Events(_)
            | Self::Inflate(_)
            | Self::EndlessPages
            | Self::Backwards { .. }
            | Self::Nameless
            | Self::OtherKind(_) => Ended::Malformed,
            Self::WentBack { .. } => Ended::WentBack,
            Self::Suspect => Ended::Suspect,
            Self::Unproven => Ended::Unproven,
            Self::Unnumbered => Ended::Unnumbered,
            Self::OverBudget => Ended::OverBudget,
            Self::Take(_) | Self::Unended => Ended::Failed,
        }
    }
}

/// Sends one request for a scope; an answer other than 200 is an error.
pub(super) async fn ask(
    mirror: &Mirror,
    upstream: &Upstream,
    caller: &Caller,
    accept: &str,
    query: &[(&'static str, String)],
) -> Result<Response<Body>, FetchError> {
    let scope = &mirror.scope;
    let path = scope.resource.path(scope.namespace.as_deref());
    let path = format!("{path}?{}", encode(query));
    let lasts = query.iter().any(|(name, _)| *name == "watch");
    let purpose = match lasts {
        true => Purpose::Lasting(mirror.owner()),
        false => Purpose::Request,
    };
    let client = caller.client(upstream).with_purpose(purpose);
    let response = client
        .fetch(&path, accept)
        .await
        .map_err(|error| match error {
            SendError::InUse => FetchError::Busy(IN_USE, Status::streams_in_use()),
            error => FetchError::Send(error),
        })?;
    if response.status() == StatusCode::OK {
        return Ok(response);
    }
    let (code, wait) = (response.status(), retry_after(response.headers()));
    let text = body::read(response.into_body(), 64 << 10)
        .await
        .map_err(FetchError::Read)?;
    let status = || Status::received(code, &text);
    Err(match (code, wait) {
        (StatusCode::GONE, _) => FetchError::Expired,
        (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, Some(wait)) => {
            FetchError::Busy(wait, status())
        }
        _ => FetchError::Refused(status()),
    })
}

impl Follower {
    /// Asks for the scope's whole objects.
    pub(super) async fn ask(
        &self,
        caller: &Caller,
        query: &[(&'static str, String)],
    ) -> Result<Response<Body>, FetchError> {
        ask(&self.mirror, &self.config.upstream, caller, JSON, query).await
    }
}

/// Returns the selectors of a scope as a query.
pub(super) fn selectors(mirror: &Mirror) -> Vec<(&'static str, String)> {
    let mut query = Vec::new();
    if !mirror.scope.labels.is_everything() {
        query.push(("labelSelector", mirror.scope.labels.to_string()));
    }
    if !mirror.scope.fields.is_everything() {
        query.push(("fieldSelector", mirror.scope.fields.to_string()));
    }
    query
}

/// Waits for the next bytes of an answer; `None` at its end.
pub(super) async fn next_chunk(
    mirror: &Mirror,
    body: &mut Body,
    within: Duration,
) -> Result<Option<Bytes>, FetchError> {
    loop {
        let came = timeout(within, body.frame()).await;
        let Some(frame) = came.map_err(|_| FetchError::Silent(within))? else {
            return Ok(None);
        };
        if let Ok(chunk) = frame.map_err(FetchError::Read)?.into_data() {
            let len = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            let counters = &mirror.counters;
            counters.upstream_bytes.fetch_add(len, Ordering::Relaxed);
            return Ok(Some(chunk));
        }
    }
}

/// Reads a list of which only names and revisions matter.
pub(super) async fn read_metadata(
    mirror: &Mirror,
    response: Response<Body>,
    limit: usize,
    take: &mut impl FnMut(ObjectMeta),
) -> Result<ListHead, FetchError> {
    let mut inflate = Inflate::for_encoding(response.headers().get(CONTENT_ENCODING));
    let mut body = response.into_body();
    let mut splitter = ListSplitter::new(limit);
    while let Some(chunk) = next_chunk(mirror, &mut body, SILENCE).await? {
        inflate
            .push(&chunk, &mut |plain: &[u8]| {
                splitter.push(plain, &mut |item| {
                    take(ObjectMeta::parse(item)?);
                    Ok::<(), FetchError>(())
                })
            })
            .map_err(|error| error.either(FetchError::Inflate))?;
    }
    inflate.finish().map_err(FetchError::Inflate)?;
    Ok(splitter.finish()?)
}

/// The events of a watch, decompressed: a server sends them plain, a balancer before it may not.
pub(super) struct Events {
    pub(super) body: Body,
    inflate: Inflate,
    pub(super) lines: EventLines,
}

impl Events {
    pub(super) fn of(response: Response<Body>, limit: usize) -> Self {
        Self {
            inflate: Inflate::for_encoding(response.headers().get(CONTENT_ENCODING)),
            lines: EventLines::new(limit),
            body: response.into_body(),
        }
    }

    pub(super) fn push(
        &mut self,
        chunk: &[u8],
        take: &mut impl FnMut(EventType, &[u8]) -> Result<(), FetchError>,
    ) -> Result<(), FetchError> {
        let lines = &mut self.lines;
        self.inflate
            .push(chunk, &mut |plain: &[u8]| lines.push(plain, take))
            .map_err(|error| error.either(FetchError::Inflate))
    }
}

/// Returns for how long a server wants to be left alone.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Writes a query, each value percent-encoded.
fn encode(query: &[(&'static str, String)]) -> String {
    let pairs: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
        .collect();
    pairs.join("&")
}

/// Does work of a mirror on the store.
pub(super) async fn stored<T: Send + 'static>(
    work: impl FnOnce() -> yurt_core::store::Result<T> + Send + 'static,
) -> Result<T, FetchError> {
    blocking(work).await.map_err(FetchError::Take)
}
