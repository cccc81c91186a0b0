//! Mirrors: one scope each, with at most one upstream list and one upstream watch, whoever asks and
//! however many ask. What a mirror holds is in the store; what it saw last is in its window.

pub(crate) mod barrier;
pub(crate) mod definition;
mod ending;
pub(crate) mod fetch;
pub(crate) mod ingest;
pub(crate) mod kind;
pub(crate) mod local;
pub(crate) mod record;
pub(crate) mod reflector;
pub(crate) mod registry;
pub(crate) mod relist;
pub(crate) mod remembered;
pub(crate) mod saved;
pub(crate) mod sweep;
pub(crate) mod window;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;
use yurt_core::store::{Batch, Result, Store};

use self::kind::{Kind, Snapshot};
use self::saved::{SavedScope, scope_key};
use self::window::{Limit, Step, Window};
use crate::api::request::Verb;
use crate::api::{ObjectKey, Scope, Within};
use crate::codec::Status;
use crate::identity::Caller;

/// Deletions that a mirror remembers, so that a client may resume from before them.
const TOMBSTONES: usize = 1_000;

/// One scope and what the node holds of it.
pub(crate) struct Mirror {
    pub(crate) id: u32,
    pub(crate) scope: Scope,
    pub(crate) kind: Arc<Kind>,
    store: Arc<dyn Store>,
    state: Mutex<State>,
    /// Held for writing while objects and state change together, for reading while both are looked at.
    whole: RwLock<()>,
    changed: watch::Sender<()>,
    callers: Mutex<Callers>,
    barrier: tokio::sync::Mutex<Option<Instant>>,
    pub(crate) counters: Counters,
}

/// What is counted of a mirror.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) upstream_bytes: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) lists: AtomicU64,
    pub(crate) watches: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) watchers: AtomicUsize,
}

/// How far a mirror is.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// Nothing is visible yet.
    Syncing,
    /// The upstream watch is open.
    Live,
    /// Nothing is visible yet, and the server said this when it was asked last; it is asked again.
    Refused(Status),
    /// Synced once; the upstream watch is not open now.
    Behind,
    /// It cannot be: what the server said.
    Failed(Status),
}

struct State {
    phase: Phase,
    /// The objects are as they were in the cloud at this revision: what clients are told.
    revision: u64,
    /// How far the upstream list and watch themselves have come: where the watch is resumed. A barrier may
    /// have shown that nothing happened in the scope between this and `revision`.
    followed: u64,
    /// From this revision on, deletions are remembered.
    floor: u64,
    window: Window,
    tombstones: VecDeque<Tombstone>,
    /// The store was damaged: something may be missing, so a list has to come before the next watch.
    is_suspect: bool,
    /// A list at this revision is complete and not yet wholly in place.
    relisted: Option<u64>,
    /// When the upstream watch was last open; the mirror's beginning if never.
    behind_since: Instant,
    used: Instant,
    /// It was given up for being over the budget, and is not tried again before this.
    rests_until: Option<Instant>,
}

/// A deletion that is remembered; its object is in the store.
#[derive(Clone, Debug)]
pub(crate) struct Tombstone {
    pub(crate) revision: u64,
    pub(crate) key: ObjectKey,
    pub(crate) added: u64,
}

#[derive(Default)]
struct Callers {
    /// Who asked for this scope, the latest first: with whose identity it may be fetched.
    asked: VecDeque<Caller>,
    /// With whose identity it was listed.
    listed_as: Option<Caller>,
    /// With whose identity it was watched.
    watched_as: Option<Caller>,
}

/// A mirror at one moment.
pub(crate) struct View {
    pub(crate) snapshot: Snapshot,
    pub(crate) revision: u64,
    /// Where the window goes on after the snapshot.
    pub(crate) place: u64,
}

/// What a mirror held at a revision, made into the events since another.
pub(crate) struct Since {
    pub(crate) view: View,
    pub(crate) deleted: Vec<Tombstone>,
}

/// What a reader of the window gets.
pub(crate) enum Read {
    Steps(Vec<Arc<Step>>),
    /// Nothing new; the mirror stands at this revision.
    Idle(u64),
    /// The place has left the window.
    Lost,
    /// The mirror is no more.
    Ended(Status),
}

