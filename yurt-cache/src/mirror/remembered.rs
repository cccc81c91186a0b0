//! What callers have read by name, outside every mirror: how much of it there is, and when it was used.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use yurt_core::store::Result;

use super::Mirror;
use super::bodies::Writer;
use super::kind::Kind;
use super::saved::{encode_remembered, remembered_key};
use super::version::Version;
use crate::api::{ObjectKey, key};
use crate::retention::{Budget, Held};

/// How much of all kinds is remembered by name.
#[derive(Debug)]
pub(crate) struct Remembered {
    budget: Budget,
    held: Mutex<Held>,
    /// Wakes who makes room.
    pub(crate) crowded: Notify,
}

impl Remembered {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            budget,
            held: Mutex::default(),
            crowded: Notify::new(),
        }
    }

    pub(crate) fn budget(&self) -> Budget {
        self.budget
    }

    pub(crate) fn held(&self) -> Held {
        *self.held.lock()
    }

    /// Returns whether one object more may be remembered; where it is over the budget room is made soon, and
    /// a quarter more is remembered until then.
    pub(crate) fn admits(&self, one: Held) -> bool {
        let coming = self.held().plus(one);
        if !self.budget.is_exceeded_by(coming) {
            return true;
        }
        self.crowded.notify_one();
        let over = Budget {
            objects: self.budget.objects.saturating_add(self.budget.objects / 4),
            bytes: self.budget.bytes.saturating_add(self.budget.bytes / 4),
        };
        !over.is_exceeded_by(coming)
    }

    fn change(&self, before: Held, after: Held) {
        let mut held = self.held.lock();
        *held = held.plus(after).minus(before);
    }
}

/// Which objects of a kind are remembered by name.
#[derive(Debug, Default)]
pub(super) struct ByName(Mutex<BTreeMap<ObjectKey, Entry>>);

#[derive(Clone, Copy, Debug)]
struct Entry {
    version: Version,
    /// The length of its bytes; `None` if the object has left somebody's selector at the version, and nobody knows what
    /// became of it.
    len: Option<u32>,
    used: Option<Instant>,
}

/// What a mirror has learned of an object.
#[derive(Clone, Copy, Debug)]
pub(super) enum Learned {
    /// It is there, in a version of this length.
    There(Version, u32),
    /// It was deleted.
    Gone(Version),
    /// It was deleted, or is no longer what the mirror selects.
    Left(Version),
    /// A list no longer finds it, which was at this version: deleted since, or no longer what the mirror selects.
    Lost(Version),
}

/// What is remembered of an object after a change.
#[derive(Debug)]
pub(super) struct Renewed(ObjectKey, Option<Entry>);

impl Entry {
    fn held(&self) -> Held {
        Held {
            objects: 1,
            bytes: self.len.unwrap_or(0).into(),
        }
    }

    /// Returns whether a version that is there says more.
    fn is_before(&self, version: Version) -> bool {
        self.version < version || self.len.is_none() && self.version == version
    }

    fn release(&self, writer: &mut Writer<'_>, key: &ObjectKey) {
        if self.len.is_some() {
            writer.release(key, self.version);
        }
    }
}

impl Kind {
    /// Takes over what the store remembers. At the start only.
    pub(super) fn recall_by_name(&self, key: ObjectKey, version: Version, len: Option<u32>) {
        if let Some(len) = len {
            self.bodies.count(&key, version, len);
        }
        self.note_reached(version);
        let used = None;
        self.put_by_name(key, Some(Entry { version, len, used }));
    }

    /// Remembers what a caller read by name, unless something newer is known or there is no room. Returns whether nothing
    /// newer is known. Blocks on the store.
    pub(crate) fn remember(
        &self,
        key: &ObjectKey,
        revision: u64,
        body: Bytes,
        now: Instant,
    ) -> Result<bool> {
        self.note_use(key, now);
        let version = Version::cloud(self.era(), revision);
        self.note_reached(version);
        let known = self.cloud_version(key);
        if known > Some(version) {
            return Ok(false);
        }
        // A list that is being taken may hold it, and come to nothing.
        let is_newer = |entry: Entry| entry.is_before(version);
        let is_known = known == Some(version)
            && !self.by_name.get(key).is_some_and(is_newer)
            && !self.differs(key, version, &body);
        if is_known || !self.remembered.admits(Held::one(body.len())) {
            return Ok(true);
        }
        self.keep(key, version, &body, now)
    }

