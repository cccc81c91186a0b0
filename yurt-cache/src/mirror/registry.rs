//! All mirrors of the hub: found by what a request needs, started on demand, remembered over restarts,
//! dropped when nobody has asked for a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use yurt_core::store::{Result, Store};

use super::definition;
use super::kind::Kind;
use super::loading;
use super::reflector::Keeping;
use super::remembered::Remembered;
use super::window::Limit;
use super::{Mirror, Phase};
use crate::api::{ListAt, Resource, Scope};
use crate::identity::Caller;
use crate::retention::Retention;

/// Mirrors that a hub keeps at most; what is asked for beyond is only forwarded.
const MIRRORS: usize = 2_000;

/// The hub's mirrors.
pub(crate) struct Registry {
    pub(super) store: Arc<dyn Store>,
    window: Limit,
    pub(super) kinds: RwLock<HashMap<Resource, Arc<Kind>>>,
    pub(super) mirrors: Mutex<Mirrors>,
    tasks: TaskTracker,
    stop: CancellationToken,
    keeping: Keeping,
    pub(super) retention: Retention,
    pub(super) remembered: Arc<Remembered>,
    /// When the store was opened: nothing is known of uses before.
    pub(super) opened: Instant,
    /// Keys of the store that nothing leads to.
    pub(super) orphans: Mutex<Vec<Bytes>>,
    /// Held while something local is put in front of an object in all its mirrors, or taken away.
    pub(super) covering: Mutex<()>,
}

#[derive(Default)]
pub(super) struct Mirrors {
    pub(super) by_id: BTreeMap<u32, Kept>,
    last_id: u32,
}

pub(super) struct Kept {
    pub(super) mirror: Arc<Mirror>,
    pub(super) stop: CancellationToken,
}

impl Registry {
    /// Opens what the store remembers. Blocks on the store; starts nothing yet.
    pub(crate) fn open(
        store: Arc<dyn Store>,
        limits: (Limit, Retention),
        keeping: Keeping,
        tasks: TaskTracker,
        stop: CancellationToken,
        now: Instant,
    ) -> Result<Self> {
        let (window, retention) = limits;
        let remembered = Arc::new(Remembered::new(retention.by_name));
        let make_kind = |resource: &Resource| {
            let budget = retention.of(resource);
            Kind::new(resource.clone(), store.clone(), budget, remembered.clone())
        };
        let loaded = loading::load(&store, window, &make_kind, now)?;
        let mirrors = loaded.mirrors.into_iter().map(|mirror| {
            let kept = Kept {
                mirror: Arc::new(mirror),
                stop: stop.child_token(),
            };
            (kept.mirror.id, kept)
        });
        let mirrors = Mirrors {
            by_id: mirrors.collect(),
            last_id: loaded.last_id,
        };
        let registry = Self {
            store,
            window,
            kinds: RwLock::new(loaded.kinds),
            mirrors: Mutex::new(mirrors),
            tasks,
            stop,
            keeping,
            remembered,
            retention,
            opened: now,
            orphans: Mutex::new(loaded.orphans),
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
            self.keep(kept, ListAt::Latest);
        }
    }

    /// Returns the mirror that can answer for `scope`: one that is synced before one that is not yet.
    pub(crate) fn find(&self, scope: &Scope) -> Option<Arc<Mirror>> {
        let mirrors = self.mirrors.lock();
        let covering = || {
            mirrors
                .by_id
                .values()
                .map(|kept| &kept.mirror)
                .filter(|mirror| mirror.scope.covers(scope))
        };
        let rank = |mirror: &&Arc<Mirror>| match mirror.phase() {
            Phase::Live => 3,
            Phase::Behind => 2,
            Phase::Syncing | Phase::Refused(_) => 1,
            Phase::Failed(_) => 0,
        };
        covering()
            .filter(|mirror| rank(mirror) > 0)
            .max_by_key(rank)
            .cloned()
    }

    /// Returns the mirror for `scope`, started if there is none; `None` if there are too many.
    pub(crate) fn find_or_start(
        &self,
        scope: &Scope,
        first: ListAt,
        caller: &Caller,
        now: Instant,
    ) -> Option<Arc<Mirror>> {
        if let Some(mirror) = self.find(scope) {
            mirror.note_use(caller, now);
            return Some(mirror);
        }
        let mut mirrors = self.mirrors.lock();
        // Another request may have started it since.
        let started = mirrors
            .by_id
            .values()
            .find(|kept| kept.mirror.scope.is_same(scope));
        if let Some(kept) = started {
            kept.mirror.note_use(caller, now);
            // What the cloud has just refused is not asked for again before the next sweep.
            return (!kept.mirror.has_failed()).then(|| kept.mirror.clone());
        }
        if mirrors.by_id.len() >= MIRRORS {
            return None;
        }
        mirrors.last_id += 1;
        let id = mirrors.last_id;
        let mirror = Arc::new(Mirror::new(
            id,
            scope.clone(),
            self.kind(&scope.resource),
            self.store.clone(),
            self.window,
            now,
        ));
        // Before it begins: as whom it may be fetched.
        mirror.note_use(caller, now);
        let kept = Kept {
            mirror: mirror.clone(),
            stop: self.stop.child_token(),
        };
        let (begun, keeping, stop) = (mirror.clone(), self.keeping.clone(), kept.stop.clone());
        self.tasks.spawn(async move {
            if begun.begin().await {
                begun.keep(keeping, first, stop).await;
            }
        });
        mirrors.by_id.insert(id, kept);
        tracing::info!(%scope, "a mirror begins");
        Some(mirror)
    }

    /// Returns the objects of a resource.
    pub(crate) fn kind(&self, resource: &Resource) -> Arc<Kind> {
        if let Some(kind) = self.kinds.read().get(resource) {
            return kind.clone();
        }
        let mut kinds = self.kinds.write();
        let kind = || {
            let budget = self.retention.of(resource);
            let (store, remembered) = (self.store.clone(), self.remembered.clone());
            Arc::new(Kind::new(resource.clone(), store, budget, remembered))
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

    fn keep(&self, kept: &Kept, first: ListAt) {
        self.tasks.spawn(
            kept.mirror
                .clone()
                .keep(self.keeping.clone(), first, kept.stop.clone()),
        );
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("mirrors", &self.mirrors.lock().by_id.len())
            .finish_non_exhaustive()
    }
}
