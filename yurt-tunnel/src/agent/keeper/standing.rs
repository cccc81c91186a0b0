//! How the link stands with its server: what follows from a failed attempt, a state, an answer, a silence, a move.

use std::time::Duration;

use tokio::time::Instant;
use yurt_core::error::Chain;
use yurt_core::transport::{Error, ErrorKind, State};

use super::Keeper;
use crate::agent::Standing;
use crate::agent::keep_alive::SHORTEST;
use crate::agent::pulse::Beat;
use crate::agent::want::Reason;

/// A session that stood for this long is no failure when it ends.
const STOOD: Duration = Duration::from_secs(10);

/// A preferred way that has carried a session for this long is trusted again.
const PROVEN: Duration = Duration::from_secs(5 * 60);

impl Keeper {
    pub(super) fn failed(&mut self, reason: Reason, error: &Error) {
        let now = Instant::now();
        let server = self.goal.address;
        let probe_at = (reason == Reason::Preferred).then(|| self.probe_at(now));
        if !matches!(reason, Reason::Preferred | Reason::Poor) {
            // It is the server that is away.
            self.too_long = None;
        }
        match (reason, &mut self.current) {
            (Reason::Poor, Some(held)) => {
                held.is_poor = false;
                held.quality
                    .rest_until(now + self.shared.config.probe_every);
                tracing::debug!(%server, error = Chain(error).to_string(), "no other way is open");
            }
            (Reason::Preferred, Some(held)) => {
                held.probe_at = probe_at;
                tracing::debug!(%server, error = Chain(error).to_string(), "the preferred way is still closed");
            }
            (
                Reason::Preferred
                | Reason::Missing
                | Reason::Silent
                | Reason::Poor
                | Reason::Renewal,
                _,
            ) => {
                self.pause(now);
                self.forgive();
                tracing::warn!(%server, ?reason, error = Chain(error).to_string(), "the server cannot be reached");
            }
        }
        // One that is silent and cannot be reached anew is as good as none.
        if self.current.is_none() || reason == Reason::Silent {
            self.stand(Standing::Away);
            self.shared.resolve_now.notify_one();
        }
    }

    pub(super) fn changed(&mut self, state: &State) {
        let now = Instant::now();
        let server = self.goal.address;
        let Some(held) = &self.current else { return };
        if now - held.since >= STOOD {
            self.backoff.reset();
            self.distrusted = None;
        }
        match state {
            State::Open => return,
            State::Draining => {
                tracing::info!(%server, "the server takes no new streams");
                self.leave();
            }
            State::Closed { kind, reason } => {
                tracing::warn!(%server, ?kind, reason, "the session has ended");
                let (lane, is_soon) = (held.lane, now - held.since < STOOD);
                // Over UDP nobody but the peer can say that a session is over: its words have passed the NAT.
                let is_said = self.shared.transports[lane].is_udp && *kind != ErrorKind::Timeout;
                let rested = held.pulse.doubted().filter(|_| !is_said);
                self.too_long = rested.map(|rested| (lane, rested));
                self.current = None;
                if is_soon {
                    match self.distrusted {
                        // Neither lane carries: it is the server that ends sessions.
                        Some(other) if other != lane => self.forgive(),
                        _ => self.distrust(lane),
                    }
                }
            }
        }
        if matches!(self.attempt, Some((Reason::Preferred | Reason::Poor, _))) {
            self.attempt = None;
        }
        self.pause(now);
        self.stand(Standing::Away);
    }

    pub(super) fn heard(&mut self, beat: Beat) {
        let now = Instant::now();
        let server = self.goal.address;
        let Some(held) = &mut self.current else {
            return;
        };
        let lane = held.lane;
        match beat {
            Beat::Answered(rested) => {
                let has_moved = std::mem::take(&mut held.has_moved);
                let was_poor = held.is_poor;
                held.is_poor |= held.quality.is_poor(&held.session.stats(), now);
                let is_poor = held.is_poor;
                if now - held.since >= PROVEN && lane == 0 {
                    self.disappointments = 0;
                }
                self.too_long = None;
                // A session that has moved along belongs to another network now.
                if has_moved && self.shared.transports[lane].is_udp {
                    self.won(lane);
                }
                self.rest(rested);
                self.stand(Standing::Up);
                // It lives: nothing else is needed.
                if matches!(self.attempt, Some((Reason::Silent, _))) {
                    self.attempt = None;
                }
                if !is_poor && self.distrusted == Some(lane) {
                    self.forgive();
                }
                if is_poor && !was_poor {
                    tracing::info!(%server, "the path loses most of what is sent");
                    self.distrust(lane);
                }
            }
            Beat::Silent => {
                held.place.silent();
                let rested = held.pulse.doubted();
                self.too_long = rested.map(|rested| (lane, rested));
                tracing::info!(%server, "the server does not answer");
                // A session that is needed goes before one that is preferred.
                if matches!(self.attempt, Some((Reason::Preferred, _))) {
                    self.attempt = None;
                }
                // Who has moved may only have to be found again, and who rested may only be forgotten by a NAT.
                let is_forgotten = rested.is_some_and(|rested| rested > SHORTEST);
                if !held.has_moved && !is_forgotten {
                    self.distrust(lane);
                }
            }
        }
    }

    /// A session on another address than before may be dead, or may have moved along: that is asked at once.
    pub(super) fn network_changed(&mut self) {
        let now = Instant::now();
        let local = (self.shared.config.address_towards)(self.goal.address).ok();
        // The kernel tells of each pod and each scan of the air, too.
        if std::mem::replace(&mut self.local, local) == local {
            return;
        }
        self.probes.reset();
        self.disappointments = 0;
        self.distrusted = None;
        self.too_long = None;
        let Some(held) = &mut self.current else {
            // A link that came back ends the pause.
            self.backoff.reset();
            let soon = now + self.backoff.next_delay(fastrand::f64());
            self.retry_at = self.retry_at.min(soon);
            return;
        };
        held.has_moved = true;
        held.pulse.urge(self.shared.config.moved_patience, now);
        held.probe_at = held.probe_at.map(|_| now);
        self.retry_at = now;
    }

    pub(super) fn stand(&self, standing: Standing) {
        if standing == Standing::Away {
            self.shared.is_away(self.goal.address);
        }
        self.shared.stand(self.goal.address, standing);
    }
}
