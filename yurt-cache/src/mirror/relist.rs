//! Takes whole lists: the first one, which becomes visible when it is complete, and later ones, of which only the
//! difference does. The bytes are written as they come, in front of nobody; that the list is complete is one batch.
//! A crash before it leaves the old state, and bytes that nobody holds are dropped at the next start.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use yurt_core::store::Result;

use super::Mirror;
use super::history::Listed;
use super::version::{Era, Version};
use super::write::ScopeRecord;
use crate::api::{ListAt, ObjectKey, split_key};
use crate::codec::TypeMeta;

/// One object of a list, in the form that is kept.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) key: ObjectKey,
    pub(crate) revision: u64,
    pub(crate) body: Bytes,
}

/// What became of a complete list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    InPlace,
    /// The cloud stands before what it had shown: its revisions count again, so each object has to be read anew.
    WentBack {
        before: u64,
    },
}

/// What is held while a mirror is written.
#[derive(Debug, Default)]
pub(super) struct Writing {
    /// What a list that is being taken has brought that is new.
    staged: HashMap<ObjectKey, (Version, u32)>,
    /// In which era the list is.
    era: Era,
    /// The cloud had come as far as this when it was asked for the list as it is now.
    since: Option<Version>,
    /// Nothing is written for the mirror any more.
    pub(super) is_ended: bool,
}

impl Mirror {
    /// Notes that the cloud's revisions have gone back, as when its etcd was restored: they name other objects now, and
    /// only a list says which, here and in every other mirror of the kind. Blocks on the store, so that a restart knows
    /// it too.
    pub(crate) fn went_back(&self) -> Result<()> {
        let writing = self.writing.lock();
        if writing.is_ended || !self.is_synced() {
            return Ok(());
        }
        self.kind.end_era(self.era())
    }

    /// Clears the way for a list: what an unfinished one has brought is dropped. Blocks on the store.
    pub(crate) fn begin_list(&self, at: ListAt) -> Result<()> {
        let mut writing = self.writing.lock();
        self.unstage(&mut writing)?;
        let reached = self.kind.reached();
        writing.era = reached.era();
        writing.since = (at == ListAt::Latest).then_some(reached);
        Ok(())
    }

    /// Takes over a part of a list. Blocks on the store.
    pub(crate) fn take_listed(&self, items: Vec<Item>) -> Result<()> {
        let mut writing = self.writing.lock();
        if writing.is_ended {
            return Ok(());
        }
        let mut writer = self.kind.bodies.writer();
        let mut staged: HashMap<ObjectKey, (Version, u32)> = HashMap::new();
        for item in items {
            let version = Version::cloud(writing.era, item.revision);
            self.kind.note_reached(version);
            let is_held = self.state.read().history.cloud_version(&item.key) == Some(version);
            if is_held && self.kind.bodies.is_damaged(&item.key) {
                writer.overwrite(&item.key, version, &item.body);
            }
            if is_held {
                continue;
            }
            let key = self.kind.bodies.shared(item.key);
            let len = u32::try_from(item.body.len()).expect("a store takes no value of 4 GiB");
            writer.retain(&key, version, len, Some(&item.body));
            let before = staged.insert(key.clone(), (version, len));
            if let Some((before, _)) = before.or_else(|| writing.staged.get(&key).copied()) {
                // The list names it twice.
                writer.release(&key, before);
            }
        }
        writer.write(|| writing.staged.extend(staged))
    }

    /// Makes a complete list visible as a whole. Blocks on the store.
    pub(crate) fn finish_list(
        &self,
        revision: u64,
        form: TypeMeta,
        seen: &HashSet<ObjectKey>,
    ) -> Result<Finished> {
        let mut writing = self.writing.lock();
        if writing.is_ended {
            return Ok(Finished::InPlace);
        }
        self.kind.learn_form(form);
        let listed_at = Version::cloud(writing.era, revision);
        let is_earlier = writing.since.is_some_and(|since| listed_at < since);
        if is_earlier {
            self.kind.end_era(writing.era)?;
        }
        if writing.era < self.kind.era() {
            self.unstage(&mut writing)?;
            let before = writing.since.map_or(self.followed(), Version::number);
            return Ok(Finished::WentBack { before });
        }
        let staged = writing.staged.iter().map(|(key, (version, len))| Listed {
            key: key.clone(),
            version: *version,
            len: *len,
        });
        let staged: Vec<Listed> = staged.collect();
        let at = (writing.era, revision);
        let transition = {
            let state = self.state.read();
            match state.is_synced() {
                false => state.history.first_list(at, staged.clone()),
                true => state.history.relist(at, staged.clone(), seen),
            }
        };
        self.happen(transition, ScopeRecord::Always, &staged)?;
        writing.staged = HashMap::new();
        drop(writing);
        self.forget_unlisted(revision, seen)?;
        Ok(Finished::InPlace)
    }

    /// Forgets what was once read by name where a list of everything no longer has it.
    fn forget_unlisted(&self, revision: u64, seen: &HashSet<ObjectKey>) -> Result<()> {
        if !self.scope.labels.is_everything() || !self.scope.fields.is_everything() {
            return Ok(());
        }
        let namespace = self.scope.namespace.as_deref();
        let is_gone = |key: &ObjectKey| {
            !seen.contains(key)
                && namespace.is_none_or(|namespace| split_key(key).0 == namespace)
                && self.kind.version_by_name(key) <= Some(Version::cloud(self.era(), revision))
        };
        let mut gone = self.kind.keys_by_name();
        gone.retain(is_gone);
        self.kind.release(&gone)
    }

    pub(super) fn unstage(&self, writing: &mut Writing) -> Result<()> {
        if writing.staged.is_empty() {
            return Ok(());
        }
        let mut writer = self.kind.bodies.writer();
        for (key, (version, _)) in &writing.staged {
            writer.release(key, *version);
        }
        writer.write(|| writing.staged = HashMap::new())
    }
}