impl Mirror {
    pub(crate) fn new(
        id: u32,
        scope: Scope,
        kind: Arc<Kind>,
        store: Arc<dyn Store>,
        window: Limit,
        now: Instant,
    ) -> Self {
        let state = State {
            phase: Phase::Syncing,
            revision: 0,
            followed: 0,
            floor: 0,
            window: Window::new(0, window),
            tombstones: VecDeque::new(),
            is_suspect: false,
            relisted: None,
            behind_since: now,
            used: now,
            rests_until: None,
        };
        Self {
            id,
            scope,
            kind,
            store,
            state: Mutex::new(state),
            whole: RwLock::default(),
            changed: watch::Sender::default(),
            callers: Mutex::default(),
            barrier: tokio::sync::Mutex::default(),
            counters: Counters::default(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.state.lock().phase.clone()
    }

    pub(crate) fn is_synced(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Live | Phase::Behind)
    }

    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Live)
    }

    pub(crate) fn revision(&self) -> u64 {
        self.state.lock().revision
    }

    /// Returns where the upstream watch is to be resumed.
    fn followed(&self) -> u64 {
        self.state.lock().followed
    }

    /// Notes that nothing happened in the scope up to `revision`. Blocks on the store: what clients are told
    /// has to be known after a restart.
    fn claim(&self, revision: u64) -> Result<()> {
        let _whole = self.whole.write();
        let mut state = self.state.lock();
        if revision <= state.revision || !matches!(state.phase, Phase::Live) {
            return Ok(());
        }
        let saved = SavedScope {
            revision,
            ..self.saved(&state)
        };
        let mut batch = Batch::new();
        batch.put(scope_key(self.id), saved.encode());
        self.store.write(batch)?;
        state.revision = revision;
        drop(state);
        self.changed.send_replace(());
        Ok(())
    }

    /// Wakes when anything of the mirror has changed.
    pub(crate) fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Returns when the mirror is synced, or the status with which it failed, if only for now.
    pub(crate) async fn synced(&self) -> std::result::Result<(), Status> {
        let mut changed = self.changed();
        loop {
            match self.phase() {
                Phase::Live | Phase::Behind => return Ok(()),
                Phase::Refused(status) | Phase::Failed(status) => return Err(status),
                Phase::Syncing => {}
            }
            changed
                .changed()
                .await
                .expect("the mirror holds the sender");
        }
    }

    /// Returns when the upstream watch is open.
    pub(crate) async fn live(&self) {
        let mut changed = self.changed();
        while !self.is_live() {
            changed
                .changed()
                .await
                .expect("the mirror holds the sender");
        }
    }

    /// Returns whether a watch can go on from `revision`.
    pub(crate) fn has_history_since(&self, revision: u64) -> bool {
        let state = self.state.lock();
        revision >= state.floor || state.window.place_after(revision).is_some()
    }

    /// Returns when the mirror has reached `revision`.
    pub(crate) async fn reached(&self, revision: u64) {
        let mut changed = self.changed();
        while self.revision() < revision {
            changed
                .changed()
                .await
                .expect("the mirror holds the sender");
        }
    }

    /// Returns what it holds now. Its versions stay readable while the view lives.
    pub(crate) fn view(&self, within: Within<'_>) -> View {
        let _whole = self.whole.read();
        let snapshot = self.kind.snapshot(self.id, within, |_, _| true);
        let state = self.state.lock();
        View {
            snapshot,
            revision: state.revision,
            place: state.window.head(),
        }
    }

    /// Returns what changed since `revision`, as far as it is still known: each object once, as it is now.
    pub(crate) fn since(&self, revision: u64, within: Within<'_>) -> Option<Since> {
        let _whole = self.whole.read();
        let snapshot = self.kind.snapshot(self.id, within, |at, _| at > revision);
        let state = self.state.lock();
        if revision < state.floor {
            return None;
        }
        let deleted = state
            .tombstones
            .iter()
            .filter(|stone| stone.revision > revision && stone.added <= revision);
        let deleted = deleted.cloned().collect();
        Some(Since {
            view: View {
                snapshot,
                revision: state.revision,
                place: state.window.head(),
            },
            deleted,
        })
    }

    /// Returns the place in the window after `revision`, `None` if the window does not go back so far.
    pub(crate) fn place_after(&self, revision: u64) -> Option<u64> {
        self.state.lock().window.place_after(revision)
    }

    /// Returns what came after `place`, of about `bytes` at most.
    pub(crate) fn read(&self, place: u64, bytes: usize) -> Read {
        let state = self.state.lock();
        if let Phase::Failed(status) = &state.phase {
            return Read::Ended(status.clone());
        }
        match state.window.read(place, bytes) {
            None => Read::Lost,
            Some(steps) if steps.is_empty() => Read::Idle(state.revision),
            Some(steps) => Read::Steps(steps),
        }
    }

    /// Notes that somebody asked, and as whom the scope may be fetched.
    pub(crate) fn note_use(&self, caller: &Caller, now: Instant) {
        self.state.lock().used = now;
        if caller.is_of_hub() {
            return;
        }
        let mut callers = self.callers.lock();
        if callers.asked.front() == Some(caller) {
            return;
        }
        // Of the tokens of one account the newest lives longest.
        callers.asked.retain(|one| one.id() != caller.id());
        callers.asked.push_front(caller.clone());
        callers.asked.truncate(4);
        drop(callers);
        self.changed.send_replace(());
    }

    /// Returns since when nobody has asked; `None` while somebody watches.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        (self.counters.watchers.load(Ordering::Relaxed) == 0).then(|| self.state.lock().used)
    }

    /// Returns since when the upstream watch has not been open, `None` while it is.
    pub(crate) fn behind_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (!matches!(state.phase, Phase::Live)).then_some(state.behind_since)
    }

    /// Returns whether the store was damaged and no list has come since.
    pub(crate) fn is_suspect(&self) -> bool {
        self.state.lock().is_suspect
    }

    /// Returns who asked lately.
    pub(crate) fn callers(&self) -> Vec<Caller> {
        self.callers.lock().asked.iter().cloned().collect()
    }

    /// Returns whether the scope was listed, or watched, with this caller's own identity.
    pub(crate) fn is_fetched_as(&self, caller: &Caller, verb: Verb) -> bool {
        let callers = self.callers.lock();
        let is_caller =
            |one: &Option<Caller>| one.as_ref().is_some_and(|one| one.id() == caller.id());
        match verb {
            Verb::List => is_caller(&callers.listed_as),
            Verb::Watch => is_caller(&callers.watched_as),
            Verb::Get | Verb::Write => false,
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Failed(_))
    }

    /// Takes over the revision that was stored; objects and deletions may say that it was later.
    fn restore(&self, saved: &SavedScope) {
        let mut state = self.state.lock();
        state.phase = Phase::Behind;
        state.revision = saved.revision;
        state.followed = saved.followed;
        state.floor = saved.floor;
    }

    /// Takes over the deletions that were stored and what the objects say of the revision. After damage to
    /// the store nobody knows what is missing, so the next contact with the cloud lists again.
    fn restore_history(&self, mut stones: Vec<Tombstone>, is_damaged: bool) {
        stones.sort_by_key(|stone| stone.revision);
        let newest = self.kind.newest_revision(self.id);
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Behind) {
            return;
        }
        let deleted = stones.last().map_or(0, |stone| stone.revision);
        state.followed = state.followed.max(newest).max(deleted);
        state.revision = state.revision.max(state.followed);
        state.tombstones = stones.into();
        let revision = state.revision;
        state.window.restart(revision);
        state.is_suspect = is_damaged;
        if is_damaged {
            state.floor = state.revision;
        }
    }

    fn set_phase(&self, phase: Phase) {
        let mut state = self.state.lock();
        // Whoever still works for a mirror that has failed does not bring it back.
        if matches!(state.phase, Phase::Failed(_)) {
            return;
        }
        state.phase = phase;
        drop(state);
        self.changed.send_replace(());
    }

    /// The upstream watch is not open any more.
    fn fall_behind(&self) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Live) {
            state.phase = Phase::Behind;
            state.behind_since = Instant::now();
            drop(state);
            self.changed.send_replace(());
        }
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror")
            .field("id", &self.id)
            .field("scope", &self.scope.identity())
            .finish_non_exhaustive()
    }
}

/// Counts who watches a mirror while it does.
pub(crate) struct Counted(Arc<Mirror>);

impl Counted {
    pub(crate) fn new(mirror: Arc<Mirror>) -> Self {
        mirror.counters.watchers.fetch_add(1, Ordering::Relaxed);
        Self(mirror)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.counters.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}
