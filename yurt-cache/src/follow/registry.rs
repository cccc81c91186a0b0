//! All mirrors of the hub: found by what a request needs, started on demand, remembered over restarts,
//! dropped when nobody has asked for a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use yurt_core::store::{Result, Store};

use super::aggregated::Servers;
use super::definition;
use super::run::Follower;
use super::share::{Entry, Seat, Seats};
use super::{FollowerConfig, Following, Turns};
use crate::api::{ListAt, Resource, Scope};
use crate::codec::Status;
use crate::identity::Caller;
use crate::limits::Tenant;
use crate::mirror::kind::Kind;
use crate::mirror::pins::Pinned;
use crate::mirror::remembered::Remembered;
use crate::mirror::window::{Limit, WindowBudget};
use crate::mirror::{Mirror, Phase, loading};
use crate::retention::Retention;
use crate::tasks::Tasks;

/// The longest selector that is mirrored, as text: it is kept, printed and compared.
const SELECTOR: usize = 4 << 10;

/// How much is kept.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Of the events of one mirror.
    pub(crate) window: Limit,
    /// Bytes of the events of all mirrors.
    pub(crate) windows: usize,
    pub(crate) retention: Retention,
    pub(crate) seats: Seats,
}

/// The hub's mirrors.
pub(crate) struct Registry {
    pub(super) store: Arc<dyn Store>,
    window: Limit,
    pub(super) windows: Arc<WindowBudget>,
    pinned: Arc<Pinned>,
    seats: Seats,
    pub(super) kinds: RwLock<HashMap<Resource, Arc<Kind>>>,
    pub(super) mirrors: Mutex<Mirrors>,
    tasks: Tasks,
    stop: CancellationToken,
    config: FollowerConfig,
    turns: Arc<Turns>,
    pub(super) servers: Servers,
    pub(super) retention: Retention,
    pub(super) remembered: Arc<Remembered>,
    /// When the store was opened: nothing is known of uses before.
    pub(super) opened: Instant,
    /// Keys of the store that nothing leads to.
    pub(super) orphans: Mutex<Vec<Bytes>>,
    /// So many damaged records, any of them a mirror's, were there at the start; until all mirrors are listed anew.
    pub(super) damaged: Mutex<Option<u64>>,
    /// Held while something local is put in front of an object in all its mirrors, or taken away.
    pub(crate) covering: Mutex<()>,
}

#[derive(Default)]
pub(super) struct Mirrors {
    pub(super) by_id: BTreeMap<u32, Kept>,
    by_scope: HashMap<Identity, u32>,
    last_id: u32,
}

pub(super) struct Kept {
    pub(super) mirror: Arc<Mirror>,
    following: Arc<Following>,
    pub(super) stop: CancellationToken,
}

/// What tells scopes apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    resource: Resource,
    namespace: Option<String>,
    labels: String,
    fields: String,
}

impl Identity {
    fn of(scope: &Scope) -> Self {
        Self {
            resource: scope.resource.clone(),
            namespace: scope.namespace.clone(),
            labels: scope.labels.to_string(),
            fields: scope.fields.to_string(),
        }
    }

    fn is_too_long(&self) -> bool {
        self.labels.len() + self.fields.len() > SELECTOR
    }

    /// Returns the scopes that have every object of this one, itself among them: in all namespaces or its
    /// own, with its selectors or without.
    fn containing(&self) -> impl Iterator<Item = Self> {
        let without = |at: u8, bit: u8| at & bit != 0;
        (0..8_u8).filter_map(move |at| {
            let is_wider = [
                (1, self.namespace.is_some()),
                (2, !self.labels.is_empty()),
                (4, !self.fields.is_empty()),
            ];
            let is_other = is_wider.iter().all(|(bit, is)| *is || !without(at, *bit));
            is_other.then(|| Self {
                resource: self.resource.clone(),
                namespace: self.namespace.clone().filter(|_| !without(at, 1)),
                labels: if without(at, 2) {
                    String::new()
                } else {
                    self.labels.clone()
                },
                fields: if without(at, 4) {
                    String::new()
                } else {
                    self.fields.clone()
                },
            })
        })
    }
}

impl Mirrors {
    fn insert(&mut self, kept: Kept) {
        let id = kept.mirror.id;
        self.by_scope.insert(Identity::of(&kept.mirror.scope), id);
        self.by_id.insert(id, kept);
    }

