//! Whether somebody waits for a stream's bytes, told by how many there are.
//!
//! All that a tunnel sees of `kubectl exec` and of `kubectl cp` are the same encrypted bytes to the same port.
//! A person causes few, a copy causes many: a stream that goes on for longer than a burst is bulk until it has
//! been quiet for a while. How many are many depends on what the link carries: what a fast one takes in passing
//! keeps a slow one busy for seconds.

use std::time::Duration;

use yurt_core::transport::Priority;

/// A full screen, a page of a log, a scrape of metrics are less than this at once; on a slow link what it carries in
/// this many seconds is a burst, but at least what a screen takes.
const BURST: u64 = 1 << 20;
const BURST_SECONDS: u64 = 2;
const MIN_BURST: u64 = 128 << 10;

/// What a stream may go on with, per second, without being taken for bulk: this share of what the link carries, within
/// bounds. Thirty copies at once are copies still.
const SHARE: u64 = 32;
const RATE: u64 = 256 << 10;
const MIN_RATE: u64 = 8 << 10;

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

    /// Counts bytes on a link that carries so many per second, if that is known; returns the priority if it is
    /// another from now on.
    pub(super) fn count(
        &mut self,
        bytes: u64,
        now: Duration,
        pace: Option<u64>,
    ) -> Option<Priority> {
        let burst = pace.map_or(BURST, |pace| {
            pace.saturating_mul(BURST_SECONDS).clamp(MIN_BURST, BURST)
        });
        let rate = pace.map_or(RATE, |pace| (pace / SHARE).clamp(MIN_RATE, RATE));
        let passed = now.saturating_sub(self.at).as_millis();
        let leaked = u64::try_from(passed)
            .unwrap_or(u64::MAX)
            .saturating_mul(rate)
            / 1000;
        self.at = now;
        self.level = self
            .level
            .saturating_sub(leaked)
            .saturating_add(bytes)
            .min(2 * burst);
        let is_bulk = match self.is_bulk {
            false => self.level > burst,
            true => self.level > burst / 2,
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
        let mut count = |bytes, now| meter.count(bytes, now, None);
        assert_eq!(count(BURST, SECOND), None, "a burst");
        assert_eq!(count(1, SECOND), Some(Priority::Bulk), "and more");
        assert_eq!(count(BURST, SECOND), None, "it is already");
        assert_eq!(count(1, SECOND * 2), None, "a second is not quiet");
        assert_eq!(count(1, SECOND * 8), Some(Priority::Interactive));
    }

    /// When a stream of so many bytes per second becomes bulk on a link that carries so many, in seconds.
    fn bulk_after(rate: u64, pace: u64) -> Option<u64> {
        let mut meter = Meter::new(Priority::Interactive);
        (0..100_000)
            .find(|tenth| {
                let now = SECOND / 10 * u32::try_from(*tenth).unwrap();
                meter.count(rate / 10, now, Some(pace)) == Some(Priority::Bulk)
            })
            .map(|tenth| tenth / 10)
    }

    #[test]
    fn how_much_is_bulk_depends_on_what_the_link_carries() {
        let kbits = |kbits: u64| kbits * 1000 / 8;
        for (stream, link, bulk) in [
            // A copy has the link, or shares it with others.
            (256, 256, Some(5)),
            (1_000, 1_000, Some(2)),
            (2_000, 2_000, Some(2)),
            (20_000, 20_000, Some(0)),
            (2_000, 20_000, Some(6)),
            (100, 1_000, Some(57)),
            // A shell, a log: on no link.
            (8, 256, None),
            (60, 1_000, None),
            (500, 20_000, None),
            (2_000, 100_000, None),
        ] {
            let after = bulk_after(kbits(stream), kbits(link));
            assert_eq!(after, bulk, "{stream} of {link} kbit/s");
        }
    }

    #[test]
    fn a_steady_log_on_a_fast_link_stays_interactive_for_ever() {
        let mut meter = Meter::new(Priority::Interactive);
        for second in 0..100_000 {
            assert_eq!(meter.count(RATE, SECOND * second, Some(RATE * SHARE)), None);
        }
    }

    #[test]
    fn what_was_opened_as_bulk_stays_so() {
        let mut meter = Meter::new(Priority::Bulk);
        for second in [0, 0, 0, 100] {
            assert_eq!(meter.count(2 * BURST, SECOND * second, None), None);
        }
    }
}
