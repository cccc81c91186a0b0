//! Mirrors: one scope each, with at most one upstream list and one upstream watch, whoever asks and
//! however many ask. What a mirror holds is in the store; what it saw last is in its window.

mod belief;
mod bodies;
mod callers;
pub(crate) mod ending;
pub(crate) mod history;
pub(crate) mod incoming;
mod ingest;
pub(crate) mod kind;
pub(crate) mod loading;
pub(crate) mod pins;
mod record;
pub(crate) mod relist;
pub(crate) mod remembered;
pub(crate) mod saved;
mod selected;
#[cfg(test)]
mod simulation;
mod snapshot;
pub(crate) mod version;
mod waiting;
pub(crate) mod window;
mod write;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use yurt_core::store::Store;

use self::callers::Callers;
use self::history::{History, Tombstone, Transition};
use self::kind::Kind;
use self::relist::Writing;
use self::saved::SavedScope;
pub(crate) use self::snapshot::{Item, Snapshot};
use self::version::{Era, MirrorId, Version};
use self::window::{Limit, Step, WindowBudget};
use self::write::ScopeRecord;
use crate::api::{ObjectKey, Scope, Within};
use crate::codec::Status;

/// One scope and what the node holds of it.
///
/// Locks are taken in this order: `writing`, then the kind's own writer, then `state`, then what is in the kind's
/// memory. The first two are held while the disk is waited for, so that only whoever writes takes them; `state` never
/// is, so that everybody may read at any time.
pub(crate) struct Mirror {
    pub(crate) id: MirrorId,
    pub(crate) scope: Scope,
    pub(crate) kind: Arc<Kind>,
    store: Arc<dyn Store>,
    writing: Mutex<Writing>,
    state: RwLock<State>,
    changed: watch::Sender<()>,
    callers: Mutex<Callers>,
    /// Somebody asked whom nobody had seen here: as whom the scope may be fetched.
    pub(crate) asked: Notify,
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
    history: History,
    /// The store was damaged: something may be missing, so a list has to come before the next watch.
    is_suspect: bool,
    /// When the upstream watch was last open; the mirror's beginning if never.
    behind_since: Instant,
    used: Instant,
    /// It was given up for being over the budget, and is not tried again before this.
    rests_until: Option<Instant>,
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
    /// Returns a mirror that has seen nothing yet.
    pub(crate) fn new(
        id: MirrorId,
        scope: Scope,
        kind: Arc<Kind>,
        store: Arc<dyn Store>,
        window: Limit,
        now: Instant,
    ) -> Self {
        let state = State {
            phase: Phase::Syncing,
            history: History::new(window, kind.era()),
            is_suspect: false,
            behind_since: now,
            used: now,
            rests_until: None,
        };
        Self {
            id,
            scope,
            kind,
            store,
            writing: Mutex::default(),
            state: RwLock::new(state),
            changed: watch::Sender::default(),
            callers: Mutex::default(),
            asked: Notify::new(),
            counters: Counters::default(),
        }
    }

    /// Takes over what the store remembers of the mirror. If the store is damaged where the mirror lies, nobody knows
    /// what is missing, so the next contact with the cloud lists again.
    fn restore(&self, history: History, is_suspect: bool) {
        let mut state = self.state.write();
        state.phase = Phase::Behind;
        state.history = history;
        state.is_suspect = is_suspect;
        drop(state);
        self.note_followed();
    }

