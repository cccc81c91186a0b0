//! What a mirror tells, as one pure thing: events in, what to write and what to tell out. It knows no lock, no
//! clock, no disk and no network, so a seed can play its whole life.
//!
//! Two numbers belong to each step. The **version** is the cloud's revision of the object (or the node's own
//! number for a local one): which bytes. The **order** is the place of the step in the history that this hub has
//! told: it ascends with every step, also inside one chunk, and is the cloud's revision unless that was told
//! before. Clients know orders: lists and bookmarks carry them, watches resume at them. An order is on the disk
//! before anybody hears of it, so that no restart ever gives it again.

mod holding;
mod plan;

use std::collections::{BTreeMap, HashSet, VecDeque};

pub(crate) use self::holding::{Behind, Holding, Last, Listed, Member, Tombstone};
use self::plan::Plan;
pub(crate) use self::plan::{Deletion, Transition};
use super::incoming::Incoming;
use super::version::{Era, Version};
use super::window::{Limit, Step, Window};
use crate::api::{ObjectKey, Within};
use crate::codec::EventType;

/// How far a history has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// What clients are told: the order of the last step, or a revision that was proven since.
    pub(crate) revision: u64,
    /// How far the upstream list and watch have come: where the watch is resumed.
    pub(crate) upstream: u64,
    /// Deletions from this order on are remembered; whoever is older has to list again.
    pub(crate) compacted: u64,
    /// The last order that was not the `resourceVersion` of its object. A client that has seen it may still come with
    /// the lower number of an object that it was told of.
    pub(crate) ahead_until: u64,
}

/// A mirror's objects, its place in the cloud's history and its own.
#[derive(Debug)]
pub(crate) struct History {
    marks: Marks,
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
            marks: Marks::default(),
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
        let mut history = Self::new(window, era);
        history.marks = marks;
        for (key, holding) in holdings {
            history.hold(key, holding);
        }
        tombstones.sort_by_key(|stone| stone.order);
        tombstones.retain(|stone| stone.order > marks.compacted);
        let members = history.members.values();
        let told = members.map(|member| member.order).max();
        let told = told.max(tombstones.last().map(|stone| stone.order));
        let era_held = history.cloud_versions().max().map(Version::era);
        let held = history.cloud_versions().map(Version::number).max();
        let deleted = tombstones.iter().map(|stone| stone.revision).max();
        history.marks.revision = marks.revision.max(told.unwrap_or(0));
        history.marks.upstream = marks
            .upstream
            .max(held.unwrap_or(0))
            .max(deleted.unwrap_or(0));
        // Earlier hubs did not write the era beside the objects.
        history.era = era.max(era_held.unwrap_or_default());
        history.tombstones = tombstones.into();
        history.window.restart(history.marks.revision);
        history
    }

    /// Forgets what was before: of some deletion nobody knows any more.
    pub(crate) fn forget(&mut self) {
        self.marks.compacted = self.marks.revision;
        self.tombstones.clear();
    }

    // === What it knows ===

    /// Returns what clients are told.
    pub(crate) fn revision(&self) -> u64 {
        self.marks.revision
    }

    /// Returns where the upstream watch is to be resumed.
    pub(crate) fn upstream(&self) -> u64 {
        self.marks.upstream
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
        let is_vague = revision < self.marks.ahead_until;
        let later = self
            .tombstones
            .iter()
            .filter(move |stone| stone.order > revision);
        later.filter(move |stone| is_vague || stone.added <= revision)
    }

    /// Returns whether a client that was told `revision` can go on from there.
    pub(crate) fn reaches_back_to(&self, revision: u64) -> bool {
        (self.marks.compacted..=self.marks.revision).contains(&revision)
    }

    /// Returns the recent steps, to change how many of them are kept.
    pub(super) fn window_mut(&mut self) -> &mut Window {
        &mut self.window
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
            plan.marks.upstream = plan.marks.upstream.max(event.revision);
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
        plan.marks.revision = plan.marks.revision.max(revision);
        plan.finish()
    }

    /// Decides what the first complete list means: nobody has been told anything yet.
    pub(crate) fn first_list(
        &self,
        (era, revision): (Era, u64),
        listed: Vec<Listed>,
    ) -> Transition {
        let mut plan = Plan::new(self);
        plan.era = era;
        for one in listed {
            let order = one.version.number();
            plan.holdings.insert(one.key.clone(), one.held(None, order));
        }
        plan.restart(self.marks.revision.max(revision), revision);
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
        let mut free = (self.marks.revision + 1..).filter(|order| !taken.contains(order));
        for (key, order) in gone.into_iter().zip(&mut free) {
            plan.vanish(key, order);
        }
        let is_news = plan.marks.revision > self.marks.revision;
        plan.marks.upstream = revision;
        plan.marks.revision = plan.marks.revision.max(revision);
        plan.era = era;
        if era != self.era {
            // As when its etcd was restored: what clients know leads nowhere.
            plan.restart(plan.marks.revision.max(self.marks.revision + 1), revision);
        } else if is_news {
            plan.steps.push(Step::Jump {
                to: plan.marks.revision,
            });
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
        self.marks = transition.marks;
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

#[cfg(test)]
mod tests;
