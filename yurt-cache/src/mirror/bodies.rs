//! The bytes of one resource's objects: each version once in the store, whichever scopes hold it, with a count of
//! who does in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard, RwLock};
use smallvec::SmallVec;
use yurt_core::store::{Batch, ErrorKind, Result, Store};

use super::pins::{Pinned, Pins};
use super::record::Record;
use super::saved::record_key;
use super::version::Version;
use crate::api::{ObjectKey, Resource, Within};
use crate::retention::Held;

/// One version of an object that somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) version: Version,
    pub(super) len: u32,
    /// How many scopes hold it, and readers by name.
    holders: u32,
}

/// The versions of one object.
pub(super) type Versions = SmallVec<[Counted; 1]>;

/// The bytes of one resource's objects.
#[derive(Debug)]
pub(super) struct Bodies {
    resource: Resource,
    store: Arc<dyn Store>,
    index: RwLock<BTreeMap<ObjectKey, Versions>>,
    /// Held over each read-modify-write of a record. Whoever holds it may wait for the disk, so nobody who
    /// answers a request takes it. Taken before `index` and `pins`.
    writing: Mutex<()>,
    pins: Arc<Mutex<Pins>>,
    pinned: Arc<Pinned>,
    held: Mutex<Held>,
    /// Objects whose record was found damaged and has not been written anew.
    damaged: Mutex<HashSet<ObjectKey>>,
}

/// A change of some bodies that becomes one batch of the store.
pub(super) struct Writer<'a> {
    bodies: &'a Bodies,
    _writing: MutexGuard<'a, ()>,
    touched: HashMap<ObjectKey, Touched>,
    pub(super) batch: Batch,
}

struct Touched {
    before: Versions,
    now: Versions,
    /// The record as it was, once it is looked at: most changes of who holds a version need none of its bytes.
    stored: Option<Record>,
    fresh: Vec<(Version, Bytes)>,
}

impl Bodies {
    pub(super) fn new(resource: Resource, store: Arc<dyn Store>, pinned: Arc<Pinned>) -> Self {
        Self {
            resource,
            store,
            index: RwLock::default(),
            writing: Mutex::default(),
            pins: pinned.of_resource(),
            pinned,
            held: Mutex::default(),
            damaged: Mutex::default(),
        }
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Returns who counts the answers under way.
    pub(super) fn pins(&self) -> &Arc<Mutex<Pins>> {
        &self.pins
    }

    /// Returns how much there is.
    pub(super) fn held(&self) -> Held {
        *self.held.lock()
    }

    /// Returns the bytes of a version, `None` if it is gone. Blocks on the store.
    pub(super) fn read(&self, key: &ObjectKey, version: Version) -> Result<Option<Bytes>> {
        let stored = self.store.get(&record_key(&self.resource, key));
        let stored = stored.inspect_err(|error| self.note_damage(key, error))?;
        let record = stored.and_then(Record::decode);
        if let Some(body) = record.as_ref().and_then(|record| record.at(version)) {
            return Ok(Some(body.clone()));
        }
        if let Some(body) = self.pins.lock().get(key, version) {
            return Ok(Some(body));
        }
        if self.versions(key).iter().any(|one| one.version == version) {
            // Somebody holds it, and it is not there.
            self.damaged.lock().insert(key.clone());
        }
        Ok(None)
    }

    /// Returns the objects whose record was found damaged and has not been written anew.
    pub(super) fn damaged(&self) -> Vec<ObjectKey> {
        self.damaged.lock().iter().cloned().collect()
    }

    /// Returns whether an object's record was found damaged and has not been written anew.
    pub(super) fn is_damaged(&self, key: &str) -> bool {
        self.damaged.lock().contains(key)
    }

    fn note_damage(&self, key: &ObjectKey, error: &yurt_core::store::Error) {
        if error.kind() == ErrorKind::Damaged && self.damaged.lock().insert(key.clone()) {
            tracing::warn!(resource = %self.resource, %key, %error, "a stored object is damaged");
        }
    }

    /// Returns the versions of an object that somebody holds.
    pub(super) fn versions(&self, key: &str) -> Versions {
        self.index.read().get(key).cloned().unwrap_or_default()
    }

    /// Returns whether one scope, or reader by name, holds a version.
    pub(super) fn is_held_once(&self, key: &str, version: Version) -> bool {
        let versions = self.versions(key);
        let mut held = versions.iter().filter(|one| one.version == version);
        held.next().is_some_and(|one| one.holders == 1)
    }

    /// Returns the key of an object as it is in memory already, so that it is there once.
    pub(super) fn shared(&self, key: ObjectKey) -> ObjectKey {
        let index = self.index.read();
        let known = index.get_key_value(&key).map(|(known, _)| known.clone());
        known.unwrap_or(key)
    }

    /// Returns the first key, which tells whether objects have namespaces.
    pub(super) fn first_key(&self) -> Option<ObjectKey> {
        self.index.read().keys().next().cloned()
    }

    /// Returns the keys within, whoever holds them.
    pub(super) fn keys(&self, within: Within<'_>) -> Vec<ObjectKey> {
        let (from, to) = within.bounds();
        let index = self.index.read();
        let range = index.range::<str, _>((
            from.as_ref().map(String::as_str),
            to.as_ref().map(String::as_str),
        ));
        range.map(|(key, _)| key.clone()).collect()
    }

    /// Returns the objects of which somebody holds a local version.
    pub(super) fn with_local_versions(&self) -> Vec<ObjectKey> {
        let index = self.index.read();
        let is_local = |versions: &Versions| versions.iter().any(|one| one.version.is_local());
        let local = index.iter().filter(|(_, versions)| is_local(versions));
        local.map(|(key, _)| key.clone()).collect()
    }

    /// Counts a holder that the store remembers. At the start only.
    pub(super) fn count(&self, key: &ObjectKey, version: Version, len: u32) {
        let mut index = self.index.write();
        let mut versions = index.get(key).cloned().unwrap_or_default();
        add(&mut versions, version, len);
        self.place(&mut index, key.clone(), versions);
    }

    /// Deletes what the store has of an object that nobody holds. Blocks on the store.
    pub(super) fn delete_orphan(&self, key: &str) -> Result<()> {
        let mut writer = self.writer();
        if self.versions(key).is_empty() {
            writer.batch.delete(record_key(&self.resource, key));
        }
        writer.write(|| {})
    }

    /// Begins a change; others wait.
    pub(super) fn writer(&self) -> Writer<'_> {
        Writer {
            bodies: self,
            _writing: self.writing.lock(),
            touched: HashMap::new(),
            batch: Batch::new(),
        }
    }

