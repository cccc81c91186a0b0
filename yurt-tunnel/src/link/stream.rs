//! One stream, seen from one end.

use std::time::Duration;

use yurt_core::transport::{Error, Priority};

use super::Config;
use super::credit::{Budget, Inflow};
use super::meter::Meter;

/// How far a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its opener waits for a place.
    Waiting,
    /// Its opener waits for the answer.
    Asked,
    /// Its acceptor has not answered.
    Offered,
    /// Bytes may flow.
    Open,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    phase: Phase,
    deadline: Option<Duration>,
    sent: u64,
    limit: u64,
    /// When credit was asked for, or used, last.
    used: Duration,
    finished: bool,
    /// The peer has read the end.
    end_read: bool,
    ended: bool,
    /// The peer has reset it before its acceptance arrived.
    reset: Option<u16>,
    inflow: Inflow,
    meter: Meter,
}

impl Stream {
    /// A stream that this end opens.
    pub(super) fn asked(
        deadline: Duration,
        priority: Priority,
        limit: u64,
        config: &Config,
    ) -> Self {
        let deadline = Some(deadline);
        Self::new(Phase::Waiting, deadline, priority, limit, config)
    }

    /// A stream that the peer opens.
    pub(super) fn offered(priority: Priority, limit: u64, config: &Config) -> Self {
        Self::new(Phase::Offered, None, priority, limit, config)
    }

    fn new(
        phase: Phase,
        deadline: Option<Duration>,
        priority: Priority,
        limit: u64,
        config: &Config,
    ) -> Self {
        Self {
            phase,
            deadline,
            sent: 0,
            limit,
            used: Duration::ZERO,
            finished: false,
            end_read: false,
            ended: false,
            reset: None,
            inflow: Inflow::new(config.window),
            meter: Meter::new(priority),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// When its opener no longer waits.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    pub(super) fn place(&mut self) {
        self.phase = Phase::Asked;
    }

    /// Lets bytes flow; returns the deadline that no longer counts.
    pub(super) fn open(&mut self) -> Option<Duration> {
        self.phase = Phase::Open;
        self.deadline.take()
    }

    pub(super) fn reset(&mut self, code: u16) {
        self.reset = Some(code);
    }

    pub(super) fn take_reset(&mut self) -> Option<u16> {
        self.reset.take()
    }

    pub(super) fn credit(&self) -> u64 {
        if self.finished {
            return 0;
        }
        self.limit.saturating_sub(self.sent)
    }

    pub(super) fn use_credit(&mut self, now: Duration) -> u64 {
        self.used = now;
        self.credit()
    }

    pub(super) fn sent(&mut self, bytes: u64, now: Duration) {
        self.used = now;
        self.sent = self.sent.saturating_add(bytes);
        debug_assert!(self.sent <= self.limit, "no byte without credit");
    }

    /// Takes a limit of the peer's; returns whether somebody may have waited for it.
    pub(super) fn raise(&mut self, limit: u64) -> bool {
        let had_none = self.credit() == 0;
        self.limit = self.limit.max(limit);
        had_none && self.credit() > 0
    }

    /// Whether the peer holds more for the stream than it does for one that has just begun.
    pub(super) fn has_grown(&self, window: u64) -> bool {
        self.credit() > window
    }

    /// Gives back what was not used since a time, beyond a window; returns the limit so far and that from now on.
    pub(super) fn release(&mut self, window: u64, since: Duration) -> Option<(u64, u64)> {
        if self.used > since || !self.has_grown(window) {
            return None;
        }
        let from = self.limit;
        self.limit = self.sent + window;
        Some((from, self.limit))
    }

    pub(super) fn released(&mut self, from: u64, to: u64, budget: &mut Budget) {
        self.inflow.released(from, to, budget);
    }

    pub(super) fn received(
        &mut self,
        bytes: u64,
        now: Duration,
        round_trip: Duration,
        budget: &mut Budget,
    ) -> Result<Option<u64>, Error> {
        self.inflow.received(bytes, now, round_trip, budget)
    }

    pub(super) fn meter(
        &mut self,
        bytes: u64,
        now: Duration,
        pace: Option<u64>,
    ) -> Option<Priority> {
        self.meter.count(bytes, now, pace)
    }

    pub(super) fn finished(&mut self) {
        self.finished = true;
    }

    pub(super) fn end_read(&mut self) {
        self.end_read = true;
    }

    pub(super) fn is_end_read(&self) -> bool {
        self.end_read
    }

    pub(super) fn ended(&mut self, budget: &mut Budget) {
        self.ended = true;
        self.inflow.ended(budget);
    }

    pub(super) fn is_over(&self) -> bool {
        self.finished && self.ended
    }

    pub(super) fn window(&self) -> u64 {
        self.inflow.window()
    }

    pub(super) fn exposure(&self) -> u64 {
        if self.phase != Phase::Open || self.ended {
            return 0;
        }
        self.inflow.exposure()
    }
}
