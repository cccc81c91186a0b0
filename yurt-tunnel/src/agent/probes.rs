//! When the preferred way is tried again where another had to be taken.

use std::time::Duration;

/// The longest period.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Tries that came to nothing in this network.
#[derive(Debug, Default)]
pub(super) struct Probes(u32);

impl Probes {
    /// Returns how long to wait for the next try, twice as long after each; `random` is in 0..1 and spreads the
    /// nodes of a fleet over the whole period.
    pub(super) fn next_pause(&mut self, first: Duration, random: f64) -> Duration {
        let period = first.saturating_mul(1 << self.0.min(16)).min(LONGEST);
        self.0 = self.0.saturating_add(1);
        period.mul_f64(0.5 + random)
    }

    /// Notes that the network is another one, or that the preferred way works.
    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_that_stays_closed_is_tried_less_and_less_often() {
        let mut probes = Probes::default();
        let minute = Duration::from_secs(60);
        let pauses = [(); 9].map(|()| probes.next_pause(minute, 0.5).as_secs() / 60);
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        probes.reset();
        assert_eq!(probes.next_pause(minute, 0.5), minute);
    }

    #[test]
    fn tries_are_spread_over_the_whole_period() {
        let minute = Duration::from_secs(60);
        let mut pauses: Vec<_> = (0..1000)
            .map(|index| Probes::default().next_pause(minute, f64::from(index) / 1000.0))
            .collect();
        pauses.sort();
        assert!(pauses[999] - pauses[0] >= Duration::from_secs(59));
    }
}
