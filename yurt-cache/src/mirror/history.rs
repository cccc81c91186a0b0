//! What a mirror tells, as one pure thing: events in, what to write and what to tell out. It knows no lock, no
//! clock, no disk and no network, so a seed can play its whole life.
//!
//! Two numbers belong to each step. The **version** is the cloud's revision of the object (or the node's own
//! number for a local one): which bytes. The **order** is the place of the step in the history that this hub has
//! told: it ascends with every step, also inside one chunk, and is the cloud's revision unless that was told
//! before. Clients know orders: lists and bookmarks carry them, watches resume at them. An order is on the disk
//! before anybody hears of it, so that no restart ever gives it again.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use bytes::Bytes;

use super::incoming::Incoming;
use super::version::{Era, Version};
use super::window::{Limit, Step, Window};
use crate::api::{ObjectKey, Within};
use crate::codec::EventType;

/// Deletions that a mirror remembers, so that a client may resume from before them.
const TOMBSTONES: usize = 1_000;

/// Bytes of deletions that one transition writes: of a re-list that finds more gone the oldest are not remembered.
const DELETED_BYTES: u64 = 4 << 20;

/// An object that the scope holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) version: Version,
    /// Where in the history it became this version.
    pub(crate) order: u64,
    /// Where in the history it appeared.
    pub(crate) added: u64,
    /// The length of its bytes.
    pub(crate) len: u32,
}

/// The cloud's version of an object that has a local one in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Behind {
    pub(crate) version: Version,
    pub(crate) len: u32,
}

/// A deletion that is remembered; the object's last bytes are in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    pub(crate) order: u64,
    /// The cloud's revision of the deletion, 0 where a re-list found it.
    pub(crate) revision: u64,
    pub(crate) key: ObjectKey,
    /// Where in the history the object had appeared.
    pub(crate) added: u64,
}

/// A deletion to write: its last bytes, or the version that has them.
#[derive(Clone, Debug)]
pub(crate) struct Deletion {
    pub(crate) tombstone: Tombstone,
    pub(crate) last: Last,
    len: u32,
}

/// Where the last bytes of a deleted object are.
#[derive(Clone, Debug)]
pub(crate) enum Last {
    Bytes(Bytes),
    /// In the objects, until the transition is written; told with the order as their revision.
    Version(Version),
}

/// What a scope holds of an object after a transition: nothing of it at all if both are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) member: Option<Member>,
    pub(crate) behind: Option<Behind>,
}

/// One object of a complete list that differs from what is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) key: ObjectKey,
    pub(crate) version: Version,
    pub(crate) len: u32,
}

/// A change of a history that was decided and has not happened yet.
#[derive(Debug, Default)]
pub(crate) struct Transition {
    /// What the scope holds afterwards, for each object that changes.
    pub(crate) holdings: BTreeMap<ObjectKey, Holding>,
    /// The bytes of versions that are new here.
    pub(crate) bodies: Vec<(ObjectKey, Version, Bytes)>,
    pub(crate) deletions: Vec<Deletion>,
    /// Orders of remembered deletions that go.
    pub(crate) forgotten: Vec<u64>,
    pub(crate) steps: Vec<Step>,
    pub(crate) marks: Marks,
    pub(crate) era: Era,
    /// The window begins anew: whoever has a place in it has to list again.
    pub(crate) restarts: bool,
}

/// How far a history has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// What clients are told.
    pub(crate) revision: u64,
    /// How far the upstream list and watch have come.
    pub(crate) upstream: u64,
    pub(crate) compacted: u64,
    pub(crate) ahead_until: u64,
}

/// A mirror's objects, its place in the cloud's history and its own.
#[derive(Debug)]
pub(crate) struct History {
    /// What clients are told: the order of the last step, or a revision that was proven since.
    revision: u64,
    /// How far the upstream list and watch have come: where the watch is resumed.
    upstream: u64,
    /// Deletions from this order on are remembered; whoever is older has to list again.
    compacted: u64,
    /// The last order that was not the `resourceVersion` of its object. A client that has seen it may still come with
    /// the lower number of an object that it was told of.
    ahead_until: u64,
    /// In which the cloud's revisions are.
    era: Era,
    members: BTreeMap<ObjectKey, Member>,
    behind: BTreeMap<ObjectKey, Behind>,
    tombstones: VecDeque<Tombstone>,
    window: Window,
    bytes: u64,
}

impl History {
    /// Returns a history that has told nothing.
    pub(crate) fn new(window: Limit, era: Era) -> Self {
        Self {
            revision: 0,
            upstream: 0,
            compacted: 0,
            ahead_until: 0,
            era,
            members: BTreeMap::new(),
            behind: BTreeMap::new(),
            tombstones: VecDeque::new(),
            window: Window::new(0, window),
            bytes: 0,
        }
    }

