//! What a path delivers at best, and how long it takes at least: of late, as paths change.

use std::collections::VecDeque;
use std::time::Duration;

/// Rounds of which the best rate counts.
const ROUNDS: usize = 10;

/// How long a shortest round trip counts.
const LATELY: Duration = Duration::from_secs(10);

/// The two measures.
#[derive(Clone, Debug, Default)]
pub(super) struct Rate {
    /// Bytes per second of the last rounds.
    rounds: VecDeque<u64>,
    /// Round trips, each shorter than all that came after it.
    trips: VecDeque<(Duration, Duration)>,
}

impl Rate {
    /// The best rate, in bytes per second.
    pub(super) fn best(&self) -> u64 {
        self.rounds.iter().copied().max().unwrap_or_default()
    }

    /// The shortest round trip.
    pub(super) fn shortest(&self) -> Option<Duration> {
        self.trips.front().map(|(_, trip)| *trip)
    }

    /// Takes what a round has delivered. One that had nothing more to send says only that it can be so much.
    pub(super) fn round(&mut self, bytes: u64, took: Duration, is_app_limited: bool) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let rate = bytes.saturating_mul(1_000_000) / micros;
        if is_app_limited && rate < self.best() {
            return;
        }
        if self.rounds.len() == ROUNDS {
            self.rounds.pop_front();
        }
        self.rounds.push_back(rate);
    }

    /// Lets only the latest rounds count.
    pub(super) fn forget_all_but(&mut self, rounds: usize) {
        let old = self.rounds.len().saturating_sub(rounds);
        self.rounds.drain(..old);
    }

    /// The path delivers less than it has.
    pub(super) fn fall(&mut self) {
        for rate in &mut self.rounds {
            *rate = *rate / 20 * 17;
        }
    }

    /// Takes a round trip.
    pub(super) fn round_trip(&mut self, now: Duration, trip: Duration) {
        while self.trips.back().is_some_and(|(_, longer)| *longer >= trip) {
            self.trips.pop_back();
        }
        self.trips.push_back((now, trip));
        while self.trips.len() > 1
            && self
                .trips
                .front()
                .is_some_and(|(at, _)| now.saturating_sub(*at) > LATELY)
        {
            self.trips.pop_front();
        }
    }
}
