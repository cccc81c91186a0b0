//! How a change of a history is decided: step by step, each at the next place in the history.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::holding::{Behind, Holding, Last, Listed, Member, Tombstone};
use super::{History, Marks};
use crate::api::ObjectKey;
use crate::codec::EventType;
use crate::mirror::incoming::Incoming;
use crate::mirror::version::{Era, Version};
use crate::mirror::window::Step;

/// Deletions that a mirror remembers, so that a client may resume from before them.
pub(super) const TOMBSTONES: usize = 1_000;

/// Bytes of deletions that one transition writes: of a re-list that finds more gone the oldest are not remembered.
const DELETED_BYTES: u64 = 4 << 20;

/// A deletion to write: its last bytes, or the version that has them.
#[derive(Clone, Debug)]
pub(crate) struct Deletion {
    pub(crate) tombstone: Tombstone,
    pub(crate) last: Last,
    len: u32,
}

/// A change of a history that was decided and has not happened yet.
#[derive(Debug, Default)]
pub(crate) struct Transition {
    /// What the scope holds afterwards, for each object that changes.
    pub(crate) holdings: BTreeMap<ObjectKey, Holding>,
    /// The bytes of versions that are new here.
    pub(crate) bodies: Vec<(ObjectKey, Version, Bytes)>,
    pub(crate) deletions: Vec<Deletion>,
    /// At which revision the cloud says that an object has ended here, or that it is no longer selected.
    pub(crate) ended: HashMap<ObjectKey, u64>,
    /// Orders of remembered deletions that go.
    pub(crate) forgotten: Vec<u64>,
    pub(crate) steps: Vec<Step>,
    pub(crate) marks: Marks,
    pub(crate) era: Era,
    /// The window begins anew: whoever has a place in it has to list again.
    pub(crate) restarts: bool,
}

/// A transition that is being decided.
pub(super) struct Plan<'a> {
    history: &'a History,
    pub(super) holdings: HashMap<ObjectKey, Holding>,
    bodies: Vec<(ObjectKey, Version, Bytes)>,
    deletions: Vec<Deletion>,
    ended: HashMap<ObjectKey, u64>,
    pub(super) steps: Vec<Step>,
    pub(super) marks: Marks,
    pub(super) era: Era,
    restarts: bool,
}

impl<'a> Plan<'a> {
    pub(super) fn new(history: &'a History) -> Self {
        Self {
            history,
            holdings: HashMap::new(),
            bodies: Vec::new(),
            deletions: Vec::new(),
            ended: HashMap::new(),
            steps: Vec::new(),
            marks: history.marks,
            era: history.era,
            restarts: false,
        }
    }

    fn held(&self, key: &ObjectKey) -> Holding {
        let planned = self.holdings.get(key).copied();
        planned.unwrap_or_else(|| self.history.holding(key))
    }

    /// Takes the next place in the history: the cloud's revision, or the next number if that was told.
    fn next(&mut self, revision: u64) -> u64 {
        self.marks.revision = revision.max(self.marks.revision + 1);
        if self.marks.revision != revision {
            self.marks.ahead_until = self.marks.revision;
        }
        self.marks.revision
    }

    pub(super) fn put(&mut self, event: Incoming) {
        let held = self.held(&event.key);
        let version = Version::cloud(self.history.era, event.revision);
        let known = held.cloud_version();
        if known.is_some_and(|known| known >= version) {
            return;
        }
        let order = self.next(event.revision);
        let member = Member::new(held.member, version, order, event.len());
        self.bodies
            .push((event.key.clone(), version, event.body.clone()));
        let event_type = told_as(held.member.is_some(), true);
        self.step(event, event_type, order, Some(member), None);
    }

    pub(super) fn delete(&mut self, event: Incoming) {
        let held = self.held(&event.key);
        self.ended.insert(event.key.clone(), event.revision);
        match held.member {
            None if held.behind.is_none() => {}
            None => drop(self.holdings.insert(event.key, Holding::default())),
            Some(member) => {
                let order = self.next(event.revision);
                self.bury(
                    &event.key,
                    event.revision,
                    order,
                    member,
                    Last::Bytes(event.body.clone()),
                );
                self.step(event, EventType::Deleted, order, None, None);
            }
        }
    }

    pub(super) fn cover(
        &mut self,
        event: Incoming,
        member: Option<Member>,
        behind: Behind,
        is_selected: bool,
    ) {
        let order = self.next(event.revision);
        let version = Version::local(event.revision);
        let covering = Member::new(member, version, order, event.len());
        match (member, is_selected) {
            (None, false) => self.marks.revision = self.history.marks.revision,
            (Some(member), false) => {
                self.bury(
                    &event.key,
                    0,
                    order,
                    member,
                    Last::Bytes(event.body.clone()),
                );
                self.step(event, EventType::Deleted, order, None, Some(behind));
            }
            (_, true) => {
                self.bodies
                    .push((event.key.clone(), version, event.body.clone()));
                let event_type = told_as(member.is_some(), true);
                self.step(event, event_type, order, Some(covering), Some(behind));
            }
        }
    }

