//! By which lane a link is made: the winner of this network first, one that has disappointed last.

use std::time::Duration;

use tokio::time::Instant;

use super::Keeper;
use crate::agent::race::{self, Race};
use crate::agent::want::Reason;
use crate::agent::winners::Network;

/// How long one way of connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long the others are ahead of a way that is distrusted: three round trips of TCP and TLS, far away.
const DISTRUST: Duration = Duration::from_secs(3);

impl Keeper {
    pub(super) fn connect(&mut self, reason: Reason) {
        let lanes = match reason {
            Reason::Preferred => vec![0],
            Reason::Poor => self.others(),
            Reason::Missing | Reason::Silent | Reason::Renewal => self.lanes(),
        };
        let head_start = match self.distrusted {
            Some(_) => self.shared.config.head_start.max(DISTRUST),
            None => self.shared.config.head_start,
        };
        let race = Race::new(lanes, head_start, Instant::now());
        let shared = self.shared.clone();
        let transport = move |lane: usize| shared.transports[lane].transport.clone();
        let attempt = race::run(race, self.goal.clone(), CONNECT_LIMIT, transport);
        self.attempt = Some((reason, Box::pin(attempt)));
    }

    /// Returns the lanes in the order in which they start: the winner of this network first.
    fn lanes(&self) -> Vec<usize> {
        let transports = &self.shared.transports;
        let mut lanes: Vec<usize> = (0..transports.len()).collect();
        if let Some(network) = self.network() {
            let winners = self.shared.winners.lock();
            let winner = winners.of(&network);
            lanes.sort_by_key(|&lane| winner != Some(transports[lane].name));
        }
        lanes.sort_by_key(|lane| self.distrusted == Some(*lane));
        lanes
    }

    /// Returns the lanes without that of the current session.
    pub(super) fn others(&self) -> Vec<usize> {
        let current = self.current.as_ref().map(|held| held.lane);
        let mut lanes = self.lanes();
        lanes.retain(|lane| current != Some(*lane));
        lanes
    }

    /// A lane carries handshakes, and not what comes after.
    pub(super) fn distrust(&mut self, lane: usize) {
        if self.shared.transports.len() > 1 {
            self.distrusted = Some(lane);
            if lane == 0 {
                self.disappointments += 1;
            }
        }
    }

    /// It was not the lane: it carries again, or the others carry nothing either.
    pub(super) fn forgive(&mut self) {
        if self.distrusted.take() == Some(0) {
            self.disappointments = self.disappointments.saturating_sub(1);
        }
    }

    /// Returns when to try the preferred way again: later and later, while it is closed or has disappointed each time.
    pub(super) fn probe_at(&mut self, now: Instant) -> Instant {
        let factor = 1_u32.checked_shl(self.disappointments).unwrap_or(u32::MAX);
        let first = self.shared.config.probe_every.saturating_mul(factor);
        now + self.probes.next_pause(first, fastrand::f64())
    }

    pub(super) fn network(&self) -> Option<Network> {
        let server = self.goal.address;
        let local = (self.shared.config.address_towards)(server).ok()?;
        Some(Network { local, server })
    }

    /// Notes which lane works in this network, and that it did not allow the rest of the session before, if that was of
    /// the same lane.
    pub(super) fn won(&mut self, lane: usize) {
        let Some(network) = self.network() else {
            return;
        };
        let mut winners = self.shared.winners.lock();
        winners.won(network, self.shared.transports[lane].name);
        let too_long = self.too_long.take().filter(|(of, _)| *of == lane);
        if let (Some((_, rested)), Some(patience)) = (too_long, winners.patience(&network)) {
            tracing::debug!(server = %self.goal.address, ?rested, "the network has forgotten a link that rested");
            patience.lost(rested);
        }
        drop(winners);
        self.shared.worth_keeping.notify_one();
    }
}