    fn place(&self, index: &mut BTreeMap<ObjectKey, Versions>, key: ObjectKey, versions: Versions) {
        let now = held_of(&versions);
        let before = if versions.is_empty() {
            index.remove(&key)
        } else {
            index.insert(key, versions)
        };
        let before = held_of(&before.unwrap_or_default());
        let mut held = self.held.lock();
        *held = held.plus(now).minus(before);
    }
}

impl Writer<'_> {
    /// Returns the bytes of a version as they are before the change.
    pub(super) fn before(&mut self, key: &ObjectKey, version: Version) -> Option<Bytes> {
        let bodies = self.bodies;
        self.touch(key).stored(bodies, key).at(version).cloned()
    }

    /// Counts one holder more. `body` is written if nobody has held the version yet.
    pub(super) fn retain(
        &mut self,
        key: &ObjectKey,
        version: Version,
        len: u32,
        body: Option<&Bytes>,
    ) {
        let bodies = self.bodies;
        let touched = self.touch(key);
        let has = |versions: &Versions| versions.iter().any(|one| one.version == version);
        if let Some(body) = body.filter(|_| !has(&touched.now)) {
            let is_there =
                has(&touched.before) && touched.stored(bodies, key).at(version).is_some();
            if !is_there {
                touched.fresh.push((version, body.clone()));
            }
        }
        add(&mut touched.now, version, len);
    }

    /// Writes the bytes of a version anew, whoever holds it.
    pub(super) fn overwrite(&mut self, key: &ObjectKey, version: Version, body: &Bytes) {
        let fresh = &mut self.touch(key).fresh;
        fresh.retain(|(one, _)| *one != version);
        fresh.push((version, body.clone()));
    }

    /// Counts one holder less.
    pub(super) fn release(&mut self, key: &ObjectKey, version: Version) {
        let now = &mut self.touch(key).now;
        if let Some(at) = now.iter().position(|one| one.version == version) {
            now[at].holders -= 1;
            if now[at].holders == 0 {
                now.remove(at);
            }
        }
    }

    /// Writes the change as one batch, then lets `publish` show it. Readers find every version that they may
    /// know of, before, meanwhile and after.
    ///
    /// # Errors
    /// As [`Store::write`]; then nothing has changed.
    pub(super) fn write(mut self, publish: impl FnOnce()) -> Result<()> {
        let mut replaced = Vec::new();
        for (key, touched) in &mut self.touched {
            let stored_key = || record_key(&self.bodies.resource, key);
            let is_gone = touched.now.is_empty() && !touched.before.is_empty();
            if touched.fresh.is_empty() && !is_gone {
                continue;
            }
            touched.stored(self.bodies, key);
            match touched.now.is_empty() {
                true if is_gone => drop(self.batch.delete(stored_key())),
                true => continue,
                false => drop(self.batch.put(stored_key(), touched.record().encode())),
            }
            replaced.extend(touched.replaced().map(|(version, body)| {
                self.bodies.pins.lock().hold(key.clone(), version, body);
                (key.clone(), version)
            }));
        }
        let written = if self.batch.is_empty() {
            Ok(())
        } else {
            self.bodies.store.write(std::mem::take(&mut self.batch))
        };
        if written.is_ok() {
            publish();
            let mut index = self.bodies.index.write();
            for (key, touched) in self.touched.drain() {
                if touched.now.is_empty() || !touched.fresh.is_empty() {
                    self.bodies.damaged.lock().remove(&key);
                }
                self.bodies.place(&mut index, key, touched.now);
            }
        }
        self.bodies.pins.lock().replaced(replaced);
        self.bodies.pinned.settle();
        written
    }

    fn touch(&mut self, key: &ObjectKey) -> &mut Touched {
        let bodies = self.bodies;
        self.touched.entry(key.clone()).or_insert_with(|| {
            let before = bodies.versions(key);
            Touched {
                stored: None,
                now: before.clone(),
                before,
                fresh: Vec::new(),
            }
        })
    }
}