    fn keep(&self, key: &ObjectKey, version: Version, body: &Bytes, now: Instant) -> Result<bool> {
        let mut writer = self.bodies.writer();
        let len = u32::try_from(body.len()).expect("a store takes no value of 4 GiB");
        let before = self.by_name.get(key);
        let is_rewritten = self.is_only_by_name(key, version);
        if let Some(before) = before
            && !before.is_before(version)
            && !is_rewritten
        {
            return Ok(before.version == version);
        }
        if let Some(before) = before {
            before.release(&mut writer, key);
        }
        writer.retain(key, version, len, Some(body));
        if is_rewritten {
            writer.overwrite(key, version, body);
        }
        let len = Some(len);
        let stored = remembered_key(&self.resource, key);
        writer.batch.put(stored, encode_remembered(version, len));
        let entry = Entry {
            version,
            len,
            used: Some(now),
        };
        writer.write(|| self.put_by_name(key.clone(), Some(entry)))?;
        Ok(true)
    }

    /// Returns whether what was read by name has other bytes at this revision, which a cloud that was put back may count
    /// again; what cannot be read differs too. What a mirror holds too is its own affair: it lists again. Blocks on the
    /// store.
    fn differs(&self, key: &ObjectKey, version: Version, body: &Bytes) -> bool {
        self.is_only_by_name(key, version)
            && self.read(key, version).ok().flatten().as_ref() != Some(body)
    }

    fn is_only_by_name(&self, key: &ObjectKey, version: Version) -> bool {
        self.read_by_name(key) == Some(version) && self.bodies.is_held_once(key, version)
    }

    /// Returns the newest of the cloud's versions of an object that was seen, though nothing of it may be kept.
    pub(crate) fn seen(&self, key: &str) -> Option<Version> {
        self.cloud_version(key).max(self.version_by_name(key))
    }

    /// Takes in that the cloud has an object at `revision` which was at `before`, as far as was known here, when it was
    /// asked for the object as it is now: its revisions have gone back if that is earlier. Blocks on the store.
    pub(crate) fn note_read(&self, before: Option<Version>, revision: u64) -> Result<()> {
        let era = self.era();
        let is_earlier = |before: Version| Version::cloud(era, revision) < before;
        match revision > 0 && before.is_some_and(is_earlier) {
            true => self.end_era(era),
            false => Ok(()),
        }
    }

    /// Returns as of which version something is remembered by name of an object.
    pub(crate) fn version_by_name(&self, key: &str) -> Option<Version> {
        self.by_name.get(key).map(|entry| entry.version)
    }

    /// Returns which version of an object was read by name.
    pub(super) fn read_by_name(&self, key: &str) -> Option<Version> {
        let entry = self.by_name.get(key)?;
        entry.len.and(Some(entry.version))
    }

    /// Returns at which version an object that was read by name has left somebody's selector, if nobody knows what
    /// became of it.
    pub(super) fn left_by_name(&self, key: &str) -> Option<Version> {
        let entry = self.by_name.get(key)?;
        entry.len.is_none().then_some(entry.version)
    }

    /// Forgets what has left somebody's selector, once none of these mirrors would say that it is not there because it
    /// has not come as far. Blocks on the store.
    pub(crate) fn forget_left(&self, mirrors: &[Arc<Mirror>]) -> Result<()> {
        let may_miss = |key: &str, at: Version| {
            let is_of_kind = |mirror: &&Arc<Mirror>| std::ptr::eq(&*mirror.kind, self);
            let mut mirrors = mirrors.iter().filter(is_of_kind);
            mirrors.any(|mirror| mirror.may_miss(key, at))
        };
        // Nobody may read it by name meanwhile.
        let writer = self.bodies.writer();
        let mut left = self.keys_by_name();
        left.retain(|key| self.left_by_name(key).is_some_and(|at| !may_miss(key, at)));
        self.release_by(writer, &left)
    }

