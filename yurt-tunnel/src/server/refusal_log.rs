//! The rate limit of logged refusals, per reason, so that nobody can fill the disk with them.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::identity::Refusal;

/// Lines of one reason, and the time that they are counted in.
const LINES: u64 = 10;
const WHILE: Duration = Duration::from_secs(60);

/// What was logged lately.
#[derive(Debug, Default)]
pub(super) struct RefusalLog(Mutex<HashMap<Refusal, Logged>>);

#[derive(Debug)]
struct Logged {
    since: Instant,
    refused: u64,
}

impl RefusalLog {
    /// Returns how many lines were left out since the last one, or `None` if this one is left out as well.
    pub(super) fn admit(&self, refusal: Refusal, now: Instant) -> Option<u64> {
        let mut all = self.0.lock();
        let fresh = Logged {
            since: now,
            refused: 0,
        };
        let said = all.entry(refusal).or_insert(fresh);
        let mut unsaid = 0;
        if now.duration_since(said.since) >= WHILE {
            unsaid = said.refused.saturating_sub(LINES);
            (said.since, said.refused) = (now, 0);
        }
        said.refused += 1;
        (said.refused <= LINES).then_some(unsaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_reason_are_logged_and_the_rest_are_counted() {
        let log = RefusalLog::default();
        let began = Instant::now();
        let said = |refusal, times: u32, at| {
            (0..times)
                .filter_map(|_| log.admit(refusal, at))
                .collect::<Vec<_>>()
        };
        assert_eq!(said(Refusal::TooManyHandshakes, 1_000, began), [0; 10]);
        assert_eq!(said(Refusal::Expired, 1, began), [0]);
        assert_eq!(
            said(Refusal::TooManyHandshakes, 5, began + WHILE / 2),
            [0; 0]
        );
        let later = began + WHILE;
        assert_eq!(said(Refusal::TooManyHandshakes, 2, later), [995, 0]);
        assert_eq!(said(Refusal::TooManyHandshakes, 1, later + WHILE), [0]);
    }
}
