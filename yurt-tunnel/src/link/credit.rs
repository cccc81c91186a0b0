//! How many bytes a peer may send: per stream as many as its reader has room for, in all as many as there is.
//!
//! A stream begins with a small window. One that is read as fast as it arrives gets a larger one, from a budget
//! that the session's streams share; one that nobody reads keeps what it has, so that it costs that and no more. Who
//! has not used a large window for a while gives it back, for others to grow by.

use std::time::Duration;

use yurt_core::transport::{Error, ErrorKind};

use super::Config;

/// A window that was read within this time is too small for its reader, whatever the round trip.
const QUICK: Duration = Duration::from_millis(10);

/// What all windows of a session may still grow by.
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
    initial: u64,
    max: u64,
}

/// The direction in which a peer sends.
#[derive(Debug)]
pub(super) struct Inflow {
    read: u64,
    limit: u64,
    window: u64,
    granted: Duration,
}

impl Budget {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            left: config.budget,
            initial: config.window,
            max: config.max_window.max(config.window),
        }
    }

    /// Takes back what a stream's window had grown by.
    pub(super) fn give_back(&mut self, window: u64) {
        self.left += window.saturating_sub(self.initial);
    }

    /// Returns the double of a window, or what there is.
    fn grown(&mut self, window: u64) -> u64 {
        let wanted = window
            .saturating_mul(2)
            .min(self.max)
            .saturating_sub(window);
        let more = wanted.min(self.left);
        self.left -= more;
        window + more
    }
}

impl Inflow {
    pub(super) fn new(window: u64) -> Self {
        Self {
            read: 0,
            limit: window,
            window,
            granted: Duration::ZERO,
        }
    }

    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// What the peer may still send.
    pub(super) fn exposure(&self) -> u64 {
        self.limit - self.read
    }

    /// Takes a limit back that the peer keeps to from now on; another one than that of now is on its way to it.
    pub(super) fn released(&mut self, from: u64, to: u64, budget: &mut Budget) {
        if from != self.limit || !(self.read..from).contains(&to) {
            return;
        }
        self.limit = to;
        // What was sent and not read is still held.
        let window = self.exposure().max(budget.initial).min(self.window);
        budget.left += self.window - window;
        self.window = window;
    }

    /// Takes the end of what the peer sends.
    pub(super) fn ended(&mut self, budget: &mut Budget) {
        self.limit = self.read;
        budget.give_back(self.window);
        self.window = self.window.min(budget.initial);
    }

    /// Takes bytes that were read; returns a new limit when half of the window is used up.
    pub(super) fn received(
        &mut self,
        bytes: u64,
        now: Duration,
        round_trip: Duration,
        budget: &mut Budget,
    ) -> Result<Option<u64>, Error> {
        self.read = self.read.saturating_add(bytes);
        if self.read > self.limit {
            let message = "the peer sent more than it had credit for";
            return Err(Error::new(ErrorKind::Protocol, message));
        }
        if self.exposure() > self.window / 2 {
            return Ok(None);
        }
        // Half a window in less than two of the shortest round trips: the sender waits for credit more than it sends.
        // Much more than a way holds is not given, as it would only wait in a queue before somebody else's.
        if now.saturating_sub(self.granted) < QUICK.max(round_trip * 2) {
            self.window = budget.grown(self.window);
        }
        self.granted = now;
        self.limit = self.read + self.window;
        Ok(Some(self.limit))
    }
}
