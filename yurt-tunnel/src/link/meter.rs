//! Whether somebody waits for a stream's bytes, told by how many there are.
//!
//! All that a tunnel sees of `kubectl exec` and of `kubectl cp` are the same encrypted bytes to the same port.
//! A person causes few, a copy causes many: a stream that goes on for longer than a burst is bulk until it has
//! been quiet for a while.

use std::time::Duration;

use yurt_core::transport::Priority;

/// A full screen, a page of a log, a scrape of metrics are less than this at once.
const BURST: u64 = 1 << 20;

/// What a stream may go on with, per second, without being taken for bulk.
const RATE: u64 = 256 << 10;

/// A leaky bucket.
#[derive(Debug)]
pub(super) struct Meter {
    wanted: Priority,
    level: u64,
    at: Duration,
    is_bulk: bool,
}

impl Meter {
    pub(super) fn new(wanted: Priority) -> Self {
        Self {
            wanted,
            level: 0,
            at: Duration::ZERO,
            is_bulk: false,
        }
    }

    /// Counts bytes; returns the priority if it is another from now on.
    pub(super) fn count(&mut self, bytes: u64, now: Duration) -> Option<Priority> {
        let passed = now.saturating_sub(self.at).as_millis();
        let leaked = u64::try_from(passed)
            .unwrap_or(u64::MAX)
            .saturating_mul(RATE)
            / 1000;
        self.at = now;
        self.level = self
            .level
            .saturating_sub(leaked)
            .saturating_add(bytes)
            .min(2 * BURST);
        let is_bulk = match self.is_bulk {
            false => self.level > BURST,
            true => self.level > BURST / 2,
        };
        if is_bulk == self.is_bulk || self.wanted == Priority::Bulk {
            return None;
        }
        self.is_bulk = is_bulk;
        Some(if is_bulk { Priority::Bulk } else { self.wanted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_stays_interactive_and_a_copy_becomes_bulk_until_it_is_quiet() {
        let mut meter = Meter::new(Priority::Interactive);
        assert_eq!(meter.count(BURST, SECOND), None, "a burst");
        assert_eq!(meter.count(1, SECOND), Some(Priority::Bulk), "and more");
        assert_eq!(meter.count(BURST, SECOND), None, "it is already");
        assert_eq!(meter.count(1, SECOND * 2), None, "a second is not quiet");
        assert_eq!(meter.count(1, SECOND * 8), Some(Priority::Interactive));
    }

    #[test]
    fn a_steady_log_stays_interactive_for_ever() {
        let mut meter = Meter::new(Priority::Interactive);
        for second in 0..100_000 {
            assert_eq!(meter.count(RATE, SECOND * second), None);
        }
    }

    #[test]
    fn what_was_opened_as_bulk_stays_so() {
        let mut meter = Meter::new(Priority::Bulk);
        for second in [0, 0, 0, 100] {
            assert_eq!(meter.count(2 * BURST, SECOND * second), None);
        }
    }
}