    /// Returns the history that the store remembers, which has come as far as `marks` at least.
    pub(crate) fn restored(
        (window, era): (Limit, Era),
        marks: Marks,
        holdings: impl IntoIterator<Item = (ObjectKey, Holding)>,
        mut tombstones: Vec<Tombstone>,
    ) -> Self {
        let Marks {
            revision,
            upstream,
            compacted,
            ahead_until,
        } = marks;
        let mut history = Self {
            compacted,
            ahead_until,
            ..Self::new(window, era)
        };
        for (key, holding) in holdings {
            history.hold(key, holding);
        }
        tombstones.sort_by_key(|stone| stone.order);
        tombstones.retain(|stone| stone.order > compacted);
        let members = history.members.values();
        let told = members.map(|member| member.order).max();
        let told = told.max(tombstones.last().map(|stone| stone.order));
        let era_held = history.cloud_versions().max().map_or(era, Version::era);
        let held = history.cloud_versions().map(Version::number).max();
        let deleted = tombstones.iter().map(|stone| stone.revision).max();
        history.revision = revision.max(told.unwrap_or(0));
        history.upstream = upstream.max(held.unwrap_or(0)).max(deleted.unwrap_or(0));
        history.era = era_held;
        history.tombstones = tombstones.into();
        history.window.restart(history.revision);
        history
    }

    /// Forgets what was before: of some deletion nobody knows any more.
    pub(crate) fn forget(&mut self) {
        self.compacted = self.revision;
        self.tombstones.clear();
    }

    // === What it knows ===

    /// Returns what clients are told.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns where the upstream watch is to be resumed.
    pub(crate) fn upstream(&self) -> u64 {
        self.upstream
    }

    /// Returns in which era the cloud's revisions are.
    pub(crate) fn era(&self) -> Era {
        self.era
    }

    /// Returns how many objects it holds, and their bytes.
    pub(crate) fn size(&self) -> (usize, u64) {
        (self.members.len(), self.bytes)
    }

    /// Returns an object that clients see.
    pub(crate) fn member(&self, key: &str) -> Option<&Member> {
        self.members.get(key)
    }

    /// Returns the cloud's version of an object, behind a local one or not.
    pub(crate) fn cloud_version(&self, key: &str) -> Option<Version> {
        let behind = self.behind.get(key).map(|behind| behind.version);
        behind.or_else(|| self.members.get(key).map(|member| member.version))
    }

    /// Returns what it holds of an object.
    pub(crate) fn holding(&self, key: &str) -> Holding {
        Holding {
            member: self.members.get(key).copied(),
            behind: self.behind.get(key).copied(),
        }
    }

    /// Returns the objects with a local version in front, and the cloud's version behind it.
    pub(crate) fn behind(&self) -> impl Iterator<Item = (&ObjectKey, Version)> {
        self.behind
            .iter()
            .map(|(key, behind)| (key, behind.version))
    }

