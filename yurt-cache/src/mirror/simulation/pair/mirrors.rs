//! What happens to the two mirrors, to what is known by name beside them, and to their process.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::super::relist::{Finished, Item};
use super::super::super::{Mirror, Phase};
use super::super::cloud::{Event, item, object, scopes, type_meta};
use super::super::disk::Fate;
use super::super::node::remember;
use super::super::process::{begin, start};
use super::{LOCAL, Pair, Side};
use crate::api::{ListAt, key};
use crate::codec::{EventType, Status, with_resource_version};
impl Pair {
    pub(super) fn follow(&mut self, at: usize) {
        let mirror = self.sides[at].mirror.clone();
        if !mirror.is_synced() || mirror.is_suspect() {
            return self.list(at);
        }
        let Some(events) = self.since(at, mirror.followed()).map(<[Event]>::to_vec) else {
            return self.list(at);
        };
        let count = self.rng.usize(0..=events.len());
        let read = |event: &Event| mirror.read_event(event.event_type, &event.object).unwrap();
        let mut chunk: Vec<_> = events[..count].iter().map(read).collect();
        if count == events.len() && self.rng.bool() {
            let bookmark = object("", self.cloud.revision, 0);
            chunk.push(mirror.read_event(EventType::Bookmark, &bookmark).unwrap());
        }
        let numbers: Vec<u64> = chunk.iter().map(|event| event.revision).collect();
        mirror.set_phase(Phase::Live);
        let taken = mirror.take(chunk);
        self.tell(format!("{at} takes {numbers:?}: {taken:?}"));
    }

    pub(super) fn list(&mut self, at: usize) {
        for _ in 0..3 {
            match self.list_once(at) {
                Some(Finished::WentBack { .. }) => {}
                _ => return,
            }
        }
        panic!("the list never ends");
    }

    pub(super) fn list_once(&mut self, at: usize) -> Option<Finished> {
        let mirror = self.sides[at].mirror.clone();
        let revision = self.cloud.revision;
        let ought = self.ought(at);
        let objects = self.cloud.objects.iter();
        let objects: Vec<_> = objects
            .filter(|(name, _)| ought.contains_key(*name))
            .collect();
        let items = objects.iter().map(|(name, one)| item(name, **one));
        let items: Vec<Item> = items.collect();
        let seen: HashSet<_> = items.iter().map(|item| item.key.clone()).collect();
        mirror.begin_list(ListAt::Latest).ok()?;
        let mut pages = items.into_iter().peekable();
        while pages.peek().is_some() {
            if self.rng.u32(0..12) == 0 {
                self.tell(format!("{at}: a list that is cut off"));
                return None;
            }
            let taken = mirror.take_listed(pages.by_ref().take(2).collect());
            taken.ok()?;
            match self.rng.u32(0..6) {
                // The other one goes on meanwhile.
                0 => self.follow_other(1 - at),
                1 => self.cover(),
                2 => self.remember(),
                _ => {}
            }
            if self.disk.is_dead() {
                return None;
            }
        }
        let finished = mirror.finish_list(revision, type_meta(), &seen);
        self.tell(format!("{at}: a list at {revision}: {finished:?}"));
        finished.ok()
    }

    pub(super) fn follow_other(&mut self, at: usize) {
        let side = &self.sides[at];
        let can = side.mirror.is_synced() && !side.mirror.is_suspect();
        if can && self.since(at, side.mirror.followed()).is_some() {
            self.follow(at);
        }
    }

    pub(super) fn prove(&mut self, at: usize) {
        let side = &self.sides[at];
        let events = self.since(at, side.mirror.followed());
        let is_even = events.is_some_and(<[_]>::is_empty) && !side.mirror.is_suspect();
        if is_even && side.mirror.is_live() {
            let proven = side.mirror.claim(self.cloud.revision);
            self.tell(format!(
                "{at} is proven at {}: {proven:?}",
                self.cloud.revision
            ));
        }
    }

