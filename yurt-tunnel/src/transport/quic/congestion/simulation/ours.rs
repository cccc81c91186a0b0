//! The model, with packets sent as quinn sends them: bursts of its pacer too, which are what a short queue loses.

use std::time::Duration;

use super::super::model::Model;
use super::Sender;
use super::flight::Flight;

pub(super) const PACKET: u64 = 1252;

/// What the pacer lets go at once, in packets, and in time of the window.
const BURST: (f64, f64) = (10.0, 256.0);
const BURST_TIME: f64 = 0.002;

pub(super) struct Ours {
    model: Model,
    flight: Flight,
    tokens: f64,
    filled: Duration,
    /// When the pacer lets the next packet go.
    paced: Option<Duration>,
}

impl Ours {
    pub(super) fn new() -> Self {
        Self {
            model: Model::new(PACKET),
            flight: Flight::default(),
            tokens: BURST.0 * PACKET as f64,
            filled: Duration::ZERO,
            paced: None,
        }
    }

    /// One that has known the path when it was free, and has next to nothing now.
    pub(super) fn starved(free: Duration, full: Duration) -> Self {
        let mut ours = Self::new();
        for round in 0..40 {
            let sent = full * round;
            let trip = if round == 0 { free } else { full };
            for _ in 0..4 {
                ours.model.acked(sent + trip, sent, PACKET, false);
            }
        }
        ours
    }

    fn lost(&mut self, now: Duration, lost: &[Duration]) {
        if let Some(last) = lost.last() {
            let bytes = lost.len() as u64 * PACKET;
            self.model.lost(now, *last, bytes, false);
        }
    }
}

impl Sender for Ours {
    fn may_send(&mut self, now: Duration) -> bool {
        self.paced = None;
        let window = self.model.window();
        if self.flight.packets() * PACKET + PACKET >= window {
            return false;
        }
        let (packet, trip) = (PACKET as f64, self.flight.trip().as_secs_f64());
        let burst = window as f64 * BURST_TIME / trip;
        let capacity = burst.clamp(BURST.0 * packet, BURST.1 * packet);
        self.tokens = self.tokens.min(capacity);
        if self.tokens < packet {
            let passed = (now - self.filled).as_secs_f64();
            self.tokens += window as f64 * 1.25 * passed / trip;
            self.tokens = self.tokens.min(capacity);
            self.filled = now;
        }
        if self.tokens >= packet {
            return true;
        }
        let wait = (capacity - self.tokens) * trip / window as f64 * 0.8;
        self.paced = Some(now + Duration::from_secs_f64(wait) + Duration::from_nanos(1));
        false
    }

    fn send(&mut self, now: Duration, number: u64) -> u64 {
        self.flight.sent(now, number);
        self.tokens -= PACKET as f64;
        PACKET
    }

    fn acked(&mut self, now: Duration, number: u64) {
        let (sent, lost) = self.flight.acked(now, number);
        if let Some(sent) = sent {
            self.model.acked(now, sent, PACKET, false);
        }
        self.lost(now, &lost);
    }

    fn timeout(&self) -> Option<Duration> {
        self.paced.into_iter().chain(self.flight.timeout()).min()
    }

    fn on_timeout(&mut self, now: Duration) {
        let lost = self.flight.give_up(now);
        self.lost(now, &lost);
    }
}