    /// Returns every object that it holds anything of.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        let hidden = self.behind.keys();
        let hidden = hidden.filter(|key| !self.members.contains_key(*key));
        self.members.keys().chain(hidden)
    }

    /// Returns the members within, in the order of the server's lists.
    pub(crate) fn members(
        &self,
        within: Within<'_>,
    ) -> impl Iterator<Item = (&ObjectKey, &Member)> {
        let (from, to) = within.bounds();
        self.members.range::<str, _>((
            from.as_ref().map(String::as_str),
            to.as_ref().map(String::as_str),
        ))
    }

    /// Returns the deletions that a client has not heard of which was told `revision`, and had seen the object, as
    /// far as its number says what it has seen.
    pub(crate) fn deleted_since(&self, revision: u64) -> impl Iterator<Item = &Tombstone> {
        let is_vague = revision < self.ahead_until;
        let later = self
            .tombstones
            .iter()
            .filter(move |stone| stone.order > revision);
        later.filter(move |stone| is_vague || stone.added <= revision)
    }

    /// Returns whether a client that was told `revision` can go on from there.
    pub(crate) fn reaches_back_to(&self, revision: u64) -> bool {
        (self.compacted..=self.revision).contains(&revision)
    }

    /// Returns the recent steps.
    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    fn cloud_versions(&self) -> impl Iterator<Item = Version> {
        let behind = self.behind.values().map(|behind| behind.version);
        let members = self.members.values().map(|member| member.version);
        members.chain(behind).filter(|version| !version.is_local())
    }

    // === What may happen ===

    /// Decides what events of the upstream watch mean, in their order.
    pub(crate) fn events(&self, events: Vec<Incoming>) -> Transition {
        let mut plan = Plan::new(self);
        for event in events {
            plan.upstream = plan.upstream.max(event.revision);
            match event.event_type {
                EventType::Bookmark | EventType::Error => {}
                EventType::Deleted => plan.delete(event),
                EventType::Added | EventType::Modified => plan.put(event),
            }
        }
        plan.finish()
    }

    /// Decides what it means that nothing happened in the scope up to `revision`.
    pub(crate) fn proven(&self, revision: u64) -> Transition {
        let mut plan = Plan::new(self);
        plan.revision = plan.revision.max(revision);
        plan.finish()
    }

    /// Decides what the first complete list means: nobody has been told anything yet.
    pub(crate) fn first_list(&self, revision: u64, listed: Vec<Listed>) -> Transition {
        let mut plan = Plan::new(self);
        for one in listed {
            let order = one.version.number();
            plan.holdings.insert(one.key.clone(), one.held(None, order));
        }
        plan.restart(self.revision.max(revision), revision);
        plan.finish()
    }

    /// Decides what a later complete list means: `listed` differs from what is held, and what is not in `seen`
    /// is gone. Whose own revision is not known gets a number that no other object has.
    pub(crate) fn relist(
        &self,
        (era, revision): (Era, u64),
        mut listed: Vec<Listed>,
        seen: &HashSet<ObjectKey>,
    ) -> Transition {
        let mut plan = Plan::new(self);
        let gone: Vec<&ObjectKey> = self.keys().filter(|key| !seen.contains(*key)).collect();
        listed.sort_by_key(|one| one.version);
        let taken: HashSet<u64> = listed.iter().map(|one| plan.replace(one)).collect();
        let mut free = (self.revision + 1..).filter(|order| !taken.contains(order));
        for (key, order) in gone.into_iter().zip(&mut free) {
            plan.vanish(key, order);
        }
        let is_news = plan.revision > self.revision;
        plan.upstream = revision;
        plan.revision = plan.revision.max(revision);
        plan.era = era;
        if era != self.era {
            // As when its etcd was restored: what clients know leads nowhere.
            plan.restart(plan.revision.max(self.revision + 1), revision);
        } else if is_news {
            plan.steps.push(Step::Jump { to: plan.revision });
        }
        plan.finish()
    }

    /// Decides what a local version means that is put in front of an object, `None` if it is not held. A version
    /// that the scope does not select leaves it for as long as it lasts.
    pub(crate) fn cover(&self, event: Incoming, is_selected: bool) -> Option<Transition> {
        let held = self.holding(&event.key);
        let behind = held.behind.or_else(|| {
            held.member.map(|member| Behind {
                version: member.version,
                len: member.len,
            })
        })?;
        let mut plan = Plan::new(self);
        plan.cover(event, held.member, behind, is_selected);
        Some(plan.finish())
    }

    /// Decides what it means that these objects are as the cloud has them again.
    pub(crate) fn uncover(&self, events: Vec<Incoming>) -> Transition {
        let mut plan = Plan::new(self);
        for event in events {
            plan.uncover(event);
        }
        plan.finish()
    }

    // === What happened ===

    /// Lets a decided change happen.
    pub(crate) fn commit(&mut self, transition: Transition) {
        for (key, holding) in transition.holdings {
            self.hold(key, holding);
        }
        let is_kept = |stone: &Tombstone| stone.order > transition.marks.compacted;
        let coming = transition.deletions.into_iter().map(|one| one.tombstone);
        self.tombstones.extend(coming);
        self.tombstones.retain(is_kept);
        if transition.restarts {
            self.window.restart(transition.marks.revision);
        }
        for step in transition.steps {
            self.window.push(step);
        }
        self.revision = transition.marks.revision;
        self.upstream = transition.marks.upstream;
        self.compacted = transition.marks.compacted;
        self.ahead_until = transition.marks.ahead_until;
        self.era = transition.era;
    }

    /// Lets go of objects without telling anybody: the mirror ends.
    pub(crate) fn let_go(&mut self, keys: &[ObjectKey]) {
        for key in keys {
            self.hold(key.clone(), Holding::default());
        }
    }

    fn hold(&mut self, key: ObjectKey, holding: Holding) {
        if let Some(behind) = holding.behind {
            self.behind.insert(key.clone(), behind);
        } else {
            self.behind.remove(&key);
        }
        let before = match holding.member {
            Some(member) => {
                self.bytes += u64::from(member.len);
                self.members.insert(key, member)
            }
            None => self.members.remove(&key),
        };
        self.bytes -= before.map_or(0, |member| u64::from(member.len));
    }
}

/// A transition that is being decided.
struct Plan<'a> {
    history: &'a History,
    holdings: HashMap<ObjectKey, Holding>,
    bodies: Vec<(ObjectKey, Version, Bytes)>,
    deletions: Vec<Deletion>,
    steps: Vec<Step>,
    revision: u64,
    upstream: u64,
    compacted: u64,
    ahead_until: u64,
    era: Era,
    restarts: bool,
}

