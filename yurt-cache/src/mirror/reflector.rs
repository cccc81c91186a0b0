//! Keeps a mirror as the cloud has it: list once, watch on, resume after a cut, list again when the
//! cloud no longer has the revision.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use yurt_core::backoff::Backoff;
use yurt_core::store::Batch;

use super::fetch::FetchError;
use super::saved::{SavedScope, scope_key};
use super::{Mirror, Phase};
use crate::api::ListAt;
use crate::codec::Status;
use crate::identity::Caller;
use crate::upstream::{Reach, Upstream};

/// Shortest and longest life of an upstream watch, in seconds. Long, since each new one costs a round trip
/// and some hundred bytes; spread, so that a node's watches do not all end together.
const WATCH_SECONDS: std::ops::Range<u64> = 900..1_800;

/// After so long a round was a good one. A server that ends every watch at once, or sends only what
/// cannot be read, is asked less and less often.
const LASTED: Duration = Duration::from_secs(5);

/// How a mirror is kept.
#[derive(Clone, Debug)]
pub(crate) struct Keeping {
    pub(crate) upstream: Upstream,
    /// Bytes that one object may have.
    pub(crate) object_limit: usize,
    /// The hub has a client certificate of its node to fetch with.
    pub(crate) has_node_identity: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    List(ListAt),
    WatchList,
    Watch,
}

impl Mirror {
    /// Notes a new mirror in the store; without that there is none.
    pub(crate) async fn begin(self: &Arc<Self>) -> bool {
        let (store, id) = (self.store.clone(), self.id);
        let saved = SavedScope::new(&self.scope).encode();
        let noted = tokio::task::spawn_blocking(move || {
            let mut batch = Batch::new();
            batch.put(scope_key(id), saved);
            store.write(batch)
        })
        .await
        .expect("work on the store does not panic");
        if let Err(error) = &noted {
            tracing::warn!(scope = %self.scope, %error, "no new mirror: the store takes no write");
            let status = Status::internal("the node's store takes no write");
            self.set_phase(Phase::Failed(status));
        }
        noted.is_ok()
    }

    /// Keeps the mirror until `stop`, or until the cloud has refused a scope that was never synced.
    pub(crate) async fn keep(
        self: Arc<Self>,
        keeping: Keeping,
        first: ListAt,
        stop: CancellationToken,
    ) {
        stop.run_until_cancelled_owned(self.clone().reflect(keeping, first))
            .await;
        self.fall_behind(Instant::now());
    }

