//! A watch: where it begins, what it says, when it ends.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    list::{check_match, forbidden_option, parse_version},
    present::Presenter,
    request::Query,
    selector::Selector,
    serve::Server,
    state::State,
    status::ApiError,
    store::{Change, Family},
};

/// The server ends a watch after this, when the client names no time.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1_800);
/// A bookmark comes this long before the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// With all that is there, at least as new as the revision.
    State { at_least: u64 },
    /// With what comes from now on.
    Now { at_least: u64 },
    /// With what came after a revision.
    After(u64),
}

/// What a watch asks for, beside its selectors.
#[derive(Clone, Debug)]
pub(crate) struct WatchOptions {
    pub(crate) begin: Begin,
    wants_bookmarks: bool,
    wants_end_of_state: bool,
    timeout: Duration,
}

impl WatchOptions {
    pub(crate) fn parse(query: &Query) -> Result<Self, ApiError> {
        let found = query.get("resourceVersionMatch");
        let initial = query.flag("sendInitialEvents");
        if initial.is_some() && found != Some("NotOlderThan") {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            return Err(forbidden_option("resourceVersionMatch", why));
        }
        if let Some(found) = found {
            if initial.is_none() {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                return Err(forbidden_option("resourceVersionMatch", why));
            }
            check_match(found)?;
        }
        let version = parse_version(query)
            .map_err(|_| bad_version(query))?
            .unwrap_or_default();
        let begin = match (initial, version) {
            (Some(true), at_least) => Begin::State { at_least },
            (Some(false), 0) => Begin::Now { at_least: 0 },
            (None, 0) => Begin::State { at_least: 0 },
            (_, after) => Begin::After(after),
        };
        let wants_bookmarks = query.is_set("allowWatchBookmarks");
        let seconds = query.number("timeoutSeconds")?.unwrap_or_default();
        let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
        Ok(Self {
            begin,
            wants_bookmarks,
            wants_end_of_state: wants_bookmarks && initial == Some(true),
            timeout: seconds.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
        })
    }
}

/// The real server lets this one through to where nobody names it a bad request.
fn bad_version(query: &Query) -> ApiError {
    let text = query.get("resourceVersion").unwrap_or_default();
    ApiError::internal(&format!(
        "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
    ))
}

/// One watch of one client.
pub(crate) struct Watcher {
    pub(crate) server: Arc<Server>,
    pub(crate) presenter: Presenter,
    pub(crate) family: Family,
    pub(crate) namespace: Option<String>,
    pub(crate) selector: Selector,
    options: WatchOptions,
    revisions: watch::Receiver<u64>,
    cursor: u64,
    deadline: Instant,
    next_bookmark: Option<Instant>,
    pending: Vec<u8>,
    is_over: bool,
}

impl Watcher {
    /// Begins under the state's lock, so that nothing is missed and nothing comes twice.
    pub(crate) fn new(
        server: Arc<Server>,
        state: &State,
        presenter: Presenter,
        scope: (Family, Option<String>, Selector),
        options: WatchOptions,
    ) -> Self {
        let now = Instant::now();
        let (family, namespace, selector) = scope;
        let mut watcher = Self {
            revisions: server.revisions(),
            server,
            presenter,
            family,
            namespace,
            selector,
            cursor: state.store.revision(),
            deadline: now + options.timeout,
            next_bookmark: None,
            pending: Vec::new(),
            is_over: false,
            options,
        };
        watcher.begin(state);
        watcher.plan_bookmark(now);
        watcher
    }

    fn begin(&mut self, state: &State) {
        match self.options.begin {
            Begin::State { .. } => {
                for (_, object) in state.store.list(&self.family, self.namespace.as_deref()) {
                    if self.selector.matches(&object) {
                        self.say("ADDED", &object);
                    }
                }
                if self.options.wants_end_of_state {
                    self.bookmark(true);
                }
            }
            Begin::Now { .. } => {}
            Begin::After(revision) => {
                let window = state.window(&self.family);
                self.cursor = revision;
                let is_known = state.store.changes_after(revision).is_ok();
                if revision < window || !is_known {
                    self.expire(revision, window);
                }
            }
        }
    }