    /// Takes a mirror out and ends what keeps it.
    pub(super) fn remove(&mut self, mirror: &Mirror) {
        if let Some(kept) = self.by_id.remove(&mirror.id) {
            kept.stop.cancel();
            let identity = Identity::of(&mirror.scope);
            // An older one of the scope, which could not be erased, takes nothing from the newer.
            if self.by_scope.get(&identity) == Some(&mirror.id) {
                self.by_scope.remove(&identity);
            }
        }
    }

    fn seats(&self) -> Vec<Seat> {
        let mirrors = self.by_id.values().map(|kept| &kept.mirror);
        let seats = mirrors.map(|mirror| Seat {
            id: mirror.id,
            owner: mirror.owner(),
            is_shared: mirror.is_shared(),
            idle_since: mirror.idle_since(),
        });
        seats.collect()
    }

    fn of(&self, identity: &Identity) -> Option<&Kept> {
        self.by_id.get(self.by_scope.get(identity)?)
    }

    /// Returns the mirror that can answer for a scope: one that is synced before one that is not yet, and of those one
    /// that is not suspect.
    fn find(&self, identity: &Identity) -> Option<&Arc<Mirror>> {
        let rank = |mirror: &&Arc<Mirror>| match mirror.phase() {
            Phase::Live => 3,
            Phase::Behind => 2,
            Phase::Syncing | Phase::Refused(_) => 1,
            Phase::Failed(_) => 0,
        };
        let found = identity.containing();
        found
            .filter_map(|wide| self.of(&wide))
            .map(|kept| &kept.mirror)
            .filter(|mirror| rank(mirror) > 0)
            .max_by_key(|mirror| (rank(mirror), !mirror.is_suspect()))
    }
}

impl Registry {
    /// Opens what the store remembers. Blocks on the store; starts nothing yet.
    pub(crate) fn open(
        store: Arc<dyn Store>,
        limits: Limits,
        config: FollowerConfig,
        tasks: Tasks,
        stop: CancellationToken,
        now: Instant,
    ) -> Result<Self> {
        let Limits {
            window,
            windows,
            retention,
            seats,
        } = limits;
        let windows = Arc::new(WindowBudget::new(windows));
        let pinned: Arc<Pinned> = Arc::default();
        let remembered = Arc::new(Remembered::new(retention.by_name));
        let make_kind = |resource: &Resource| {
            let budget = retention.of(resource);
            let (store, shared) = (store.clone(), (remembered.clone(), pinned.clone()));
            Kind::new(resource.clone(), store, budget, shared)
        };
        let loaded = loading::load(&store, window, &make_kind, now)?;
        let mut mirrors = Mirrors {
            last_id: loaded.last_id,
            ..Mirrors::default()
        };
        for mirror in loaded.mirrors {
            mirror.count_window(&windows);
            mirrors.insert(Kept {
                mirror: Arc::new(mirror),
                following: Arc::default(),
                stop: stop.child_token(),
            });
        }
        let registry = Self {
            store,
            window,
            windows,
            pinned,
            seats,
            kinds: RwLock::new(loaded.kinds),
            mirrors: Mutex::new(mirrors),
            tasks,
            stop,
            config,
            turns: Arc::default(),
            servers: Servers::default(),
            remembered,
            retention,
            opened: now,
            orphans: Mutex::new(loaded.orphans),
            damaged: Mutex::new(loaded.damaged),
            covering: Mutex::default(),
        };
        for kind in registry.kinds() {
            definition::recall(&registry, &kind);
        }
        Ok(registry)
    }

    /// Starts to keep the mirrors that were remembered.
    pub(crate) fn start(&self) {
        for kept in self.mirrors.lock().by_id.values() {
            let follower = self.follower(kept);
            self.tasks
                .spawn(follower.run(ListAt::Latest, kept.stop.clone()));
        }
    }

    /// Returns the mirror that can answer for `scope`: one that is synced before one that is not yet.
    pub(crate) fn find(&self, scope: &Scope) -> Option<Arc<Mirror>> {
        let identity = Identity::of(scope);
        self.mirrors.lock().find(&identity).cloned()
    }

