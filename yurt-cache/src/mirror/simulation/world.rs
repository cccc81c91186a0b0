//! The hub's side: a mirror that follows the cloud on a disk, its clients, and what happens to all of them.

mod clients;

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use fastrand::Rng;
use tokio::time::Instant;

use super::super::incoming::Incoming;
use super::super::relist::{Finished, Item};
use super::super::{Mirror, Phase};
use super::client::Client;
use super::cloud::{Cloud, NAMES, item, object, scope, type_meta};
use super::disk::{Disk, Fate};
use super::process::start;
use crate::api::{ListAt, Scope, Selection};
use crate::codec::{EventType, LabelSelector, with_resource_version};

/// What happens in one life.
const STEPS: usize = 150;

/// Clients of the hub.
const CLIENTS: usize = 4;

/// One life.
pub(super) struct World {
    rng: Rng,
    cloud: Cloud,
    copy: Cloud,
    disk: Arc<Disk>,
    mirror: Arc<Mirror>,
    clients: Vec<Client>,
    /// What was listed at a revision: it is the same whenever it is listed again.
    listed: BTreeMap<u64, BTreeMap<String, u64>>,
    /// The highest number that anybody was told.
    told: u64,
    local: u64,
    /// The follower has seen that the cloud's revisions went back, and asks for nothing but a list.
    has_gone_back: bool,
    story: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let disk = Disk::with(&[scope()]);
        let mut cloud = Cloud::default();
        cloud.pass(10);
        let [mirror] = start(&disk, [scope()]).mirrors;
        Self {
            rng: Rng::with_seed(seed),
            copy: cloud.clone(),
            cloud,
            disk,
            mirror,
            clients: (0..CLIENTS)
                .map(|at| Client {
                    goes_by_objects: at == 0,
                    wants: (at == 1).then(even),
                    ..Client::default()
                })
                .collect(),
            listed: BTreeMap::new(),
            told: 0,
            local: 0,
            has_gone_back: false,
            story: Vec::new(),
        }
    }

    /// Tells what happened.
    pub(super) fn story(&self) -> String {
        let mut text = String::new();
        for line in self.story.iter().rev().take(60).rev() {
            let _fits = writeln!(text, "  {line}");
        }
        text
    }

    pub(super) fn live(&mut self) {
        for _ in 0..STEPS {
            self.step();
            if self.disk.is_dead() {
                self.restart();
            }
            self.look();
        }
        self.rest();
    }

    fn step(&mut self) {
        match self.rng.u32(0..100) {
            0..22 => self.write(),
            22..26 => self.pass(),
            26..44 => self.follow(),
            44..48 => self.list(),
            48..52 => self.prove(),
            52..58 => self.cover(),
            58..61 => self.uncover(),
            61..64 => self.arm(),
            64..66 => self.crash(),
            66..68 => self.fill(),
            68..69 => self.restore(),
            69..70 => self.copy = self.cloud.clone(),
            70..72 => self.compact(),
            _ => self.read(),
        }
    }

    fn tell(&mut self, line: impl Into<String>) {
        self.story.push(line.into());
    }

    // === The cloud ===

    fn write(&mut self) {
        let name = *self.rng.choice(&NAMES).unwrap();
        if self.rng.u32(0..3) == 0 {
            self.cloud.delete(name);
            self.tell(format!("the cloud deletes {name}: {}", self.cloud.revision));
        } else {
            self.cloud.write(name);
            self.tell(format!(
                "the cloud writes {name}: {:?}",
                self.cloud.objects[name]
            ));
        }
    }

    fn pass(&mut self) {
        let count = self.rng.u64(1..5);
        self.cloud.pass(count);
        self.tell(format!("elsewhere {count} writes: {}", self.cloud.revision));
    }

    fn compact(&mut self) {
        self.cloud.compact();
        self.tell("the cloud forgets its events");
    }

    fn restore(&mut self) {
        let copy = self.copy.clone();
        self.cloud.restore(&copy);
        self.tell(format!("the cloud is put back to {}", self.cloud.revision));
        self.mirror.fall_behind(Instant::now());
        self.has_gone_back = true;
        self.list();
    }

    // === The mirror ===

    /// Follows the watch for one chunk, from where it stood; lists when it has to.
    fn follow(&mut self) {
        if !self.mirror.is_synced() || self.has_gone_back {
            return self.list();
        }
        let Some(events) = self.cloud.since(self.mirror.followed()) else {
            return self.list();
        };
        let count = self.rng.usize(0..=events.len());
        let mut chunk: Vec<Incoming> = events[..count]
            .iter()
            .map(|event| {
                self.mirror
                    .read_event(event.event_type, &event.object)
                    .unwrap()
            })
            .collect();
        if count == events.len() && self.rng.bool() {
            let bookmark = object("", self.cloud.revision, 0);
            chunk.push(
                self.mirror
                    .read_event(EventType::Bookmark, &bookmark)
                    .unwrap(),
            );
        }
        let numbers: Vec<u64> = chunk.iter().map(|event| event.revision).collect();
        self.mirror.set_phase(Phase::Live);
        let taken = self.mirror.take(chunk);
        self.tell(format!("a chunk of {numbers:?}: {taken:?}"));
    }

    fn list(&mut self) {
        for _ in 0..3 {
            match self.list_once() {
                Some(Finished::WentBack { .. }) => {}
                _ => return,
            }
        }
        panic!("the list never ends");
    }

    fn list_once(&mut self) -> Option<Finished> {
        let (revision, objects) = (self.cloud.revision, self.cloud.objects.clone());
        let mut seen = HashSet::new();
        if self.has_gone_back && self.mirror.went_back().is_err() {
            return None;
        }
        if self.mirror.begin_list(ListAt::Latest).is_err() {
            return None;
        }
        let all: Vec<_> = objects.into_iter().collect();
        for page in all.chunks(2) {
            if self.rng.u32(0..12) == 0 {
                self.tell("a list that is cut off");
                return None;
            }
            let items: Vec<Item> = page.iter().map(|(name, at)| item(name, *at)).collect();
            seen.extend(items.iter().map(|item| item.key.clone()));
            if self.mirror.take_listed(items).is_err() {
                self.tell("a list that the disk does not take");
                return None;
            }
            if self.rng.bool() {
                // Clients look while it is taken.
                self.look();
            }
        }
        let finished = self.mirror.finish_list(revision, type_meta(), &seen);
        self.tell(format!("a list at {revision}: {finished:?}"));
        if matches!(finished, Ok(Finished::InPlace)) {
            self.has_gone_back = false;
        }
        finished.ok()
    }

    /// A barrier: the mirror is what the cloud is.
    fn prove(&mut self) {
        let is_even = self
            .cloud
            .since(self.mirror.followed())
            .is_some_and(<[_]>::is_empty);
        if is_even
            && !self.has_gone_back
            && self.mirror.is_live()
            && self.mirror.followed() <= self.cloud.revision
        {
            let proven = self.mirror.claim(self.cloud.revision);
            self.tell(format!("proven up to {}: {proven:?}", self.cloud.revision));
        }
    }

    fn cover(&mut self) {
        let name = *self.rng.choice(&NAMES).unwrap();
        if !self.mirror.is_synced() {
            return;
        }
        self.local += 1;
        let number = self.mirror.revision() + 1;
        let local = object(name, 0, 1_000_000 + self.local);
        let local = with_resource_version(&local, number).unwrap();
        let covered = self.mirror.cover(&local);
        self.tell(format!("{name} is covered at {number}: {covered:?}"));
    }

    fn uncover(&mut self) {
        let uncovered = self.mirror.uncover(&|_| true);
        self.tell(format!("uncovered: {uncovered:?}"));
    }

    // === The process and its disk ===

    fn arm(&mut self) {
        let fate = self.disk.arm(&mut self.rng, 3);
        self.tell(format!("the disk: {fate:?}"));
    }

    fn fill(&mut self) {
        let fate = self.disk.fill();
        self.tell(format!("the disk: {fate:?}"));
    }

    fn crash(&mut self) {
        self.disk.fare(Fate::Dead);
    }

    fn restart(&mut self) {
        self.disk.fare(Fate::Well);
        let [mirror] = start(&self.disk, [scope()]).mirrors;
        self.mirror = mirror;
        self.clients.iter_mut().for_each(Client::disconnect);
        self.tell(format!("a restart at {}", self.mirror.revision()));
        assert!(
            self.mirror.revision() >= self.told,
            "{} was told and the mirror stands at {} after a restart",
            self.told,
            self.mirror.revision()
        );
    }
}

/// The narrower scope of one of the clients.
fn even() -> Selection {
    Selection::of(&Scope {
        labels: LabelSelector::parse("even=true").unwrap(),
        ..scope()
    })
}