    pub(crate) fn phase(&self) -> Phase {
        self.state.read().phase.clone()
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.state.read().is_synced()
    }

    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state.read().phase, Phase::Live)
    }

    /// Returns what clients are told.
    pub(crate) fn revision(&self) -> u64 {
        self.state.read().history.revision()
    }

    /// Returns how far the upstream watch has come: where it is to be resumed.
    pub(crate) fn followed(&self) -> u64 {
        self.state.read().history.upstream()
    }

    fn era(&self) -> Era {
        self.state.read().history.era()
    }

    /// Returns how many objects it holds, and their bytes.
    pub(crate) fn size(&self) -> (usize, u64) {
        self.state.read().history.size()
    }

    /// Returns the cloud's version of an object that it holds, if something local is in front or not.
    pub(crate) fn cloud_version(&self, key: &str) -> Option<Version> {
        self.state.read().history.cloud_version(key)
    }

    /// Returns whether it holds these objects at these revisions of the cloud, and no others.
    pub(crate) fn holds_exactly(&self, objects: &HashMap<ObjectKey, u64>) -> bool {
        let state = self.state.read();
        let is_so = |key: &ObjectKey| {
            let held = state.history.cloud_version(key).map(Version::number);
            held.is_some() && held == objects.get(key).copied()
        };
        state.history.keys().count() == objects.len() && state.history.keys().all(is_so)
    }

    /// Wakes when anything of the mirror has changed.
    pub(crate) fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Returns whether a watch can go on from `revision`.
    pub(crate) fn has_history_since(&self, revision: u64) -> bool {
        let history = &self.state.read().history;
        history.reaches_back_to(revision) || history.window().place_after(revision).is_some()
    }

    /// Returns what it holds now. Its versions stay readable while the view lives.
    pub(crate) fn view(&self, within: Within<'_>) -> View {
        let state = self.state.read();
        self.view_of(&state.history, within, 0)
    }

    /// Returns what changed since `revision`, as far as it is still known: each object once, as it is now.
    pub(crate) fn since(&self, revision: u64, within: Within<'_>) -> Option<Since> {
        let state = self.state.read();
        if !state.history.reaches_back_to(revision) {
            return None;
        }
        let is_within = |stone: &&Tombstone| within.contains(&stone.key);
        let deleted = state.history.deleted_since(revision).filter(is_within);
        Some(Since {
            deleted: deleted.cloned().collect(),
            view: self.view_of(&state.history, within, revision),
        })
    }

    fn view_of(&self, history: &History, within: Within<'_>, since: u64) -> View {
        let members = history.members(within);
        let changed = members.filter(|(_, member)| member.order > since || since == 0);
        let items = changed.map(|(key, member)| Item {
            key: key.clone(),
            version: member.version,
            order: member.order,
            added: member.added,
        });
        // At once as long as it will be: what grows is there twice for a moment, for each of many callers.
        let len = match within {
            Within::Everything if since == 0 => history.size().0,
            _ => 0,
        };
        let mut all = Vec::with_capacity(len);
        all.extend(items);
        View {
            snapshot: Snapshot::new(self.kind.clone(), all),
            revision: history.revision(),
            place: history.window().head(),
        }
    }

    /// Returns the place in the window after `revision`, `None` if the window does not go back so far.
    pub(crate) fn place_after(&self, revision: u64) -> Option<u64> {
        let history = &self.state.read().history;
        history.window().place_after(revision)
    }

    /// Returns what came after `place`, of about `bytes` at most.
    pub(crate) fn read(&self, place: u64, bytes: usize) -> Read {
        let state = self.state.read();
        if let Phase::Failed(status) = &state.phase {
            return Read::Ended(status.clone());
        }
        match state.history.window().read(place, bytes) {
            None => Read::Lost,
            Some(steps) if steps.is_empty() => Read::Idle(state.history.revision()),
            Some(steps) => Read::Steps(steps),
        }
    }

    /// Counts the bytes of its window to the budget of all windows.
    pub(crate) fn count_window(&self, budget: &Arc<WindowBudget>) {
        let mut state = self.state.write();
        state.history.window_mut().count_to(budget.clone());
    }

    /// Returns how many bytes its window holds.
    pub(crate) fn window_bytes(&self) -> usize {
        self.state.read().history.window().bytes()
    }

    /// Makes its window forget its oldest steps until it holds no more than so many bytes.
    pub(crate) fn shrink_window(&self, bytes: usize) {
        self.state.write().history.window_mut().shrink(bytes);
    }

    /// Returns since when nobody has asked; `None` while somebody watches.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        (self.counters.watchers.load(Ordering::Relaxed) == 0).then(|| self.state.read().used)
    }

    /// Returns since when the upstream watch has not been open, `None` while it is.
    pub(crate) fn behind_since(&self) -> Option<Instant> {
        let state = self.state.read();
        (!matches!(state.phase, Phase::Live)).then_some(state.behind_since)
    }

    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.state.read().phase, Phase::Failed(_))
    }

    /// Returns what is stored of a mirror that has seen nothing yet.
    pub(crate) fn saved(&self) -> SavedScope {
        SavedScope {
            owner: Some(self.owner().id()),
            ..SavedScope::new(&self.scope)
        }
    }

    /// Returns what is to be stored of the mirror's own after a transition.
    fn saved_after(&self, transition: &Transition, record: ScopeRecord) -> SavedScope {
        SavedScope {
            form: self.kind.form().map(|form| (*form).clone()),
            is_synced: record == ScopeRecord::Always || self.is_synced(),
            revision: transition.marks.revision,
            followed: Version::cloud(transition.era, transition.marks.upstream),
            compacted: transition.marks.compacted,
            ahead_until: transition.marks.ahead_until,
            ..self.saved()
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        let mut state = self.state.write();
        // Whoever still works for a mirror that has failed does not bring it back.
        if matches!(state.phase, Phase::Failed(_)) {
            return;
        }
        state.phase = phase;
        drop(state);
        self.changed.send_replace(());
    }

    /// The upstream watch is not open any more.
    pub(crate) fn fall_behind(&self, now: Instant) {
        let mut state = self.state.write();
        if matches!(state.phase, Phase::Live) {
            state.phase = Phase::Behind;
            state.behind_since = now;
            drop(state);
            self.changed.send_replace(());
        }
    }
}

impl State {
    fn is_synced(&self) -> bool {
        matches!(self.phase, Phase::Live | Phase::Behind)
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
