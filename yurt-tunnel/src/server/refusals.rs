//! Which refusals are said in the log: the first few of each reason in a while, so that no stranger can fill a disk.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::identity::Refusal;

/// How many of one reason are said in how long.
const LINES: u64 = 10;
const WHILE: Duration = Duration::from_secs(60);

/// What was said lately.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<Refusal, Said>>);

#[derive(Debug)]
struct Said {
    since: Instant,
    refused: u64,
}

impl Refusals {
    /// Returns how many were not said since the last that was, or `None` if this one is not to be said either.
    pub(super) fn say(&self, refusal: Refusal, now: Instant) -> Option<u64> {
        let mut all = self.0.lock();
        let fresh = Said {
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
    fn the_first_of_each_reason_are_said_and_the_rest_are_counted() {
        let refusals = Refusals::default();
        let began = Instant::now();
        let said = |refusal, times: u32, at| {
            (0..times)
                .filter_map(|_| refusals.say(refusal, at))
                .collect::<Vec<_>>()
        };
        assert_eq!(said(Refusal::Flood, 1_000, began), [0; 10]);
        assert_eq!(said(Refusal::Expired, 1, began), [0]);
        assert_eq!(said(Refusal::Flood, 5, began + WHILE / 2), [0; 0]);
        let later = began + WHILE;
        assert_eq!(said(Refusal::Flood, 2, later), [995, 0]);
        assert_eq!(said(Refusal::Flood, 1, later + WHILE), [0]);
    }
}
