//! How many bytes a peer may send: per stream as many as its reader has room for, in all as many as there is.
//!
//! A stream begins with a small window. One that is read as fast as it arrives gets a larger one, from a budget that
//! all sessions share; one that nobody reads keeps what it has, so that it costs that and no more. Who has not used a
//! large window for a while gives it back, and so does, as it is read, a stream of a session that has too much. The
//! first window is every stream's own: none ever stops for want of budget.

use std::time::Duration;

use yurt_core::transport::{Error, ErrorKind};

use super::Config;
use super::buffers::Held;

/// A window that was read within this time is too small for its reader, whatever the round trip.
const QUICK: Duration = Duration::from_millis(10);

/// What the windows of a session have grown by.
#[derive(Debug)]
pub(super) struct Budget {
    held: Held,
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
            held: config.buffers.hold(),
            initial: config.window,
            max: config.max_window.max(config.window),
        }
    }

    /// Takes back what a stream's window had grown by.
    pub(super) fn give_back(&mut self, window: u64) {
        self.held.give_back(window.saturating_sub(self.initial));
    }

    /// Returns the double of a window, or what there is.
    fn grown(&mut self, window: u64) -> u64 {
        let wanted = window
            .saturating_mul(2)
            .min(self.max)
            .saturating_sub(window);
        window + self.held.take(wanted)
    }

    /// Returns a window as it is to be from now on: half of it where the session has too much, the double for a quick
    /// reader.
    fn adjusted(&mut self, window: u64, is_quick: bool) -> u64 {
        if self.held.is_too_much() {
            let less = (window / 2).max(self.initial).min(window);
            self.held.give_back(window - less);
            return less;
        }
        match is_quick {
            true => self.grown(window),
            false => window,
        }
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

    #[cfg(test)]
    pub(super) fn read(&self) -> u64 {
        self.read
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
        budget.held.give_back(self.window - window);
        self.window = window;
    }

    /// Takes the end of what the peer sends.
    pub(super) fn ended(&mut self, budget: &mut Budget) {
        self.limit = self.read;
        budget.give_back(self.window);
        self.window = self.window.min(budget.initial);
    }

    /// Takes bytes that were read; returns a higher limit when half of the window is used up.
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
        let is_quick = now.saturating_sub(self.granted) < QUICK.max(round_trip * 2);
        self.window = budget.adjusted(self.window, is_quick);
        self.granted = now;
        let limit = self.read.saturating_add(self.window);
        // The same again would raise a peer that has just given some of it back.
        if limit <= self.limit {
            return Ok(None);
        }
        self.limit = limit;
        Ok(Some(limit))
    }
}