impl Bodies {
    /// The record as memory knows it; a damaged one counts as none.
    fn stored(&self, key: &ObjectKey, known: &Versions) -> Record {
        if known.is_empty() {
            return Record::default();
        }
        let stored = self.store.get(&record_key(&self.resource, key));
        let stored = stored.unwrap_or_else(|error| {
            tracing::warn!(resource = %self.resource, %key, %error, "a damaged object is replaced");
            None
        });
        stored.and_then(Record::decode).unwrap_or_default()
    }
}

impl Touched {
    /// Returns the record as it was.
    fn stored(&mut self, bodies: &Bodies, key: &ObjectKey) -> &mut Record {
        self.stored
            .get_or_insert_with(|| bodies.stored(key, &self.before))
    }

    /// Returns what is to be written: the versions that somebody holds. What a crash has left under the number of a fresh
    /// one is none of them.
    fn record(&self) -> Record {
        let is_held = |version: Version| self.now.iter().any(|one| one.version == version);
        let is_fresh = |version: Version| self.fresh.iter().any(|(one, _)| *one == version);
        let stored = self.stored.iter().flat_map(|stored| &stored.0);
        let stored = stored.filter(|(version, _)| !is_fresh(*version));
        let all = stored.chain(&self.fresh);
        Record(
            all.filter(|(version, _)| is_held(*version))
                .cloned()
                .collect(),
        )
    }

    /// Returns the versions that the record loses.
    fn replaced(&self) -> impl Iterator<Item = (Version, Bytes)> {
        let is_held = |version: Version| self.now.iter().any(|one| one.version == version);
        let gone = self.stored.iter().flat_map(|stored| &stored.0);
        gone.filter(move |(version, _)| !is_held(*version)).cloned()
    }
}

fn add(versions: &mut Versions, version: Version, len: u32) {
    match versions.iter_mut().find(|one| one.version == version) {
        Some(one) => one.holders += 1,
        None => versions.push(Counted {
            version,
            len,
            holders: 1,
        }),
    }
}

/// Returns how much an object is, all of its versions.
fn held_of(versions: &Versions) -> Held {
    Held {
        objects: usize::from(!versions.is_empty()),
        bytes: versions.iter().map(|one| u64::from(one.len)).sum(),
    }
}
