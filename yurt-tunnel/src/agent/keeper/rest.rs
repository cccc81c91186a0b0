//! How long a link rests between two questions.

use std::time::Duration;

use tokio::time::Instant;

use super::Keeper;
use crate::agent::keep_alive::Patience;

impl Keeper {
    /// Lets the link rest after an answer, as long as the network allows, unless it is in use.
    pub(super) fn rest(&mut self, rested: Option<Duration>) {
        let now = Instant::now();
        let network = self.network();
        let server = self.goal.address;
        let Some(held) = &mut self.current else {
            return;
        };
        let config = &self.shared.config;
        let rest = if held.is_used {
            held.pulse.hasten(config.ping_every, now);
            config.ping_every
        } else {
            let mut winners = self.shared.winners.lock();
            let mut unknown = Patience::default();
            let known = network.and_then(|network| winners.patience(&network));
            let patience = known.unwrap_or(&mut unknown);
            if let Some(rested) = rested {
                let before = patience.clone();
                patience.answered(rested);
                if *patience != before {
                    self.shared.worth_keeping.notify_one();
                }
            }
            let is_udp = self.shared.transports[held.lane].is_udp;
            let part = self.shared.part(server);
            let rest = config.keep_alive.rest(patience, part, is_udp);
            drop(winners);
            held.pulse.rest(rest, now);
            rest
        };
        held.place.answered(now, rest);
    }

    /// A link with streams is asked often.
    pub(super) fn used(&mut self, is_used: bool) {
        let Some(held) = &mut self.current else {
            return;
        };
        if is_used {
            let rest = self.shared.config.ping_every;
            held.pulse.hasten(rest, Instant::now());
        }
    }
}