    /// Returns the mirror for `scope`, started if there is none; `None` if it is not to be mirrored: there are
    /// too many, the caller has its share, its selectors are too long, or the cloud has just refused it.
    pub(crate) fn find_or_start(
        &self,
        scope: &Scope,
        first: ListAt,
        caller: &Caller,
        now: Instant,
    ) -> Option<Arc<Mirror>> {
        let identity = Identity::of(scope);
        let mut mirrors = self.mirrors.lock();
        // Under the lock, so that a sweep finds it used.
        if let Some(mirror) = mirrors.find(&identity) {
            mirror.note_use(caller, now);
            return Some(mirror.clone());
        }
        if let Some(failed) = mirrors.of(&identity) {
            failed.mirror.note_use(caller, now);
            return None;
        }
        if identity.is_too_long() {
            return None;
        }
        match self.seats.enter(&mirrors.seats(), &caller.tenant()) {
            Entry::Free => {}
            Entry::InsteadOf(id) => self.make_room(&mut mirrors, id),
            Entry::Full => return None,
        }
        mirrors.last_id += 1;
        let mirror = Arc::new(Mirror::new(
            mirrors.last_id,
            scope.clone(),
            self.kind(&scope.resource),
            self.store.clone(),
            self.window,
            now,
        ));
        mirror.count_window(&self.windows);
        // Before it begins: as whom it may be fetched.
        mirror.note_use(caller, now);
        let kept = self.kept(mirror.clone());
        let (follower, stop) = (self.follower(&kept), kept.stop.clone());
        self.tasks.spawn(async move {
            if follower.begin().await {
                follower.run(first, stop).await;
            }
        });
        mirrors.insert(kept);
        tracing::info!(%scope, "a mirror begins");
        Some(mirror)
    }

    /// Ends a mirror that makes room for another.
    fn make_room(&self, mirrors: &mut Mirrors, id: u32) {
        let Some(mirror) = mirrors.by_id.get(&id).map(|kept| kept.mirror.clone()) else {
            return;
        };
        mirrors.remove(&mirror);
        tracing::info!(scope = %mirror.scope, "a mirror ends: its owner has more than others");
        self.tasks.spawn_blocking(move || {
            mirror.end(Status::expired_watch(mirror.revision(), mirror.revision()));
            if let Err(error) = mirror.erase() {
                tracing::warn!(scope = %mirror.scope, %error, "a mirror that made room is not erased");
            }
        });
    }

    /// Returns what is kept of replaced versions for answers under way.
    pub(crate) fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    /// Returns how many mirrors there are, and how many of them are callers'.
    pub(crate) fn taken(&self) -> (usize, usize) {
        let seats = self.mirrors.lock().seats();
        let of_callers = seats.iter().filter(|seat| seat.owner != Tenant::Node);
        (seats.len(), of_callers.count())
    }

    /// Returns how many mirrors there may be.
    pub(crate) fn seats(&self) -> Seats {
        self.seats
    }

    fn kept(&self, mirror: Arc<Mirror>) -> Kept {
        Kept {
            mirror,
            following: Arc::default(),
            stop: self.stop.child_token(),
        }
    }

    fn follower(&self, kept: &Kept) -> Follower {
        Follower {
            mirror: kept.mirror.clone(),
            following: kept.following.clone(),
            config: self.config.clone(),
            turns: self.turns.clone(),
        }
    }

    /// Returns what is known of how a mirror follows; `None` when it has ended.
    pub(crate) fn following(&self, mirror: &Mirror) -> Option<Arc<Following>> {
        let mirrors = self.mirrors.lock();
        Some(mirrors.by_id.get(&mirror.id)?.following.clone())
    }

    pub(super) fn config(&self) -> &FollowerConfig {
        &self.config
    }

    /// Returns the objects of a resource.
    pub(crate) fn kind(&self, resource: &Resource) -> Arc<Kind> {
        if let Some(kind) = self.kinds.read().get(resource) {
            return kind.clone();
        }
        let mut kinds = self.kinds.write();
        let kind = || {
            let budget = self.retention.of(resource);
            let shared = (self.remembered.clone(), self.pinned.clone());
            Arc::new(Kind::new(
                resource.clone(),
                self.store.clone(),
                budget,
                shared,
            ))
        };
        kinds.entry(resource.clone()).or_insert_with(kind).clone()
    }

    /// Returns the objects of a resource if anything of it was ever seen.
    pub(crate) fn known_kind(&self, resource: &Resource) -> Option<Arc<Kind>> {
        self.kinds.read().get(resource).cloned()
    }

    /// Returns every mirror.
    pub(crate) fn all(&self) -> Vec<Arc<Mirror>> {
        self.mirrors
            .lock()
            .by_id
            .values()
            .map(|kept| kept.mirror.clone())
            .collect()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("mirrors", &self.mirrors.lock().by_id.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
