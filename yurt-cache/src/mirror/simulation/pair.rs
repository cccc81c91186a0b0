//! Two mirrors of one kind, a wide and a narrow one that share the bytes of their objects, and objects that are
//! remembered by name beside them. Each follows the cloud at its own pace; they end and begin again.

mod mirrors;
mod readers;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use fastrand::Rng;
use tokio::time::Instant;

use super::super::Mirror;
use super::super::kind::Kind;
use super::super::version::Version;
use super::client::Client;
use super::cloud::{Cloud, Event, NAMES, object, scopes};
use super::disk::{Disk, Fate};
use super::process::start;
use crate::api::key;
use crate::codec::EventType;

/// What happens in one life.
const STEPS: usize = 200;

/// Contents from here on are local.
const LOCAL: u64 = 1_000_000;

/// A mirror, and who reads it.
struct Side {
    mirror: Arc<Mirror>,
    client: Client,
    told: u64,
    listed: BTreeMap<u64, BTreeMap<String, u64>>,
}

/// One life of both.
pub(super) struct Pair {
    rng: Rng,
    cloud: Cloud,
    copy: Cloud,
    /// What the narrow scope's watch says.
    narrow: Vec<Event>,
    disk: Arc<Disk>,
    kind: Arc<Kind>,
    /// The wide one first.
    sides: [Side; 2],
    /// Every local content that an object had at a number.
    written: HashMap<(String, u64), HashSet<u64>>,
    local: u64,
    /// What was last read by name and is remembered, since the cloud was put back last.
    read: BTreeMap<&'static str, u64>,
    last_id: u32,
    story: Vec<String>,
}

impl Side {
    fn of(mirror: Arc<Mirror>) -> Self {
        Self {
            mirror,
            client: Client::default(),
            told: 0,
            listed: BTreeMap::new(),
        }
    }
}

impl Pair {
    pub(super) fn new(seed: u64) -> Self {
        let disk = Disk::with(&scopes());
        let mut cloud = Cloud::default();
        cloud.pass(10);
        let process = start(&disk, scopes());
        Self {
            rng: Rng::with_seed(seed),
            copy: cloud.clone(),
            cloud,
            narrow: Vec::new(),
            disk,
            kind: process.kind,
            sides: process.mirrors.map(Side::of),
            written: HashMap::new(),
            local: 0,
            read: BTreeMap::new(),
            last_id: process.last_id,
            story: Vec::new(),
        }
    }

    pub(super) fn story(&self) -> String {
        let from = self.story.len().saturating_sub(60);
        self.story[from..].join("\n  ")
    }

    pub(super) fn live(&mut self) {
        for _ in 0..STEPS {
            let at = self.rng.usize(0..2);
            self.step(at);
            if self.disk.is_dead() {
                self.restart();
            }
            self.look(0);
            self.look(1);
            self.look_by_name();
        }
        self.rest();
    }

    fn step(&mut self, at: usize) {
        match self.rng.u32(0..100) {
            0..24 => self.write(),
            24..27 => self.cloud.pass(2),
            27..45 => self.follow(at),
            45..50 => self.list(at),
            50..53 => self.prove(at),
            53..59 => self.cover(),
            59..62 => self.uncover(),
            62..70 => self.remember(),
            70..73 => self.arm(),
            73..75 => drop(self.disk.fare(Fate::Dead)),
            75..77 => self.fill(),
            77..78 => self.restore(),
            78..79 => self.copy = self.cloud.clone(),
            79..81 => self.compact(),
            81..83 => self.end(at),
            83..85 => self.forget(),
            85..87 => self.sweep(),
            _ => self.read(at),
        }
    }

    fn tell(&mut self, line: impl Into<String>) {
        self.story.push(line.into());
    }

    fn name(&mut self) -> &'static str {
        self.rng.choice(NAMES).unwrap()
    }

    // === The cloud ===

    fn write(&mut self) {
        let name = self.name();
        let before = self.cloud.objects.get(name).copied();
        if self.rng.u32(0..3) == 0 {
            self.cloud.delete(name);
        } else {
            self.cloud.write(name);
        }
        let after = self.cloud.objects.get(name).copied();
        let even = |object: Option<(u64, u64)>| object.filter(|(_, content)| content % 2 == 0);
        let event = match (even(before), even(after)) {
            (None, None) => None,
            (None, Some((_, content))) => Some((EventType::Added, content)),
            (Some(_), Some((_, content))) => Some((EventType::Modified, content)),
            (Some((_, content)), None) => Some((EventType::Deleted, content)),
        };
        let revision = self.cloud.revision;
        self.narrow.extend(event.map(|(event_type, content)| Event {
            revision,
            event_type,
            object: object(name, revision, content),
        }));
        self.tell(format!("the cloud writes {name}: {after:?} at {revision}"));
    }

    fn compact(&mut self) {
        self.cloud.compact();
        self.narrow.clear();
    }

    /// Somebody notices it, before the cloud has come as far again: then nobody could tell the revisions apart.
    fn restore(&mut self) {
        let to = Version::cloud(self.kind.era(), self.copy.revision);
        let later_by_name =
            |name: &&'static str| self.kind.version_by_name(&key("a", name)) > Some(to);
        let later_by_name: Vec<&'static str> = NAMES.into_iter().filter(later_by_name).collect();
        let copy = self.copy.clone();
        self.cloud.restore(&copy);
        self.narrow.clear();
        self.read.clear();
        self.disk.fare(Fate::Well);
        self.tell(format!("the cloud is put back to {}", to.number()));
        let at = self.rng.usize(0..2);
        let mirror = self.sides[at].mirror.clone();
        for side in &self.sides {
            side.mirror.fall_behind(Instant::now());
        }
        match self.rng.u32(0..3) {
            0 => later_by_name
                .into_iter()
                .for_each(|name| self.read_by_name(name)),
            1 if mirror.followed() > to.number() => mirror.went_back().unwrap(),
            _ => {}
        }
        while self.kind.era() == to.era() && self.kind.reached() > to {
            self.list(at);
        }
    }

    /// Returns the events of a scope after a revision, `None` if they are no longer known.
    fn since(&self, at: usize, revision: u64) -> Option<&[Event]> {
        if at == 0 {
            return self.cloud.since(revision);
        }
        let from = self.narrow.partition_point(|one| one.revision <= revision);
        (revision >= self.cloud.compacted).then(|| &self.narrow[from..])
    }

    fn ought(&self, at: usize) -> BTreeMap<String, u64> {
        let mut state = self.cloud.state();
        state.retain(|_, content| at == 0 || *content % 2 == 0);
        state
    }
}