    pub(super) fn uncover(&mut self, event: Incoming) {
        let held = self.held(&event.key);
        let Some(behind) = held.behind else { return };
        let order = self.next(0);
        let member = Member::new(held.member, behind.version, order, behind.len);
        let event_type = told_as(held.member.is_some(), true);
        self.step(event, event_type, order, Some(member), None);
    }

    /// A re-list does not name the object any more.
    pub(super) fn vanish(&mut self, key: &ObjectKey, order: u64) {
        if let Some(member) = self.held(key).member {
            self.marks.revision = self.marks.revision.max(order);
            self.bury(key, 0, order, member, Last::Version(member.version));
        }
        self.holdings.insert(key.clone(), Holding::default());
    }

    /// A re-list has another version of the object; returns its place in the history.
    pub(super) fn replace(&mut self, listed: &Listed) -> u64 {
        let held = self.held(&listed.key);
        let order = self.next(listed.version.number());
        self.holdings
            .insert(listed.key.clone(), listed.held(held.member, order));
        order
    }

    fn bury(&mut self, key: &ObjectKey, revision: u64, order: u64, member: Member, last: Last) {
        let tombstone = Tombstone {
            order,
            revision,
            key: key.clone(),
            added: member.added,
        };
        self.deletions.push(Deletion {
            tombstone,
            last,
            len: member.len,
        });
    }

    fn step(
        &mut self,
        event: Incoming,
        event_type: EventType,
        order: u64,
        member: Option<Member>,
        behind: Option<Behind>,
    ) {
        self.holdings
            .insert(event.key.clone(), Holding { member, behind });
        let event = event.told(event_type, order);
        self.steps.push(Step::Event(Box::new(event)));
    }

    /// Nobody who knows anything of before may go on.
    pub(super) fn restart(&mut self, revision: u64, upstream: u64) {
        self.marks.revision = revision;
        self.marks.upstream = upstream;
        self.marks.compacted = revision;
        self.steps.clear();
        self.restarts = true;
    }

    pub(super) fn finish(mut self) -> Transition {
        let forgotten = self.forget();
        Transition {
            holdings: self.holdings.into_iter().collect(),
            bodies: self.bodies,
            deletions: self.deletions,
            ended: self.ended,
            forgotten,
            steps: self.steps,
            marks: self.marks,
            era: self.era,
            restarts: self.restarts,
        }
    }

    /// Makes room among the remembered deletions: the oldest go, and with them everything up to the last of
    /// them. Returns those that are in the store.
    fn forget(&mut self) -> Vec<u64> {
        let old = self.history.tombstones.iter().map(|stone| stone.order);
        let new = self.deletions.iter().map(|one| one.tombstone.order);
        let orders: Vec<u64> = old.clone().chain(new).collect();
        if let Some(over) = orders
            .len()
            .checked_sub(TOMBSTONES)
            .filter(|over| *over > 0)
        {
            self.marks.compacted = self.marks.compacted.max(orders[over - 1]);
        }
        let mut bytes = 0;
        let too_many = self.deletions.iter().rev().find(|one| {
            bytes += u64::from(one.len);
            bytes > DELETED_BYTES
        });
        let too_many = too_many.map_or(0, |one| one.tombstone.order);
        self.marks.compacted = self.marks.compacted.max(too_many);
        let compacted = self.marks.compacted;
        self.deletions.retain(|one| one.tombstone.order > compacted);
        old.take_while(|order| *order <= compacted).collect()
    }
}

/// Returns as what a change is told: whether the object was there before and is there now.
fn told_as(was: bool, is: bool) -> EventType {
    match (was, is) {
        (_, false) => EventType::Deleted,
        (false, true) => EventType::Added,
        (true, true) => EventType::Modified,
    }
}

impl Transition {
    /// Returns whether the scope's own record has to be written: what the objects and deletions say of
    /// themselves would lead to less after a restart.
    pub(crate) fn needs_record(&self, history: &History) -> bool {
        let held = self.holdings.values().filter_map(|holding| holding.member);
        let orders = held.map(|member| member.order);
        let deleted = self.deletions.iter().map(|one| one.tombstone.order);
        let told = orders.chain(deleted).max().unwrap_or(0);
        self.restarts
            || self.marks.compacted != history.marks.compacted
            || self.marks.ahead_until != history.marks.ahead_until
            || self.marks.revision > told.max(history.marks.revision)
    }

    /// Returns whether nothing would change that anybody is told or that a restart needs.
    pub(crate) fn is_silent(&self, history: &History) -> bool {
        self.holdings.is_empty() && !self.restarts && self.marks.revision == history.marks.revision
    }
}
