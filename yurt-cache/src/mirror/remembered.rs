//! What callers have read by name, outside every mirror: how much of it there is, and when it was used.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::kind::Key;
use crate::garbage::{Budget, Held};

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

/// When objects of a kind that are remembered by name were used.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<HashMap<Key, Instant>>);

impl Uses {
    pub(super) fn note(&self, key: &Key, now: Instant) {
        self.0.lock().insert(key.clone(), now);
    }

    pub(super) fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }

    /// Returns when it was used, as far as is known.
    pub(super) fn last(&self, key: &Key) -> Option<Instant> {
        self.0.lock().get(key).copied()
    }
}
