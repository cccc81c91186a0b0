//! What of what is remembered goes: a pure decision over ages, counts and bytes.
//!
//! It is asked only while the cloud is there: what is lost else cannot be fetched again. What a restart needs
//! never goes. Of the rest goes what nobody used for long, and of what is over a budget the least recently
//! used.

use std::time::Duration;

/// How much may be kept, in objects and in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Objects; each takes about a hundred bytes of memory.
    pub objects: usize,
    /// Their bytes in the store.
    pub bytes: u64,
}

impl Budget {
    /// Returns a budget of so many objects and bytes.
    #[must_use]
    pub const fn new(objects: usize, bytes: u64) -> Self {
        Self { objects, bytes }
    }

    /// Returns whether so much is more than the budget.
    pub(crate) fn is_exceeded_by(&self, held: Held) -> bool {
        held.objects > self.objects || held.bytes > self.bytes
    }
}

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) objects: usize,
    pub(crate) bytes: u64,
}

impl Held {
    /// Returns how much one object is.
    pub(crate) fn one(bytes: usize) -> Self {
        Self {
            objects: 1,
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            objects: self.objects.saturating_add(other.objects),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            objects: self.objects.saturating_sub(other.objects),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// Something that may go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// For how long nobody has used it.
    pub(crate) idle: Duration,
    pub(crate) held: Held,
    /// A restart needs it.
    pub(crate) is_needed: bool,
}

/// What may be kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) age: Duration,
    pub(crate) budget: Budget,
}

/// Returns the places of the entries that go, the least recently used first; `total` is what all hold
/// together, which is less than their sum where they share.
pub(crate) fn plan(entries: &[Entry], total: Held, bounds: &Bounds) -> Vec<usize> {
    let mut spare: Vec<usize> = (0..entries.len())
        .filter(|at| !entries[*at].is_needed)
        .collect();
    spare.sort_by_key(|at| std::cmp::Reverse(entries[*at].idle));
    let mut left = total;
    let goes = |at: &usize| {
        let entry = &entries[*at];
        let goes = entry.idle > bounds.age || bounds.budget.is_exceeded_by(left);
        if goes {
            left = left.minus(entry.held);
        }
        goes
    };
    spare.into_iter().take_while(goes).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = (0..50_u64, 0..100_usize, any::<bool>());
        let entry = entry.prop_map(|(idle, bytes, is_needed)| Entry {
            idle: Duration::from_secs(idle),
            held: Held::one(bytes),
            is_needed,
        });
        prop::collection::vec(entry, 0..30)
    }

    fn bounds() -> impl Strategy<Value = Bounds> {
        (0..60_u64, 0..40_usize, 0..2_000_u64).prop_map(|(age, objects, bytes)| Bounds {
            age: Duration::from_secs(age),
            budget: Budget::new(objects, bytes),
        })
    }

    fn sum<'a>(entries: impl Iterator<Item = &'a Entry>) -> Held {
        entries.fold(Held::default(), |sum, entry| sum.plus(entry.held))
    }

    proptest! {
        #[test]
        fn what_is_needed_stays_and_the_rest_keeps_the_bounds(entries in entries(), bounds in bounds()) {
            let gone = plan(&entries, sum(entries.iter()), &bounds);
            let kept = || (0..entries.len()).filter(|at| !gone.contains(at)).map(|at| &entries[at]);
            prop_assert!(gone.iter().all(|at| !entries[*at].is_needed));
            let spare = || kept().filter(|entry| !entry.is_needed);
            prop_assert!(spare().all(|entry| entry.idle <= bounds.age));
            if spare().next().is_some() {
                prop_assert!(!bounds.budget.is_exceeded_by(sum(kept())));
            }
        }

        #[test]
        fn the_least_recently_used_goes_first_and_no_more_than_must(entries in entries(), bounds in bounds()) {
            let gone = plan(&entries, sum(entries.iter()), &bounds);
            let spare = (0..entries.len()).filter(|at| !gone.contains(at) && !entries[*at].is_needed);
            let longest = spare.map(|at| entries[at].idle).max().unwrap_or_default();
            prop_assert!(gone.iter().all(|at| entries[*at].idle >= longest));
            if let Some(last) = gone.last().map(|at| entries[*at]) {
                let kept = (0..entries.len()).filter(|at| !gone.contains(at)).map(|at| &entries[at]);
                let with_last = sum(kept).plus(last.held);
                prop_assert!(last.idle > bounds.age || bounds.budget.is_exceeded_by(with_last));
            }
        }
    }
}
