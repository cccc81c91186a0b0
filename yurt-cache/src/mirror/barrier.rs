//! Shows that a mirror has caught up with the cloud, for the price of an empty list.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Mirror;
use crate::codec::ListSplitter;
use crate::identity::Caller;
use crate::upstream::Upstream;
use http_body_util::BodyExt;

/// How long an event may still be on its way when the cloud has answered that it has happened: the watch
/// and the answer share a link, and the server dispatches the one while it writes the other.
const GRACE: Duration = Duration::from_millis(25);

/// No object has this name: Kubernetes' names have no underscore.
const NOBODY: &str = "metadata.name=_";

impl Mirror {
    /// Returns when the mirror shows everything that the cloud had committed before the call, and stands at
    /// the cloud's revision, as far as a live watch can tell. Callers that come together share one request.
    /// Without a link it returns at once.
    ///
    /// # Cancel safety
    /// Cancelling is safe; another caller then asks itself.
    pub(crate) async fn catch_up(self: &Arc<Self>, upstream: &Upstream, caller: &Caller) {
        let arrived = Instant::now();
        let mut last = self.barrier.lock().await;
        if last.is_some_and(|began| began > arrived) {
            return;
        }
        let began = Instant::now();
        let Some(revision) = self.latest_revision(upstream, caller).await else {
            return;
        };
        // The revision is the whole cloud's and may never come in this scope's watch.
        if revision > self.revision() && timeout(GRACE, self.reached(revision)).await.is_err() {
            let mirror = self.clone();
            let claimed = tokio::task::spawn_blocking(move || mirror.claim(revision)).await;
            if let Err(error) = claimed.expect("a write does not panic") {
                tracing::warn!(scope = %self.scope, %error, "a revision is not remembered");
            }
        }
        *last = Some(began);
    }

    /// Asks the cloud for its revision, by a list of this scope that no object can be in.
    async fn latest_revision(&self, upstream: &Upstream, caller: &Caller) -> Option<u64> {
        let mut query = self.query();
        if self.scope.name().is_none() {
            query.retain(|(name, _)| *name != "fieldSelector");
            let fields = self.scope.fields.to_string();
            let fields = if fields.is_empty() {
                NOBODY.to_owned()
            } else {
                format!("{fields},{NOBODY}")
            };
            query.push(("fieldSelector", fields));
        }
        query.push(("limit", "1".to_owned()));
        let mut response = self.ask(upstream, caller, &query).await.ok()?;
        let mut inflate = crate::codec::Inflate::for_encoding(
            response.headers().get(http::header::CONTENT_ENCODING),
        );
        let mut splitter = ListSplitter::new(8 << 20);
        while let Some(frame) = response.body_mut().frame().await {
            let Ok(chunk) = frame.ok()?.into_data() else {
                continue;
            };
            let pushed = inflate.push(&chunk, &mut |plain: &[u8]| {
                splitter.push(plain, &mut |_| Ok::<(), crate::codec::ListError>(()))
            });
            pushed.ok()?;
        }
        Some(splitter.finish().ok()?.resource_version)
    }
}
