//! How much all streams of a link carry together, of late.

use std::collections::VecDeque;
use std::time::Duration;

/// What is measured at once: longer than what a buffer takes at a time on a slow link.
const SPAN: Duration = Duration::from_secs(1);

/// The spans of which the best counts; after as long without any the pace is unknown again.
const SPANS: usize = 4;

/// Bytes per second, in both directions together.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Duration,
    bytes: u64,
    spans: VecDeque<u64>,
}

impl Pace {
    pub(super) fn count(&mut self, bytes: u64, now: Duration) {
        let passed = now.saturating_sub(self.since);
        if passed > SPAN * 4 {
            self.spans.clear();
            (self.since, self.bytes) = (now, 0);
        } else if passed >= SPAN {
            if self.spans.len() == SPANS {
                self.spans.pop_front();
            }
            let milliseconds = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
            self.spans
                .push_back(self.bytes.saturating_mul(1000) / milliseconds);
            (self.since, self.bytes) = (now, 0);
        }
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Returns the pace, when it is known.
    pub(super) fn best(&self) -> Option<u64> {
        self.spans.iter().copied().max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_the_best_of_the_last_seconds_until_nothing_comes_for_long() {
        let mut pace = Pace::default();
        for step in 0..40 {
            pace.count(100, SECOND / 10 * step);
        }
        assert_eq!(pace.best(), Some(1_000));
        for step in 40..200 {
            pace.count(10, SECOND / 10 * step);
        }
        assert_eq!(pace.best(), Some(100), "it has become slower");
        pace.count(1, SECOND * 60);
        assert_eq!(pace.best(), None, "that was long ago");
    }
}