    fn expire(&mut self, asked: u64, window: u64) {
        let error = ApiError::expired(format!("too old resource version: {asked} ({window})"));
        self.say("ERROR", error.status());
        self.is_over = true;
    }

    /// Returns the next bytes for the client, or nothing when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.pending.is_empty() {
                return Some(Bytes::from(std::mem::take(&mut self.pending)));
            }
            if self.is_over {
                return None;
            }
            self.revisions.borrow_and_update();
            self.collect();
            if !self.pending.is_empty() {
                continue;
            }
            let bookmark = self.next_bookmark.unwrap_or(self.deadline);
            tokio::select! {
                changed = self.revisions.changed() => self.is_over = changed.is_err(),
                () = tokio::time::sleep_until(bookmark), if bookmark < self.deadline => {
                    self.bookmark(false);
                    self.plan_bookmark(Instant::now());
                }
                () = tokio::time::sleep_until(self.deadline) => self.is_over = true,
            }
        }
    }

    /// Turns the changes since the last look into events.
    fn collect(&mut self) {
        let server = self.server.clone();
        let state = server.state.lock();
        let Ok(changes) = state.store.changes_after(self.cursor) else {
            // The client was too slow: it must list again.
            self.is_over = true;
            return;
        };
        for change in changes {
            self.tell(change);
        }
        self.cursor = self.cursor.max(state.store.revision());
    }

    fn tell(&mut self, change: &Change) {
        let prefix = |namespace: &String| {
            change
                .key
                .path
                .strip_prefix(namespace.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
        };
        if change.key.family != self.family || !self.namespace.as_ref().is_none_or(prefix) {
            return;
        }
        let selects = |object: &&Arc<Value>| self.selector.matches(object);
        let before = change.before.as_ref().filter(selects).cloned();
        let after = change.after.as_ref().filter(selects).cloned();
        match (before, after) {
            (None, Some(after)) => self.say("ADDED", &after),
            (Some(_), Some(after)) => self.say("MODIFIED", &after),
            (Some(before), None) => {
                // The last state that was selected, at the revision of the write that ended it.
                let mut last = (*before).clone();
                last["metadata"]["resourceVersion"] = change.revision.to_string().into();
                self.say("DELETED", &last);
            }
            (None, None) => {}
        }
    }

    fn say(&mut self, kind: &str, object: &Value) {
        self.pending
            .extend_from_slice(&self.presenter.event(kind, object));
    }

    fn bookmark(&mut self, is_end_of_state: bool) {
        let resource = &self.presenter.resource;
        let mut object = json!({
            "kind": resource.kind,
            "apiVersion": resource.api_version(),
            "metadata": {"resourceVersion": self.cursor.to_string()},
        });
        if is_end_of_state {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        self.say("BOOKMARK", &object);
    }

    fn plan_bookmark(&mut self, now: Instant) {
        self.next_bookmark = None;
        if !self.options.wants_bookmarks {
            return;
        }
        let farewell = self.deadline.checked_sub(FAREWELL).filter(|at| *at > now);
        let regular = now + self.server.config.bookmark_interval;
        self.next_bookmark = farewell.map(|farewell| farewell.min(regular));
    }
}

/// The body of a watch: dropped with the connection, and with it the watch.
pub(crate) struct WatchBody {
    step: Pin<Box<dyn Future<Output = Step> + Send>>,
    is_over: bool,
}

/// What the watch said last, and the watch itself to go on with.
struct Step {
    bytes: Option<Bytes>,
    watcher: Box<Watcher>,
}

impl WatchBody {
    pub(crate) fn new(watcher: Watcher) -> Self {
        Self {
            step: Box::pin(step(Box::new(watcher))),
            is_over: false,
        }
    }
}

async fn step(mut watcher: Box<Watcher>) -> Step {
    let bytes = watcher.next().await;
    Step { bytes, watcher }
}

impl Body for WatchBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        match self.step.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Step { bytes: None, .. }) => {
                self.is_over = true;
                Poll::Ready(None)
            }
            Poll::Ready(Step {
                bytes: Some(bytes),
                watcher,
            }) => {
                self.step = Box::pin(step(watcher));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
        }
    }
}
