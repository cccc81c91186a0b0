//! What a flow of CUBIC that saw the same losses would have on its way (RFC 9438).
//!
//! It gives way to a fifth and not to three tenths: it yields in other ways too, when it looks whether it still
//! has to compete. What it grows by beside Reno is by as much less (RFC 9438, 4.3).

use std::time::Duration;

/// What is left of a window after a cut.
const BETA: f64 = 0.8;

/// How fast the window grows away from where it was cut, in packets per cubic second.
const C: f64 = 0.4;

/// What a round trip adds at least, in packets, so that the mean is that of Reno.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// A window that has been cut, and grows.
#[derive(Clone, Debug)]
pub(super) struct Ceiling {
    window: f64,
    /// Where it was cut, and what it was then.
    top: f64,
    base: f64,
    since: Duration,
    /// What Reno would have.
    reno: f64,
}

impl Ceiling {
    /// Takes a fifth of a window away.
    pub(super) fn cut(window: u64, old: Option<&Self>, now: Duration) -> Self {
        let window = window as f64;
        // One that does not get as far as before leaves some to others: fast convergence.
        let top = match old {
            Some(old) if window < old.top => window * (1.0 + BETA) / 2.0,
            _ => window,
        };
        let base = window * BETA;
        Self {
            window: base,
            top,
            base,
            since: now,
            reno: base,
        }
    }

    /// Begins with a window.
    pub(super) fn at(window: u64, now: Duration) -> Self {
        let window = window as f64;
        Self {
            window,
            top: window,
            base: window,
            since: now,
            reno: window,
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a window is far below what is lost"
    )]
    pub(super) fn window(&self) -> u64 {
        self.window as u64
    }

    /// Whether what becomes of a packet is of the time before.
    pub(super) fn covers(&self, sent: Duration) -> bool {
        sent <= self.since
    }

    /// Grows, as bytes of the whole window have arrived.
    pub(super) fn acked(&mut self, now: Duration, sent: Duration, bytes: u64, packet: u64) {
        if self.covers(sent) {
            return;
        }
        let (bytes, packet) = (bytes as f64, packet as f64);
        let share = bytes / self.window.max(packet);
        let alpha = if self.reno < self.top { ALPHA } else { 1.0 };
        self.reno += alpha * packet * share;
        let time = now.saturating_sub(self.since).as_secs_f64();
        let back_at = ((self.top - self.base).max(0.0) / packet / C).cbrt();
        let cubic = self.top + C * packet * (time - back_at).powi(3);
        let goal = cubic.clamp(self.window, self.window * 1.5);
        self.window = (self.window + (goal - self.window) * share).max(self.reno);
    }
}