    async fn reflect(self: Arc<Self>, keeping: Keeping, first: ListAt) {
        let mut reach = keeping.upstream.reach();
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        let mut next = if self.is_synced() && !self.is_suspect() {
            Next::Watch
        } else {
            Next::List(first)
        };
        loop {
            let is_online = reach
                .wait_for(|reach| !matches!(reach, Reach::CutOff { .. }))
                .await
                .is_ok();
            if !is_online {
                return;
            }
            let began = Instant::now();
            let ended = self.round(&keeping, next).await;
            self.fall_behind(Instant::now());
            // A round that lasted was a good one; a list is soon over and says nothing of the next round.
            let has_lasted = began.elapsed() > LASTED;
            if has_lasted {
                backoff.reset();
            }
            let is_at_once = match ended {
                Ok(()) => {
                    let was_list = next != Next::Watch;
                    next = Next::Watch;
                    was_list || has_lasted
                }
                Err(FetchError::Expired) => {
                    next = expired(next);
                    next == Next::WatchList || backoff.is_fresh()
                }
                Err(FetchError::Refused(status)) if is_final(&status, self.is_synced()) => {
                    if next != Next::WatchList {
                        return self.set_phase(Phase::Failed(status));
                    }
                    // A server that does not know it yet has lists in pages.
                    next = Next::List(ListAt::Latest);
                    false
                }
                Err(FetchError::OverBudget) => return self.give_up().await,
                Err(FetchError::Refused(status)) if !self.is_synced() => {
                    self.set_phase(Phase::Refused(status));
                    false
                }
                Err(error) => {
                    self.note(&error, &mut next);
                    matches!(next, Next::List(_)) && backoff.is_fresh()
                }
            };
            if is_at_once {
                if next != Next::Watch {
                    backoff.next_delay(fastrand::f64());
                }
                continue;
            }
            let delay = backoff.next_delay(fastrand::f64());
            let mut changed = self.changed();
            let came_back = async {
                let is_cut = reach
                    .wait_for(|reach| matches!(reach, Reach::CutOff { .. }))
                    .await
                    .is_ok();
                if !is_cut {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                // The link is gone: the wait for it is at the top, and then there is nothing to wait for.
                () = came_back => backoff.reset(),
                _ = changed.changed() => {}
            }
        }
    }

    /// Releases what was listed of a scope that is too large.
    async fn give_up(self: &Arc<Self>) {
        tracing::warn!(scope = %self.scope, "more than the node keeps of the kind: only forwarded");
        self.rest(Instant::now());
        let mirror = self.clone();
        let erased = tokio::task::spawn_blocking(move || mirror.erase()).await;
        if let Err(error) = erased.expect("work on the store does not panic") {
            tracing::warn!(scope = %self.scope, %error, "a mirror that was given up is not erased");
        }
    }

    /// Logs what ended a round; what was malformed is counted and fetched again.
    fn note(&self, error: &FetchError, next: &mut Next) {
        let cause = std::error::Error::source(error)
            .map(ToString::to_string)
            .unwrap_or_default();
        match error {
            FetchError::List(_)
            | FetchError::Object(_)
            | FetchError::Events(_)
            | FetchError::Inflate(_)
            | FetchError::EndlessPages
            | FetchError::Backwards { .. }
            | FetchError::Nameless
            | FetchError::OtherKind(_) => {
                self.counters.malformed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(scope = %self.scope, step = %error, cause, "the cloud's answer was malformed, listing again");
                *next = Next::List(ListAt::Latest);
            }
            FetchError::Suspect => *next = Next::List(ListAt::Latest),
            FetchError::WentBack => {
                tracing::warn!(scope = %self.scope, "the cloud's revisions have gone back, listing anew");
                *next = Next::List(ListAt::Latest);
            }
            FetchError::Refused(status) if is_about_identity(status) => {
                tracing::info!(scope = %self.scope, "the mirror waits for a caller who may fetch it");
            }
            FetchError::Send(_) | FetchError::Read(_) | FetchError::Silent(_) => {
                tracing::debug!(scope = %self.scope, step = %error, cause, "the mirror lost its watch");
            }
            _ => {
                tracing::warn!(scope = %self.scope, step = %error, cause, "the mirror cannot follow")
            }
        }
    }

    async fn round(self: &Arc<Self>, keeping: &Keeping, next: Next) -> Result<(), FetchError> {
        let mut refused = None;
        for caller in self.identities(keeping) {
            let ended = match next {
                Next::List(at) => {
                    self.fetch_list(&keeping.upstream, &caller, keeping.object_limit, at)
                        .await
                }
                Next::WatchList => {
                    self.fetch_watch_list(&keeping.upstream, &caller, keeping.object_limit)
                        .await
                }
                Next::Watch => {
                    let seconds = fastrand::u64(WATCH_SECONDS);
                    let (upstream, limit) = (&keeping.upstream, keeping.object_limit);
                    tokio::select! {
                        ended = self.fetch_watch(upstream, &caller, limit, seconds) => ended,
                        () = self.suspect() => Err(FetchError::Suspect),
                    }
                }
            };
            match ended {
                Err(FetchError::Refused(status)) if is_about_identity(&status) => {
                    refused = Some(status)
                }
                ended => return ended,
            }
        }
        Err(FetchError::Refused(refused.unwrap_or_else(|| {
            Status::unauthorized().saying("nobody who may fetch it has asked yet")
        })))
    }

    /// With whose identity to fetch: the one that worked, the node's, then of those who asked.
    fn identities(&self, keeping: &Keeping) -> Vec<Caller> {
        let worked = {
            let callers = self.callers.lock();
            [callers.watched_as.clone(), callers.listed_as.clone()]
        };
        let node = keeping.has_node_identity.then_some(Caller::Node);
        let mut identities: Vec<Caller> = Vec::new();
        for caller in worked
            .into_iter()
            .flatten()
            .chain(node)
            .chain(self.callers())
        {
            if !identities.contains(&caller) {
                identities.push(caller);
            }
        }
        identities
    }
}

fn expired(next: Next) -> Next {
    match next {
        Next::Watch | Next::List(ListAt::Exactly(_)) => Next::List(ListAt::Latest),
        Next::List(ListAt::Latest) => Next::WatchList,
        Next::WatchList => Next::List(ListAt::Latest),
    }
}

/// Returns whether asking again is of no use: there is no such resource, or it cannot be watched.
fn is_final(status: &Status, is_synced: bool) -> bool {
    match status.code.as_u16() {
        404 | 405 => true,
        408 | 429 => false,
        code => !is_synced && (400..500).contains(&code),
    }
}

fn is_about_identity(status: &Status) -> bool {
    matches!(
        status.code,
        http::StatusCode::UNAUTHORIZED | http::StatusCode::FORBIDDEN
    )
}
