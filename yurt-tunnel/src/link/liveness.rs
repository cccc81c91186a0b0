//! Whether the peer lives, and how far away it is.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Config, Role};

/// A timer that is later than this was not late by itself: the whole process stood still.
const STOOD_STILL: Duration = Duration::from_secs(2);

/// The round trip is measured anew after this time even if the peer is heard all the while.
const MEASURE: Duration = Duration::from_secs(30);

/// Pings of which the answer is awaited; beyond, the oldest are forgotten.
const MAX_PINGS: usize = 64;

/// How many round trips are remembered.
const RECENT: usize = 8;

/// Signs of life, and their absence.
#[derive(Debug)]
pub(super) struct Liveness {
    keep_alive: Duration,
    idle: Duration,
    liveness: Duration,
    heard: Duration,
    asked: Option<Duration>,
    /// The first question since the peer was heard.
    unanswered: Option<Duration>,
    next_ping: u64,
    pings: VecDeque<(u64, Duration)>,
    round_trip: Option<Duration>,
    /// The last round trips.
    recent: VecDeque<Duration>,
}

/// Whether somebody waits for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// There is no stream.
    Idle,
    /// There are streams, or somebody wants one.
    Busy,
}

/// What has come due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
    Lost,
}

impl Liveness {
    pub(super) fn new(config: &Config, role: Role, now: Duration) -> Self {
        // The edge asks first, so that its NAT sees a packet from inside and the cloud need not ask.
        let after = |silence: Duration| match role {
            Role::Acceptor => silence,
            Role::Opener => silence.saturating_add(silence / 4),
        };
        Self {
            // Half of the time is left for the answer, whatever was configured.
            keep_alive: after(config.keep_alive).min(config.liveness / 2),
            idle: after(config.idle.max(config.keep_alive)),
            liveness: config.liveness,
            heard: now,
            asked: None,
            unanswered: None,
            next_ping: 0,
            pings: VecDeque::new(),
            round_trip: None,
            recent: VecDeque::new(),
        }
    }

    pub(super) fn heard(&mut self, now: Duration) {
        self.heard = self.heard.max(now);
        self.unanswered = None;
    }

    /// Returns whether nobody knows that the peer lives, or how far it is: to be asked as a link that was idle is used.
    pub(super) fn is_stale(&self, now: Duration) -> bool {
        let is_old = |asked| now >= asked + MEASURE;
        self.unanswered.is_none()
            && (now >= self.heard + self.keep_alive || self.asked.is_none_or(is_old))
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Returns the shortest of the last round trips: what the way takes without what waits on it.
    pub(super) fn shortest(&self) -> Duration {
        self.recent.iter().copied().min().unwrap_or_default()
    }

    pub(super) fn ping(&mut self, now: Duration) -> u64 {
        let number = self.next_ping;
        self.next_ping += 1;
        if self.pings.len() == MAX_PINGS {
            self.pings.pop_front();
        }
        self.pings.push_back((number, now));
        self.asked = Some(now);
        self.unanswered.get_or_insert(now);
        number
    }

    /// Returns the time that an answer took, if it was asked for.
    pub(super) fn pong(&mut self, number: u64, now: Duration) -> Option<Duration> {
        let at = self.pings.iter().position(|(asked, _)| *asked == number)?;
        let (_, asked) = self.pings.remove(at)?;
        let sample = now.saturating_sub(asked);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(sample);
        // The smoothing of RFC 6298.
        self.round_trip = Some(self.round_trip.map_or(sample, |old| (old * 7 + sample) / 8));
        Some(sample)
    }

    pub(super) fn timeout(&self, used: Use) -> Duration {
        let question = self.next_question(used);
        self.lost_at().map_or(question, |lost| lost.min(question))
    }

    pub(super) fn on_timeout(&mut self, now: Duration, used: Use) -> Due {
        if self.asked.is_some() && now > self.timeout(used) + STOOD_STILL {
            // What the peer sent meanwhile may lie unread: it gets the time to be heard.
            let long_ago = now.saturating_sub(self.answer_time());
            self.heard = self.heard.max(long_ago);
            self.unanswered = Some(long_ago);
            return Due::Ping;
        }
        if self.lost_at().is_some_and(|lost| now >= lost) {
            return Due::Lost;
        }
        if now >= self.next_question(used) {
            return Due::Ping;
        }
        Due::Nothing
    }

    /// A peer is lost by its silence to a question alone: nobody asks an idle one often.
    fn lost_at(&self) -> Option<Duration> {
        let asked = self.unanswered?;
        Some((self.heard + self.liveness).max(asked + self.answer_time()))
    }

    fn answer_time(&self) -> Duration {
        self.liveness.saturating_sub(self.keep_alive)
    }

    /// The first question is asked at once: how far the peer is decides how much credit a fast reader gives.
    fn next_question(&self, used: Use) -> Duration {
        let Some(asked) = self.asked else {
            return Duration::ZERO;
        };
        let heard = self.heard.max(asked);
        match used {
            Use::Idle if self.unanswered.is_none() => heard + self.idle,
            Use::Idle => heard + self.keep_alive,
            // A link that is used after a long rest is not late with that.
            Use::Busy => (heard + self.keep_alive).min((asked + MEASURE).max(self.heard)),
        }
    }
}

#[cfg(test)]
mod tests;
