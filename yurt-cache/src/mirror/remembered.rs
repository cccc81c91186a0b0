//! What callers have read by name, outside every mirror: how much of it there is, and when it was used.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use yurt_core::store::{Batch, Result};

use super::kind::{Change, Kind};
use super::record::{REMEMBERED, Version, is_local};
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

    /// Notes that this is remembered instead of that.
    pub(super) fn change(&self, before: Held, after: Held) {
        let mut held = self.held.lock();
        *held = held.plus(after).minus(before);
    }
}

impl Kind {
    /// Remembers what a caller read by name, unless something newer is known or there is no room.
    pub(crate) fn remember(
        &self,
        key: &ObjectKey,
        revision: u64,
        body: Bytes,
        now: Instant,
    ) -> Result<()> {
        self.note_use(key, now);
        let is_known = self.objects.read().get(key).is_some_and(|versions| {
            let mut of_cloud = versions.iter().filter(|one| !is_local(one.revision));
            of_cloud.any(|version| version.revision >= revision)
        });
        if is_known || !self.remembered.admits(Held::one(body.len())) {
            return Ok(());
        }
        let change = Change::Put {
            key: key.clone(),
            revision,
            body,
        };
        self.apply(REMEMBERED, &[change], Batch::new())?;
        self.note_use(key, now);
        Ok(())
    }

    /// Notes that somebody used what was remembered by name.
    pub(crate) fn note_use(&self, key: &ObjectKey, now: Instant) {
        if self.revision_of(REMEMBERED, key).is_some() {
            self.uses.note(key, now);
        }
    }

    /// Returns what was remembered by name: how much of it each is, and when it was used, as far as is known.
    pub(crate) fn remembered(&self) -> Vec<(ObjectKey, Held, Option<Instant>)> {
        let objects = self.objects.read();
        let remembered = objects
            .iter()
            .map(|(key, versions)| (key, remembered_of(versions)))
            .filter(|(_, held)| *held != Held::default());
        remembered
            .map(|(key, held)| (key.clone(), held, self.uses.last(key)))
            .collect()
    }

    /// Forgets what was remembered by name, whether it is so still or not.
    pub(crate) fn release(&self, keys: &[ObjectKey]) -> Result<()> {
        let changes: Vec<Change> = keys
            .iter()
            .map(|key| Change::Release { key: key.clone() })
            .collect();
        self.apply(REMEMBERED, &changes, Batch::new()).map(drop)
    }

    /// Forgets what was read by name: it is gone.
    pub(crate) fn forget(&self, namespace: &str, name: &str) -> Result<()> {
        let key = key(namespace, name);
        if self.revision_of(REMEMBERED, &key).is_none() {
            return Ok(());
        }
        self.apply(REMEMBERED, &[Change::Delete { key }], Batch::new())
            .map(drop)
    }
}

/// Returns how much of an object is remembered by name.
pub(super) fn remembered_of(versions: &[Version]) -> Held {
    let mut versions = versions.iter();
    let held = versions.find(|version| version.holders.contains(&REMEMBERED));
    held.map_or_else(Held::default, |version| Held {
        objects: 1,
        bytes: version.len.into(),
    })
}

/// When objects of a kind that are remembered by name were used.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<HashMap<ObjectKey, Instant>>);

impl Uses {
    pub(super) fn note(&self, key: &ObjectKey, now: Instant) {
        self.0.lock().insert(key.clone(), now);
    }

    pub(super) fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }

    /// Returns when it was used, as far as is known.
    pub(super) fn last(&self, key: &ObjectKey) -> Option<Instant> {
        self.0.lock().get(key).copied()
    }
}