    /// Returns the objects that are remembered by name.
    pub(super) fn keys_by_name(&self) -> Vec<ObjectKey> {
        self.by_name.0.lock().keys().cloned().collect()
    }

    /// Describes what a mirror has learned of an object that is remembered by name, unless something newer is. Returns
    /// what to show once it is written.
    pub(super) fn renew_by_name(
        &self,
        writer: &mut Writer<'_>,
        key: &ObjectKey,
        learned: Learned,
        fresh: &HashMap<(&ObjectKey, Version), &Bytes>,
    ) -> Option<Renewed> {
        let entry = self.by_name.get(key)?;
        let now = match learned {
            Learned::There(version, len) if !version.is_local() && entry.is_before(version) => {
                writer.retain(key, version, len, fresh.get(&(key, version)).copied());
                Some((version, Some(len)))
            }
            Learned::Gone(at) if entry.version <= at => None,
            Learned::Left(at) if entry.version < at => Some((at, None)),
            Learned::Lost(held) if entry.len.is_some() && entry.version <= held => {
                Some((held, None))
            }
            Learned::There(..) | Learned::Gone(_) | Learned::Left(_) | Learned::Lost(_) => {
                return None;
            }
        };
        let stored = remembered_key(&self.resource, key);
        match now {
            Some((version, len)) => writer.batch.put(stored, encode_remembered(version, len)),
            None => writer.batch.delete(stored),
        };
        entry.release(writer, key);
        let used = entry.used;
        let now = now.map(|(version, len)| Entry { version, len, used });
        Some(Renewed(key.clone(), now))
    }

    /// Shows what was renewed.
    pub(super) fn show_renewed(&self, renewed: Vec<Renewed>) {
        for Renewed(key, entry) in renewed {
            self.put_by_name(key, entry);
        }
    }

    /// Notes that somebody used what was remembered by name.
    pub(crate) fn note_use(&self, key: &ObjectKey, now: Instant) {
        if let Some(entry) = self.by_name.0.lock().get_mut(key) {
            entry.used = Some(now);
        }
    }

    /// Returns what was remembered by name: how much of it each is, and when it was used, as far as is known.
    pub(crate) fn remembered(&self) -> Vec<(ObjectKey, Held, Option<Instant>)> {
        let entries = self.by_name.0.lock();
        let entries = entries.iter();
        entries
            .map(|(key, entry)| (key.clone(), entry.held(), entry.used))
            .collect()
    }

    /// Forgets what was remembered by name. Blocks on the store.
    pub(crate) fn release(&self, keys: &[ObjectKey]) -> Result<()> {
        self.release_by(self.bodies.writer(), keys)
    }

    fn release_by(&self, mut writer: Writer<'_>, keys: &[ObjectKey]) -> Result<()> {
        let mut gone = Vec::new();
        for key in keys {
            if let Some(entry) = self.by_name.get(key) {
                entry.release(&mut writer, key);
                writer.batch.delete(remembered_key(&self.resource, key));
                gone.push(key.clone());
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        writer.write(|| gone.into_iter().for_each(|key| self.put_by_name(key, None)))
    }

    /// Forgets what was read by name: it is gone. Blocks on the store.
    pub(crate) fn forget(&self, namespace: &str, name: &str) -> Result<()> {
        self.release(&[key(namespace, name)])
    }

    fn put_by_name(&self, key: ObjectKey, entry: Option<Entry>) {
        let mut entries = self.by_name.0.lock();
        let before = match entry {
            Some(entry) => entries.insert(key, entry),
            None => entries.remove(&key),
        };
        let held = |entry: Option<Entry>| entry.map_or_else(Held::default, |entry| entry.held());
        self.remembered.change(held(before), held(entry));
    }
}

impl ByName {
    fn get(&self, key: &str) -> Option<Entry> {
        self.0.lock().get(key).copied()
    }
}
