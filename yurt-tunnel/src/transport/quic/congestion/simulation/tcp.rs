//! The competitors: Reno (RFC 5681) and CUBIC (RFC 9438), with the fast recovery of RFC 6675, in packets.

use std::time::Duration;

use super::Sender;
use super::flight::Flight;

const PACKET: u64 = 1500;

pub(super) struct Tcp {
    law: Law,
    flight: Flight,
    window: f64,
    threshold: f64,
    /// When the window was cut: what was sent before changes it no more.
    recovery: Option<Duration>,
}

enum Law {
    Reno,
    Cubic(Cubic),
}

#[derive(Default)]
struct Cubic {
    /// Where the window was cut.
    top: f64,
    /// When it began to grow again, from what, and what Reno would have.
    epoch: Option<(Duration, f64)>,
    reno: f64,
}

impl Tcp {
    pub(super) fn reno() -> Self {
        Self::new(Law::Reno)
    }

    pub(super) fn cubic() -> Self {
        Self::new(Law::Cubic(Cubic::default()))
    }

    fn new(law: Law) -> Self {
        Self {
            law,
            flight: Flight::default(),
            window: 10.0,
            threshold: f64::MAX,
            recovery: None,
        }
    }

    fn grow(&mut self, now: Duration) {
        self.window = match &mut self.law {
            _ if self.window < self.threshold => self.window + 1.0,
            Law::Reno => self.window + 1.0 / self.window,
            Law::Cubic(cubic) => cubic.grown(self.window, now, self.flight.trip()),
        };
    }

    fn cut(&mut self, now: Duration) {
        self.recovery = Some(now);
        let kept = match &mut self.law {
            Law::Reno => self.window * 0.5,
            Law::Cubic(cubic) => cubic.cut(self.window),
        };
        self.window = kept.max(2.0);
        self.threshold = self.window;
    }
}

impl Cubic {
    fn grown(&mut self, window: f64, now: Duration, trip: Duration) -> f64 {
        let (since, base) = *self.epoch.get_or_insert_with(|| {
            self.top = self.top.max(window);
            self.reno = window;
            (now, window)
        });
        let back_at = ((self.top - base) / 0.4).cbrt();
        let time = (now - since + trip).as_secs_f64();
        let goal = 0.4 * (time - back_at).powi(3) + self.top;
        let goal = goal.clamp(window, window * 1.5);
        let alpha = if self.reno < self.top { 0.9 / 1.7 } else { 1.0 };
        self.reno += alpha / window;
        (window + (goal - window) / window).max(self.reno)
    }

    fn cut(&mut self, window: f64) -> f64 {
        self.top = if window < self.top {
            window * 0.85
        } else {
            window
        };
        self.epoch = None;
        window * 0.7
    }
}

impl Sender for Tcp {
    fn may_send(&mut self, _: Duration) -> bool {
        self.flight.packets() as f64 + 1.0 <= self.window
    }

    fn send(&mut self, now: Duration, number: u64) -> u64 {
        self.flight.sent(now, number);
        PACKET
    }

    fn acked(&mut self, now: Duration, number: u64) {
        let (sent, lost) = self.flight.acked(now, number);
        let is_new = |at: Duration| self.recovery.is_none_or(|cut| at > cut);
        if lost.last().is_some_and(|at| is_new(*at)) {
            self.cut(now);
        } else if sent.is_some_and(is_new) {
            self.grow(now);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        self.flight.timeout()
    }

    fn on_timeout(&mut self, now: Duration) {
        if !self.flight.give_up(now).is_empty() {
            self.cut(now);
            self.window = 1.0;
        }
    }
}
