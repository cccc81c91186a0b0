//! How long a request waits for a mirror, and what for.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Proxy;
use crate::api::Freshness;
use crate::api::request::{ApiRequest, Revision, Verb};
use crate::identity::Caller;
use crate::mirror::Mirror;
use crate::upstream::Reach;

/// How long a request waits for a mirror's first list before it is forwarded instead.
const SYNC_WAIT: Duration = Duration::from_secs(30);

/// How long a request waits for a mirror's watch to be open again, or to reach a revision: as the server.
pub(super) const CATCH_UP_WAIT: Duration = Duration::from_secs(3);

/// What became of a wait for a mirror.
pub(super) enum Waited {
    Ready,
    /// It cannot be, or not in time: the cloud itself shall answer.
    Forward,
    CutOff,
}

/// What a mirror has to show before it answers.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) fresh: Freshness,
    /// It has to be proven once that it shows more than what the store remembers.
    pub(super) proof: bool,
}

impl Wanted {
    /// Returns what a mirror has to show to be as fresh as `fresh`.
    pub(super) fn of(
        api: &ApiRequest,
        mirror: &Mirror,
        fresh: Freshness,
        was_proven: bool,
    ) -> Self {
        Self {
            fresh: ahead(mirror, api).map_or(fresh, Freshness::AtLeast),
            // What the cloud has deleted since an earlier hub stopped is not shown again.
            proof: wants_state(api) && !was_proven,
        }
    }
}

impl Proxy {
    /// Waits until a mirror shows what is wanted, or until it is known that it will not.
    pub(super) async fn wait_for(
        &self,
        mirror: &Arc<Mirror>,
        caller: &Caller,
        wanted: Wanted,
        arrived: Instant,
    ) -> Waited {
        let mut reach = self.upstream.reach();
        let is_cut = |reach: &Reach| matches!(reach, Reach::CutOff { .. });
        let ready = async {
            match timeout(SYNC_WAIT, mirror.synced()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Waited::Forward,
            }
            // While nobody knows yet whether the cloud is there, what was remembered is as good as any.
            if wanted.fresh == Freshness::Any && self.is_reach_unknown() {
                return Waited::Ready;
            }
            // A mirror that cannot follow while the cloud is there has nothing to say of it.
            if !self.is_followed(mirror).await {
                return Waited::Forward;
            }
            let is_shown = || self.registry.prove(mirror, caller, arrived);
            // Another client's proof, or the list for which this one has waited, will do.
            let was_proven = || self.registry.was_proven(mirror);
            match wanted.fresh {
                Freshness::Any if wanted.proof && !was_proven() && !is_shown().await => {
                    return Waited::Forward;
                }
                Freshness::Any | Freshness::Exactly(_) => {}
                Freshness::AtLeast(revision) if revision <= mirror.revision() => {}
                Freshness::AtLeast(revision) => {
                    // Whether it came in time the answer itself checks.
                    is_shown().await;
                    let _came_or_not = timeout(CATCH_UP_WAIT, mirror.reached(revision)).await;
                }
                Freshness::Latest if is_shown().await => {}
                Freshness::Latest => return Waited::Forward,
            }
            Waited::Ready
        };
        tokio::select! {
            waited = ready => waited,
            _ = reach.wait_for(is_cut) => Waited::CutOff,
        }
    }

    /// Waits until the mirror's watch is open; `false` as soon as it is known that it will not be soon.
    async fn is_followed(&self, mirror: &Mirror) -> bool {
        let Some(following) = self.registry.following(mirror) else {
            return false;
        };
        tokio::select! {
            biased;
            () = mirror.live() => true,
            () = following.refused() => false,
            _failed = mirror.failed() => false,
            () = sleep(CATCH_UP_WAIT) => false,
        }
    }
}

/// Returns whether the answer begins with what is there now.
fn wants_state(api: &ApiRequest) -> bool {
    let is_resumed = matches!(api.options.revision, Revision::At(_));
    match api.verb {
        Verb::List => api.options.continue_token.is_none(),
        Verb::Watch => api.options.initial_events.unwrap_or(!is_resumed),
        Verb::Get | Verb::Write => false,
    }
}

/// Returns the revision at which a watch begins, if the mirror has not come so far: a client that has listed at the
/// cloud itself may know more.
fn ahead(mirror: &Mirror, api: &ApiRequest) -> Option<u64> {
    match (api.verb, &api.options.revision, api.options.initial_events) {
        (Verb::Watch, Revision::At(revision), None | Some(false)) => {
            (*revision > mirror.revision()).then_some(*revision)
        }
        _ => None,
    }
}
