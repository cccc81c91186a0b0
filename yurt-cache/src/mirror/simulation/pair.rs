//! Two mirrors of one kind, a wide and a narrow one that share the bytes of their objects, and objects that are
//! remembered by name beside them. Each follows the cloud at its own pace; they end and begin again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use fastrand::Rng;
use tokio::time::Instant;
use yurt_core::store::{Batch, Store};

use super::super::kind::{Kind, Known};
use super::super::loading::load;
use super::super::relist::{Finished, Item};
use super::super::remembered::Remembered;
use super::super::saved::{SavedScope, parse_object_key, scope_key};
use super::super::version::Version;
use super::super::{Mirror, Phase};
use super::client::Client;
use super::cloud::{Cloud, Event, content, object};
use super::disk::{Disk, Fate};
use super::node::remember;
use super::world::{NAMES, WINDOW, item, scope, type_meta};
use crate::api::{ListAt, Resource, Scope, Within, key, split_key};
use crate::codec::{EventType, LabelSelector, ObjectMeta, Status, with_resource_version};
use crate::retention::{Budget, Held};
use crate::store::layout::{LAYOUT, LAYOUT_VERSION, RECORDS};

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
        let disk = Disk::new();
        let mut batch = Batch::new();
        batch.put(LAYOUT, LAYOUT_VERSION);
        for (id, scope) in (1..).zip(scopes()) {
            batch.put(scope_key(id), SavedScope::new(&scope).encode());
        }
        disk.write(batch).unwrap();
        let mut cloud = Cloud::default();
        cloud.pass(10);
        let (kind, mirrors, last_id) = start(&disk);
        Self {
            rng: Rng::with_seed(seed),
            copy: cloud.clone(),
            cloud,
            narrow: Vec::new(),
            disk,
            kind,
            sides: mirrors.map(Side::of),
            written: HashMap::new(),
            local: 0,
            read: BTreeMap::new(),
            last_id,
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
            if *self.disk.fate.lock() == Fate::Dead {
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
            73..75 => *self.disk.fate.lock() = Fate::Dead,
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
        *self.disk.fate.lock() = Fate::Well;
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

    // === The mirrors ===

    fn follow(&mut self, at: usize) {
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

    fn list(&mut self, at: usize) {
        for _ in 0..3 {
            match self.list_once(at) {
                Some(Finished::WentBack { .. }) => {}
                _ => return,
            }
        }
        panic!("the list never ends");
    }

    fn list_once(&mut self, at: usize) -> Option<Finished> {
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
            if *self.disk.fate.lock() == Fate::Dead {
                return None;
            }
        }
        let finished = mirror.finish_list(revision, type_meta(), &seen);
        self.tell(format!("{at}: a list at {revision}: {finished:?}"));
        finished.ok()
    }

    fn follow_other(&mut self, at: usize) {
        let side = &self.sides[at];
        let can = side.mirror.is_synced() && !side.mirror.is_suspect();
        if can && self.since(at, side.mirror.followed()).is_some() {
            self.follow(at);
        }
    }

    fn prove(&mut self, at: usize) {
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
    fn cover(&mut self) {
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

    fn uncover(&mut self) {
        self.tell("uncovered");
        for side in &self.sides {
            if side.mirror.uncover(&|_| true).is_err() {
                return;
            }
        }
    }

    /// A caller reads an object by name at the cloud.
    fn remember(&mut self) {
        let name = self.name();
        self.read_by_name(name);
    }

    fn read_by_name(&mut self, name: &'static str) {
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

    fn forget(&mut self) {
        let name = self.name();
        let forgotten = self.kind.forget("a", name);
        self.read.remove(name);
        self.tell(format!("{name} makes room: {forgotten:?}"));
    }

    fn sweep(&mut self) {
        let mirrors = [0, 1].map(|at: usize| self.sides[at].mirror.clone());
        let swept = self.kind.forget_left(&mirrors);
        self.tell(format!("swept: {swept:?}"));
    }

    /// A mirror that nobody asks for ends, and somebody asks again.
    fn end(&mut self, at: usize) {
        let old = self.sides[at].mirror.clone();
        old.end(Status::expired_list());
        // What was deleted is known as long as a mirror of the place is there.
        let is_remembered = |name: &str| self.kind.version_by_name(&key("a", name)).is_some();
        self.read.retain(|name, _| is_remembered(name));
        let erased = old.erase();
        self.last_id += 1;
        let mut batch = Batch::new();
        batch.put(
            scope_key(self.last_id),
            SavedScope::new(&old.scope).encode(),
        );
        let begun = self.disk.write(batch);
        self.tell(format!("{at} ends: {erased:?}, and begins: {begun:?}"));
        self.sides[at] = Side::of(mirror(&self.disk, &self.kind, self.last_id, &old.scope));
        if erased.is_err() || begun.is_err() {
            *self.disk.fate.lock() = Fate::Dead;
        }
    }

    // === The process and its disk ===

    fn arm(&mut self) {
        let fate = Fate::Dies {
            after: self.rng.u32(0..4),
            is_written: self.rng.bool(),
        };
        *self.disk.fate.lock() = fate;
        self.tell(format!("the disk: {fate:?}"));
    }

    fn fill(&mut self) {
        let fate = match *self.disk.fate.lock() {
            Fate::Full => Fate::Well,
            _ => Fate::Full,
        };
        *self.disk.fate.lock() = fate;
        self.tell(format!("the disk: {fate:?}"));
    }

    fn restart(&mut self) {
        *self.disk.fate.lock() = Fate::Well;
        let (kind, mirrors, last_id) = start(&self.disk);
        self.kind = kind;
        self.last_id = last_id;
        for (side, mirror) in self.sides.iter_mut().zip(mirrors) {
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

    // === Who reads ===

    fn read(&mut self, at: usize) {
        let steps = self.rng.usize(1..4);
        let is_lost = self.rng.u32(0..8) == 0;
        let side = &mut self.sides[at];
        if !side.mirror.is_synced() {
            return;
        }
        if is_lost {
            side.client.disconnect();
        }
        side.client.watch(&side.mirror, steps);
        side.told = side.told.max(side.client.reached);
    }

    /// All that is held can be read, and is what was once written under its number.
    fn look(&mut self, at: usize) {
        for name in NAMES {
            let newest = self.kind.newest("a", name);
            newest.expect("what is held can be read");
        }
        let side = &mut self.sides[at];
        if !side.mirror.is_synced() {
            return;
        }
        let view = side.mirror.view(Within::Everything);
        let mut items = BTreeMap::new();
        for item in &view.snapshot.items {
            let name = split_key(&item.key).1.to_owned();
            let body = view
                .snapshot
                .read(item)
                .expect("a list reads all that it names");
            let (number, content) = (item.version.number(), content(&body));
            let meta = ObjectMeta::parse(&body).unwrap();
            assert_eq!(meta.resource_version, number, "{at}: {name}");
            let ought = match item.version.is_local() {
                true => self.written[&(name.clone(), number)].contains(&content),
                false => self.cloud.content_at(&name, number) == Some(content),
            };
            assert!(
                ought || side.mirror.is_suspect(),
                "{at}: {name} at {number} is {content}"
            );
            items.insert(name, content);
        }
        assert!(view.revision >= side.told, "{at}: {} was told", side.told);
        side.told = view.revision;
        let before = side
            .listed
            .entry(view.revision)
            .or_insert_with(|| items.clone());
        assert_eq!(*before, items, "{at}: two lists at {}", view.revision);
    }

    fn state(&self, at: usize) -> BTreeMap<String, u64> {
        let view = self.sides[at].mirror.view(Within::Everything);
        let items = view.snapshot.items.iter();
        let read = |item| content(&view.snapshot.read(item).unwrap());
        items
            .map(|item| (split_key(&item.key).1.to_owned(), read(item)))
            .collect()
    }

    /// Returns whether a mirror has heard everything, and is as the cloud.
    fn is_even(&self, at: usize) -> bool {
        let side = &self.sides[at];
        let coming = self.since(at, side.mirror.followed());
        side.mirror.is_synced()
            && !side.mirror.is_suspect()
            && coming.is_some_and(<[_]>::is_empty)
            && side.mirror.followed() == self.cloud.revision
            && self.state(at) == self.ought(at)
    }

    /// In the end both are as the cloud, whatever is asked by name too, and nothing is left when all has ended.
    fn rest(&mut self) {
        *self.disk.fate.lock() = Fate::Well;
        for at in 0..2 {
            self.sides[at].mirror.uncover(&|_| true).unwrap();
            let mut rounds = 0;
            while !self.is_even(at) {
                self.follow(at);
                self.uncover();
                rounds += 1;
                assert!(
                    rounds < 40,
                    "{at}: {:?} is not {:?}",
                    self.state(at),
                    self.ought(at)
                );
            }
        }
        for at in 0..2 {
            // What a list that was cut off has left goes.
            self.sides[at].mirror.begin_list(ListAt::Latest).unwrap();
            let side = &mut self.sides[at];
            for _ in 0..100 {
                side.client.watch(&side.mirror, 10);
            }
            assert_eq!(
                self.sides[at].client.known,
                Some(self.ought(at)),
                "client {at}"
            );
        }
        self.rest_by_name();
        let held = [self.kind.held(), self.kind.remembered.held()];
        self.restart();
        let counted = [self.kind.held(), self.kind.remembered.held()];
        assert_eq!(counted, held, "what a restart counts");
        // A bookmark is heard again.
        while !self.is_even(0) {
            self.follow(0);
        }
        self.rest_by_name();
        for at in 0..2 {
            self.sides[at].mirror.end(Status::expired_list());
            self.sides[at].mirror.erase().unwrap();
        }
        self.kind.release(&self.kind.keys_by_name()).unwrap();
        assert_eq!(self.kind.held(), Held::default());
        assert_eq!(self.kind.remembered.held(), Held::default());
        let mut left = Vec::new();
        let mut note = |key: &[u8], _| {
            left.push(String::from_utf8_lossy(key).into_owned());
            ControlFlow::Continue(())
        };
        self.disk.keys(RECORDS.as_bytes(), None, &mut note).unwrap();
        assert_eq!(left, Vec::<String>::new());
    }

    /// As a GET finds it: the wide mirror knows better what is not there.
    fn known(&self, name: &str) -> Known {
        let wide = &self.sides[0].mirror;
        let is_covering = wide.is_synced() && !wide.is_suspect();
        let covering = is_covering.then(|| wide.covering(&key("a", name)));
        self.kind.known("a", name, covering).unwrap()
    }

    /// What is shown while cut off is true, and no older than what was read by name.
    fn look_by_name(&self) {
        for name in NAMES {
            let Some(read) = self.read.get(name).copied() else {
                continue;
            };
            match self.known(name) {
                Known::There(number, body) if content(&body) < LOCAL => {
                    let is_true = self.cloud.content_at(name, number) == Some(content(&body));
                    assert!(
                        is_true && number >= read,
                        "{name} was read at {read}, and at {number} is {}",
                        content(&body)
                    );
                }
                Known::There(..) | Known::Unknown => {}
                Known::Absent => assert!(
                    self.cloud.deleted_at(name) > Some(read),
                    "{name} was read at {read} and is not there"
                ),
            }
        }
    }

    /// In the end all is known.
    fn rest_by_name(&self) {
        let mut known = BTreeMap::new();
        for name in NAMES {
            match self.known(name) {
                Known::There(_, body) => drop(known.insert(name.to_owned(), content(&body))),
                Known::Absent => {}
                Known::Unknown => panic!("{name} is unknown at rest"),
            }
        }
        assert_eq!(known, self.cloud.state(), "by name");
    }
}

pub(super) fn scopes() -> [Scope; 2] {
    let narrow = Scope {
        labels: LabelSelector::parse("even=true").unwrap(),
        ..scope()
    };
    [scope(), narrow]
}

fn mirror(disk: &Arc<Disk>, kind: &Arc<Kind>, id: u32, scope: &Scope) -> Arc<Mirror> {
    let now = Instant::now();
    let made = Mirror::new(id, scope.clone(), kind.clone(), disk.clone(), WINDOW, now);
    Arc::new(made)
}

/// Starts a process on what the disk has; what nothing leads to goes.
pub(super) fn start(disk: &Arc<Disk>) -> (Arc<Kind>, [Arc<Mirror>; 2], u32) {
    let store: Arc<dyn Store> = disk.clone();
    let budget = Budget::new(1_000, 1 << 20);
    let remembered = Arc::new(Remembered::new(budget));
    let make_kind =
        |resource: &Resource| Kind::new(resource.clone(), disk.clone(), budget, remembered.clone());
    let mut loaded = load(&store, WINDOW, &make_kind, Instant::now()).unwrap();
    let resource = scope().resource;
    let kind = loaded.kinds.entry(resource.clone());
    let kind = kind
        .or_insert_with(|| Arc::new(make_kind(&resource)))
        .clone();
    for stored in loaded.orphans {
        match parse_object_key(&stored).filter(|_| stored.starts_with(RECORDS.as_bytes())) {
            Some((_, key)) => kind.delete_orphan(&key).unwrap(),
            None => {
                let mut batch = Batch::new();
                batch.delete(stored);
                disk.write(batch).unwrap();
            }
        }
    }
    let mut last_id = loaded.last_id;
    let mut mirrors: Vec<Arc<Mirror>> = loaded.mirrors.into_iter().map(Arc::new).collect();
    let mut of = |scope: Scope| {
        let of_scope: Vec<_> = mirrors
            .extract_if(.., |mirror| mirror.scope.is_same(&scope))
            .collect();
        // One that was to end and could not be erased goes now.
        let (last, others) = of_scope.split_last()?;
        for other in others {
            other.end(Status::expired_list());
            other.erase().unwrap();
        }
        Some(last.clone())
    };
    let mirrors = scopes().map(|scope| {
        of(scope.clone()).unwrap_or_else(|| {
            last_id += 1;
            let mut batch = Batch::new();
            batch.put(scope_key(last_id), SavedScope::new(&scope).encode());
            disk.write(batch).unwrap();
            mirror(disk, &kind, last_id, &scope)
        })
    });
    (kind, mirrors, last_id)
}
