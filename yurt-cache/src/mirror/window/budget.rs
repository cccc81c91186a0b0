//! The bytes of all windows together: who has most gives up its oldest events first.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How many bytes all windows hold, and may.
#[derive(Debug)]
pub(crate) struct WindowBudget {
    limit: usize,
    used: AtomicUsize,
    /// There is more than there may be.
    crowded: Notify,
}

impl WindowBudget {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
            crowded: Notify::new(),
        }
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns when there is more than there may be.
    pub(crate) async fn crowded(&self) {
        self.crowded.notified().await;
    }

    pub(super) fn add(&self, bytes: usize) {
        if self.used.fetch_add(bytes, Ordering::Relaxed) + bytes > self.limit {
            self.crowded.notify_one();
        }
    }

    pub(super) fn take(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Returns whether there is so much that nobody waits for others to give way.
    pub(super) fn is_overrun(&self) -> bool {
        self.used() > self.limit.saturating_mul(2)
    }

    /// Returns how much each of these windows may keep so that all keep three quarters of the budget: those that have
    /// less keep what they have.
    pub(crate) fn level(&self, windows: &[usize]) -> usize {
        let mut windows = windows.to_vec();
        windows.sort_unstable();
        let mut left = self.limit - self.limit / 4;
        for (at, bytes) in windows.iter().enumerate() {
            let share = left / (windows.len() - at);
            if *bytes > share {
                return share;
            }
            left -= bytes;
        }
        usize::MAX
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_has_little_keeps_it_and_the_others_share_the_rest() {
        let budget = WindowBudget::new(400);
        assert_eq!(budget.level(&[10, 20, 250]), usize::MAX);
        assert_eq!(budget.level(&[1_000, 10, 20]), 270);
        assert_eq!(budget.level(&[1_000, 10, 500]), 145);
        assert_eq!(budget.level(&[]), usize::MAX);
    }

    proptest! {
        #[test]
        fn all_together_keep_to_the_budget(windows in prop::collection::vec(0..1_000_usize, 0..50)) {
            let budget = WindowBudget::new(4_000);
            let level = budget.level(&windows);
            let kept: usize = windows.iter().map(|bytes| level.min(*bytes)).sum();
            prop_assert!(kept <= 3_000);
            prop_assert!(level == usize::MAX || kept + windows.len() > 3_000, "no more goes than must");
        }
    }
}
