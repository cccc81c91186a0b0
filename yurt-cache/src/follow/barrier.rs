//! Proves that a mirror shows everything that the cloud had committed at a moment.
//!
//! The cloud lists the scope's names and revisions, at a revision of its own. The mirror is there if its watch
//! has brought an event or a bookmark of that revision or a later one, or if it holds exactly what was listed.
//! That an answer came on one connection says nothing of what is on its way on another, so nothing less is
//! believed; without a proof the cloud answers itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::registry::Registry;
use super::source::{FetchError, METADATA, ask, read_metadata, selectors};
use crate::api::{ObjectKey, key};
use crate::identity::Caller;
use crate::mirror::Mirror;
use crate::tasks::blocking;

/// Objects of one page: names and revisions are small.
const PAGE: u32 = 1_000;

/// How long a proof may take in all: as the server waits for its own cache.
const PROVEN_WITHIN: Duration = Duration::from_secs(3);

/// How long what the cloud has may still be on its way in the watch.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// After so many failures in a row the watch is opened again.
const FAILURES: u32 = 3;

/// What was proven of a mirror, and who is proving.
#[derive(Debug, Default)]
pub(super) struct Barrier {
    /// It shows everything that was committed before this.
    proven: Mutex<Option<Instant>>,
    turn: tokio::sync::Mutex<()>,
    failures: AtomicU32,
}

/// What the cloud holds of a scope.
struct Inventory {
    revision: u64,
    objects: HashMap<ObjectKey, u64>,
}

impl Barrier {
    /// Notes that the mirror shows everything that was committed before `moment`.
    pub(super) fn note(&self, moment: Instant) {
        let mut proven = self.proven.lock();
        *proven = (*proven).max(Some(moment));
    }

    fn is_proven(&self, moment: Instant) -> bool {
        self.proven.lock().is_some_and(|proven| proven > moment)
    }
}

impl Registry {
    /// Returns whether the mirror is known to show something newer than what an earlier hub left.
    pub(crate) fn was_proven(&self, mirror: &Mirror) -> bool {
        let following = self.following(mirror);
        following.is_some_and(|following| following.barrier.proven.lock().is_some())
    }

    /// Returns whether the mirror shows everything that the cloud had committed at `arrived`, and stands at a
    /// revision of the cloud that is no older. Callers that come together share one proof.
    ///
    /// # Cancel safety
    /// Cancelling is safe; another caller then asks itself.
    pub(crate) async fn prove(
        &self,
        mirror: &Arc<Mirror>,
        caller: &Caller,
        arrived: Instant,
    ) -> bool {
        let Some(following) = self.following(mirror) else {
            return false;
        };
        let barrier = &following.barrier;
        let proving = async {
            if barrier.is_proven(arrived) {
                return true;
            }
            let _turn = barrier.turn.lock().await;
            if barrier.is_proven(arrived) {
                return true;
            }
            let (began, followed) = (Instant::now(), mirror.followed());
            let inventory = match self.inventory(mirror, caller).await {
                Ok(inventory) => Arc::new(inventory),
                Err(error) => {
                    tracing::debug!(scope = %mirror.scope, %error, "the cloud does not say what it has");
                    return false;
                }
            };
            if inventory.revision < followed {
                // The cloud was put back: what it has now says nothing of what the mirror shows.
                return false;
            }
            let is_there = timeout(UNDER_WAY, caught_up(mirror, &inventory)).await;
            if is_there != Ok(true) {
                if barrier.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES {
                    barrier.failures.store(0, Ordering::Relaxed);
                    following.reopen.notify_waiters();
                }
                return false;
            }
            barrier.failures.store(0, Ordering::Relaxed);
            barrier.note(began);
            true
        };
        timeout(PROVEN_WITHIN, proving).await.unwrap_or(false)
    }

    /// Asks the cloud what the scope holds now; of a long list only until the watch has come so far itself.
    async fn inventory(&self, mirror: &Mirror, caller: &Caller) -> Result<Inventory, FetchError> {
        let config = self.config();
        let mut objects = HashMap::new();
        let mut next: Option<String> = None;
        loop {
            let mut query = selectors(mirror);
            query.push(("limit", PAGE.to_string()));
            query.extend(next.clone().map(|token| ("continue", token)));
            let response = ask(mirror, &config.upstream, caller, METADATA, &query).await?;
            let limit = config.object_limit;
            let head = read_metadata(mirror, response, limit, &mut |meta| {
                objects.insert(key(&meta.namespace, &meta.name), meta.resource_version);
            })
            .await?;
            let revision = head.resource_version;
            match head.continue_token {
                _ if revision == 0 => return Err(FetchError::Unnumbered),
                Some(token) if next.as_ref() == Some(&token) => {
                    return Err(FetchError::EndlessPages);
                }
                Some(token) if mirror.followed() < revision => next = Some(token),
                _ => return Ok(Inventory { revision, objects }),
            }
        }
    }
}

/// Returns when the mirror stands where the cloud was; whether it could be noted.
async fn caught_up(mirror: &Arc<Mirror>, inventory: &Arc<Inventory>) -> bool {
    let mut changed = mirror.changed();
    loop {
        changed.borrow_and_update();
        let (held, wanted) = (mirror.clone(), inventory.clone());
        let is_there = blocking(move || {
            let is_there = held.is_live() && held.shows(wanted.revision, &wanted.objects);
            match is_there {
                true => held.claim(wanted.revision).map(|()| true),
                false => Ok(false),
            }
        })
        .await;
        match is_there {
            Ok(true) => return mirror.revision() >= inventory.revision,
            Err(error) => {
                tracing::warn!(scope = %mirror.scope, %error, "cannot store a revision: the store is not writable");
                return false;
            }
            Ok(false) => {}
        }
        if changed.changed().await.is_err() {
            return false;
        }
    }
}

impl Mirror {
    /// Returns whether it is where the cloud was at `revision`, with these objects. Events come in their
    /// order, so what is seen of one object never hides what was missing of another.
    fn shows(&self, revision: u64, objects: &HashMap<ObjectKey, u64>) -> bool {
        if self.followed() >= revision {
            return true;
        }
        self.holds_exactly(objects)
    }
}