impl<'a> Plan<'a> {
    fn new(history: &'a History) -> Self {
        Self {
            history,
            holdings: HashMap::new(),
            bodies: Vec::new(),
            deletions: Vec::new(),
            steps: Vec::new(),
            revision: history.revision,
            upstream: history.upstream,
            compacted: history.compacted,
            ahead_until: history.ahead_until,
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
        self.revision = revision.max(self.revision + 1);
        if self.revision != revision {
            self.ahead_until = self.revision;
        }
        self.revision
    }

    fn put(&mut self, event: Incoming) {
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

    fn delete(&mut self, event: Incoming) {
        let held = self.held(&event.key);
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

    fn cover(
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
            (None, false) => self.revision = self.history.revision,
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

    fn uncover(&mut self, event: Incoming) {
        let held = self.held(&event.key);
        let Some(behind) = held.behind else { return };
        let order = self.next(0);
        let member = Member::new(held.member, behind.version, order, behind.len);
        let event_type = told_as(held.member.is_some(), true);
        self.step(event, event_type, order, Some(member), None);
    }

    /// A re-list does not name the object any more.
    fn vanish(&mut self, key: &ObjectKey, order: u64) {
        if let Some(member) = self.held(key).member {
            self.revision = self.revision.max(order);
            self.bury(key, 0, order, member, Last::Version(member.version));
        }
        self.holdings.insert(key.clone(), Holding::default());
    }

    /// A re-list has another version of the object; returns its place in the history.
    fn replace(&mut self, listed: &Listed) -> u64 {
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
    fn restart(&mut self, revision: u64, upstream: u64) {
        self.revision = revision;
        self.upstream = upstream;
        self.compacted = revision;
        self.steps.clear();
        self.restarts = true;
    }

    fn finish(mut self) -> Transition {
        let forgotten = self.forget();
        Transition {
            holdings: self.holdings.into_iter().collect(),
            bodies: self.bodies,
            deletions: self.deletions,
            forgotten,
            steps: self.steps,
            marks: Marks {
                revision: self.revision,
                upstream: self.upstream,
                compacted: self.compacted,
                ahead_until: self.ahead_until,
            },
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
            self.compacted = self.compacted.max(orders[over - 1]);
        }
        let mut bytes = 0;
        let too_many = self.deletions.iter().rev().find(|one| {
            bytes += u64::from(one.len);
            bytes > DELETED_BYTES
        });
        let too_many = too_many.map_or(0, |one| one.tombstone.order);
        self.compacted = self.compacted.max(too_many);
        let compacted = self.compacted;
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

impl Member {
    /// Returns the object as a version that came at a place in the history, after what it was before.
    fn new(before: Option<Self>, version: Version, order: u64, len: u32) -> Self {
        Self {
            version,
            order,
            added: before.map_or(order, |before| before.added),
            len,
        }
    }
}

impl Holding {
    /// Returns the cloud's version, behind a local one or not.
    pub(crate) fn cloud_version(&self) -> Option<Version> {
        let behind = self.behind.map(|behind| behind.version);
        behind.or_else(|| self.member.map(|member| member.version))
    }

    /// Returns whether it needs the bytes of a version.
    pub(crate) fn has(&self, version: Version) -> bool {
        self.versions().any(|one| one == version)
    }

    /// Returns the length of a version that it holds.
    pub(crate) fn len(&self, version: Version) -> u32 {
        let member = self.member.map(|one| (one.version, one.len));
        let behind = self.behind.map(|one| (one.version, one.len));
        let mut held = member.into_iter().chain(behind);
        held.find(|(one, _)| *one == version)
            .map_or(0, |(_, len)| len)
    }

    /// Returns the versions whose bytes it needs.
    pub(crate) fn versions(&self) -> impl Iterator<Item = Version> + use<> {
        let member = self.member.map(|member| member.version);
        member
            .into_iter()
            .chain(self.behind.map(|behind| behind.version))
    }
}

impl Listed {
    fn held(&self, before: Option<Member>, order: u64) -> Holding {
        Holding {
            member: Some(Member::new(before, self.version, order, self.len)),
            behind: None,
        }
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
            || self.marks.compacted != history.compacted
            || self.marks.ahead_until != history.ahead_until
            || self.marks.revision > told.max(history.revision)
    }

    /// Returns whether nothing would change that anybody is told or that a restart needs.
    pub(crate) fn is_silent(&self, history: &History) -> bool {
        self.holdings.is_empty() && !self.restarts && self.marks.revision == history.revision
    }
}

#[cfg(test)]
mod tests;
