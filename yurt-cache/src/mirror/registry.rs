//! All mirrors of the hub: found by what a request needs, started on demand, remembered over restarts,
//! dropped when nobody has asked for a while.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use yurt_core::store::{Result, Store};

use super::definition;
use super::kind::{Kind, RECORDS, parse_record_key};
use super::record::{CLOUD, REMEMBERED, Record};
use super::reflector::Keeping;
use super::remembered::Remembered;
use super::saved::{
    SCOPES, SavedScope, decode_tombstone, parse_scope_key, parse_tombstone_key, tombstone_prefix,
};
use super::window::Limit;
use super::{Mirror, Phase, Tombstone};
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
        let registry = Self {
            store,
            window,
            kinds: RwLock::default(),
            mirrors: Mutex::default(),
            tasks,
            stop,
            keeping,
            remembered: Arc::new(Remembered::new(retention.by_name)),
            retention,
            opened: now,
            orphans: Mutex::default(),
            covering: Mutex::default(),
        };
        let relisted = registry.load_scopes(now)?;
        registry.load_records()?;
        registry.load_rest(&relisted)?;
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

    fn load_scopes(&self, now: Instant) -> Result<Vec<(u32, u64)>> {
        let mut relisted = Vec::new();
        let mut mirrors = self.mirrors.lock();
        for stored in self.stored_keys(SCOPES)? {
            let saved = match self.store.get(&stored) {
                Ok(bytes) => bytes.as_deref().and_then(SavedScope::decode),
                Err(error) => {
                    tracing::warn!(%error, "a damaged scope is forgotten");
                    None
                }
            };
            let (Some(id), Some(saved)) = (parse_scope_key(&stored), saved) else {
                continue;
            };
            mirrors.last_id = mirrors.last_id.max(id);
            let Some(scope) = saved.scope() else { continue };
            let kind = self.kind(&scope.resource);
            if let Some(form) = saved.form.clone() {
                kind.learn_form(form);
            }
            relisted.extend(saved.relisted.map(|revision| (id, revision)));
            let mirror = Mirror::new(id, scope, kind, self.store.clone(), self.window, now);
            if saved.is_synced {
                mirror.restore(&saved);
            }
            mirrors.by_id.insert(
                id,
                Kept {
                    mirror: Arc::new(mirror),
                    stop: self.stop.child_token(),
                },
            );
        }
        Ok(relisted)
    }

    fn load_records(&self) -> Result<()> {
        let live: HashSet<u32> = self
            .mirrors
            .lock()
            .by_id
            .keys()
            .copied()
            .chain([REMEMBERED, CLOUD])
            .collect();
        for stored in self.stored_keys(RECORDS)? {
            let Some((resource, key)) = parse_record_key(&stored) else {
                continue;
            };
            match self.store.get(&stored) {
                Ok(Some(bytes)) => {
                    let record = Record::decode(bytes).unwrap_or_default();
                    let kind = self.kind(&resource);
                    if !kind.load(&key, &record, |holder| live.contains(&holder)) {
                        self.orphans.lock().push(stored);
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%resource, key, %error, "a damaged object is forgotten")
                }
            }
        }
        Ok(())
    }

    fn load_rest(&self, relisted: &[(u32, u64)]) -> Result<()> {
        let is_damaged = self.store.health().damaged > 0;
        let kinds: Vec<Arc<Kind>> = self.kinds.read().values().cloned().collect();
        for kind in &kinds {
            definition::recall(self, kind);
        }
        for mirror in self.all() {
            let mut stones = Vec::new();
            for stored in self.stored_keys(&tombstone_prefix(mirror.id))? {
                let bytes = self.store.get(&stored).ok().flatten();
                if let (Some(revision), Some((added, key, _))) = (
                    parse_tombstone_key(&stored),
                    bytes.and_then(decode_tombstone),
                ) {
                    stones.push(Tombstone {
                        revision,
                        key,
                        added,
                    });
                }
            }
            mirror.restore_history(stones, is_damaged);
            let waiting = relisted.iter().find(|(id, _)| *id == mirror.id);
            if let Some((_, revision)) = waiting
                && let Err(error) = mirror.put_in_place(*revision)
            {
                tracing::warn!(scope = %mirror.scope, %error, "a list that was fetched waits for room");
                mirror.put_off(*revision);
            }
        }
        Ok(())
    }

    pub(super) fn stored_keys(&self, prefix: &[u8]) -> Result<Vec<Bytes>> {
        let mut keys = Vec::new();
        self.store.keys(prefix, None, &mut |key, _| {
            keys.push(Bytes::copy_from_slice(key));
            ControlFlow::Continue(())
        })?;
        Ok(keys)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("mirrors", &self.mirrors.lock().by_id.len())
            .finish_non_exhaustive()
    }
}
