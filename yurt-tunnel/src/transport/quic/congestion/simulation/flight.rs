//! What a sender has on its way, and how it learns what was lost.

use std::collections::BTreeMap;
use std::time::Duration;

/// A packet is lost when one that was sent so much later has arrived (RFC 9002, 6.1.1; RFC 6675).
const REORDERING: u64 = 3;

/// Before the first round trip is known (RFC 9002, 6.2.2).
const UNKNOWN: Duration = Duration::from_millis(333);

#[derive(Default)]
pub(super) struct Flight {
    packets: BTreeMap<u64, Duration>,
    trip: Option<Duration>,
    heard: Duration,
}

impl Flight {
    pub(super) fn packets(&self) -> u64 {
        self.packets.len() as u64
    }

    /// The smoothed round trip.
    pub(super) fn trip(&self) -> Duration {
        self.trip.unwrap_or(UNKNOWN)
    }

    pub(super) fn sent(&mut self, now: Duration, number: u64) {
        if self.packets.is_empty() {
            self.heard = now;
        }
        self.packets.insert(number, now);
    }

    /// Returns when the packet was sent, if it was not given up, and when each that is lost was.
    pub(super) fn acked(
        &mut self,
        now: Duration,
        number: u64,
    ) -> (Option<Duration>, Vec<Duration>) {
        self.heard = now;
        let sent = self.packets.remove(&number);
        if let Some(sent) = sent {
            let trip = now - sent;
            self.trip = Some(self.trip.map_or(trip, |known| (known * 7 + trip) / 8));
        }
        let late = self
            .packets
            .split_off(&(number + 1).saturating_sub(REORDERING));
        let lost = std::mem::replace(&mut self.packets, late);
        (sent, lost.into_values().collect())
    }

    /// When to wait no longer.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let wait = (self.trip() * 3).max(self.trip() + Duration::from_millis(200));
        (!self.packets.is_empty()).then_some(self.heard + wait)
    }

    /// Takes all for lost, if it is time; returns when each was sent.
    pub(super) fn give_up(&mut self, now: Duration) -> Vec<Duration> {
        if self.timeout().is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.heard = now;
        std::mem::take(&mut self.packets).into_values().collect()
    }
}