    /// As the registry does it: in front of the newest, in each that holds it.
    pub(super) fn cover(&mut self) {
        let name = self.name();
        let key = key("a", name);
        let mirrors = self.sides.iter().map(|side| &side.mirror);
        let holding =
            |mirror: &&Arc<Mirror>| mirror.is_synced() && mirror.cloud_version(&key).is_some();
        let mirrors: Vec<Arc<Mirror>> = mirrors.filter(holding).cloned().collect();
        let Some(told) = mirrors.iter().map(|mirror| mirror.revision()).max() else {
            return;
        };
        let newest = self.kind.newest("a", name);
        assert!(newest.expect("it can be read").is_some(), "{name} is held");
        self.local += 1;
        let (number, content) = (told + 1, LOCAL + self.local);
        let contents = self.written.entry((name.to_owned(), number));
        contents.or_default().insert(content);
        let local = with_resource_version(&object(name, 0, content), number).unwrap();
        self.tell(format!("{name} is covered at {number} with {content}"));
        for mirror in mirrors {
            if mirror.cover(&local).is_err() {
                return;
            }
        }
    }

    pub(super) fn uncover(&mut self) {
        self.tell("uncovered");
        for side in &self.sides {
            if side.mirror.uncover(&|_| true).is_err() {
                return;
            }
        }
    }

    /// A caller reads an object by name at the cloud.
    pub(super) fn remember(&mut self) {
        let name = self.name();
        self.read_by_name(name);
    }

    pub(super) fn read_by_name(&mut self, name: &'static str) {
        let Some((revision, content)) = self.cloud.objects.get(name).copied() else {
            let forgotten = self.kind.forget("a", name);
            self.read.remove(name);
            return self.tell(format!("{name} is not there: {forgotten:?}"));
        };
        let body = object(name, revision, content);
        let remembered = remember(&self.kind, name, revision, &body);
        if remembered.is_ok() && self.kind.version_by_name(&key("a", name)).is_some() {
            self.read.insert(name, revision);
        }
        self.tell(format!(
            "{name} is remembered at {revision}: {remembered:?}"
        ));
    }

    pub(super) fn forget(&mut self) {
        let name = self.name();
        let forgotten = self.kind.forget("a", name);
        self.read.remove(name);
        self.tell(format!("{name} makes room: {forgotten:?}"));
    }

    pub(super) fn sweep(&mut self) {
        let mirrors = [0, 1].map(|at: usize| self.sides[at].mirror.clone());
        let swept = self.kind.forget_left(&mirrors);
        self.tell(format!("swept: {swept:?}"));
    }

    /// A mirror that nobody asks for ends, and somebody asks again.
    pub(super) fn end(&mut self, at: usize) {
        let old = self.sides[at].mirror.clone();
        old.end(Status::expired_list());
        // What was deleted is known as long as a mirror of the place is there.
        let is_remembered = |name: &str| self.kind.version_by_name(&key("a", name)).is_some();
        self.read.retain(|name, _| is_remembered(name));
        let erased = old.erase();
        self.last_id += 1;
        let begun = self.disk.note(self.last_id, &old.scope);
        self.tell(format!("{at} ends: {erased:?}, and begins: {begun:?}"));
        self.sides[at] = Side::of(begin(&self.disk, &self.kind, self.last_id, &old.scope));
        if erased.is_err() || begun.is_err() {
            self.disk.fare(Fate::Dead);
        }
    }

    // === The process and its disk ===

    pub(super) fn arm(&mut self) {
        let fate = self.disk.arm(&mut self.rng, 4);
        self.tell(format!("the disk: {fate:?}"));
    }

    pub(super) fn fill(&mut self) {
        let fate = self.disk.fill();
        self.tell(format!("the disk: {fate:?}"));
    }

    pub(super) fn restart(&mut self) {
        self.disk.fare(Fate::Well);
        let process = start(&self.disk, scopes());
        self.kind = process.kind;
        self.last_id = process.last_id;
        for (side, mirror) in self.sides.iter_mut().zip(process.mirrors) {
            if mirror.id != side.mirror.id {
                *side = Side::of(mirror);
            } else {
                assert!(mirror.revision() >= side.told, "{} was told", side.told);
                side.mirror = mirror;
                side.client.disconnect();
            }
        }
        self.tell("a restart");
    }
}
