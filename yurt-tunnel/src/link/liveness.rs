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
    liveness: Duration,
    heard: Duration,
    asked: Option<Duration>,
    next_ping: u64,
    pings: VecDeque<(u64, Duration)>,
    round_trip: Option<Duration>,
    /// The last round trips.
    recent: VecDeque<Duration>,
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
        Self {
            // The edge asks first, so that its NAT sees a packet from inside and the cloud need not ask.
            keep_alive: match role {
                Role::Acceptor => config.keep_alive,
                Role::Opener => config.keep_alive + config.keep_alive / 4,
            },
            liveness: config.liveness,
            heard: now,
            asked: None,
            next_ping: 0,
            pings: VecDeque::new(),
            round_trip: None,
            recent: VecDeque::new(),
        }
    }

    pub(super) fn heard(&mut self, now: Duration) {
        self.heard = self.heard.max(now);
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

    pub(super) fn timeout(&self) -> Duration {
        self.next_question().min(self.heard + self.liveness)
    }

    pub(super) fn on_timeout(&mut self, now: Duration) -> Due {
        if self.asked.is_some() && now > self.timeout() + STOOD_STILL {
            // What the peer sent meanwhile may lie unread: it gets the time to be heard.
            self.heard = self
                .heard
                .max(now.saturating_sub(self.liveness - self.keep_alive));
            return Due::Ping;
        }
        if now >= self.heard + self.liveness {
            return Due::Lost;
        }
        if now >= self.next_question() {
            return Due::Ping;
        }
        Due::Nothing
    }

    /// The first question is asked at once: how far the peer is decides how much credit a fast reader gives.
    fn next_question(&self) -> Duration {
        let Some(asked) = self.asked else {
            return Duration::ZERO;
        };
        let silent = self.heard.max(asked) + self.keep_alive;
        silent.min(asked + MEASURE)
    }
}
