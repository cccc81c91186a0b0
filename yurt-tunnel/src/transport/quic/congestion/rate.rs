//! What a path delivers at best, and how long it takes: of late, as paths change.

use std::collections::VecDeque;
use std::time::Duration;

/// Rounds of which the best rate counts.
const ROUNDS: usize = 10;

/// How long a shortest round trip counts.
const LATELY: Duration = Duration::from_secs(10);

/// How long a longest one does: how long a queue can get changes seldom, and who has been cut sees none for a while.
const DEPTH: Duration = Duration::from_secs(30);

/// How many candidates for an extreme are kept: a session that is idle holds them too.
const SLOTS: u32 = 16;

/// Round trips that tell how long the queue is now: those of the packets round one that was lost.
const NOW: usize = 8;

/// The two measures.
#[derive(Clone, Debug, Default)]
pub(super) struct Rate {
    /// Bytes per second of the last rounds.
    rounds: VecDeque<u64>,
    /// Round trips, each shorter than all that came after it.
    short: VecDeque<(Duration, Duration)>,
    /// Round trips, each longer than all that came after it.
    long: VecDeque<(Duration, Duration)>,
    /// The last round trips.
    last: VecDeque<Duration>,
}

impl Rate {
    /// The best rate, in bytes per second.
    pub(super) fn best(&self) -> u64 {
        self.rounds.iter().copied().max().unwrap_or_default()
    }

    /// The shortest round trip.
    pub(super) fn shortest(&self) -> Option<Duration> {
        self.short.front().map(|(_, trip)| *trip)
    }

    /// Whether packets wait about as long as they did at most.
    pub(super) fn is_queue_full(&self) -> bool {
        let now = self.last.iter().max().copied().unwrap_or_default();
        let waits = now.saturating_sub(self.shortest().unwrap_or_default());
        waits * 4 >= self.deepest() * 3
    }

    /// How long packets waited at most.
    pub(super) fn deepest(&self) -> Duration {
        let longest = self.long.front().map_or(Duration::ZERO, |(_, trip)| *trip);
        longest.saturating_sub(self.shortest().unwrap_or_default())
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

    /// Takes a round trip.
    pub(super) fn round_trip(&mut self, now: Duration, trip: Duration) {
        if self.last.len() == NOW {
            self.last.pop_front();
        }
        self.last.push_back(trip);
        keep(&mut self.short, (now, trip), LATELY, |known| known >= trip);
        keep(&mut self.long, (now, trip), DEPTH, |known| known <= trip);
    }
}

/// Keeps what may yet be the extreme: not what the new one exceeds, nor what is long ago, nor all that comes at once.
fn keep(
    trips: &mut VecDeque<(Duration, Duration)>,
    (now, trip): (Duration, Duration),
    lately: Duration,
    is_exceeded: impl Fn(Duration) -> bool,
) {
    while trips.back().is_some_and(|(_, known)| is_exceeded(*known)) {
        trips.pop_back();
    }
    let is_new = |(at, _): &(Duration, Duration)| now.saturating_sub(*at) < lately / SLOTS;
    if !trips.back().is_some_and(is_new) {
        trips.push_back((now, trip));
    }
    let is_old = |(at, _): &(Duration, Duration)| now.saturating_sub(*at) > lately;
    while trips.len() > 1 && trips.front().is_some_and(is_old) {
        trips.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_round_trips_change_few_are_kept() {
        let mut rate = Rate::default();
        for step in 0..100_000 {
            let now = Duration::from_millis(step);
            // Longer and longer, and then shorter and shorter.
            let trip = Duration::from_micros(50_000_u64.abs_diff(step));
            rate.round_trip(now, trip);
            let kept = rate.short.len().max(rate.long.len());
            assert!(kept <= SLOTS as usize + 2, "{kept}");
            let last = *rate.last.back().unwrap();
            assert!(rate.shortest().unwrap() <= last);
            assert!(rate.long.front().unwrap().1 >= last);
        }
    }
}
