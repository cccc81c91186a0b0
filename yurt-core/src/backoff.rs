//! Capped exponential backoff with full jitter. It counts, and sleeps nowhere.

use std::time::Duration;

/// The next delay after another failure.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Returns a backoff of which nothing has failed yet.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self {
            first,
            cap,
            failures: 0,
        }
    }

    /// Returns how long to wait now; `random` is in 0..1.
    pub fn next_delay(&mut self, random: f64) -> Duration {
        let ceiling = self
            .first
            .saturating_mul(1 << self.failures.min(16))
            .min(self.cap);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(random.clamp(0.0, 1.0))
    }

    /// Returns whether nothing has failed yet.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.failures == 0
    }

    /// Begins again after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let delays: Vec<u128> = (0..6)
            .map(|_| backoff.next_delay(1.0).as_millis())
            .collect();
        assert_eq!(delays, [100, 200, 400, 800, 1_000, 1_000]);
        backoff.reset();
        assert_eq!(backoff.next_delay(0.5), Duration::from_millis(50));
    }
}
