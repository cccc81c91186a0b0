//! Which way of connecting has won in which network, so that it has the head start there the next time.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::keep_alive::Patience;

/// Networks that are remembered; a node that travels further forgets the oldest.
const MAX_WINNERS: usize = 64;

/// A network, as far as it can be told from another: where we are in it, and where the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Network {
    pub(super) local: IpAddr,
    pub(super) server: SocketAddr,
}

/// A network and what has won there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Winner {
    #[serde(flatten)]
    network: Network,
    transport: String,
    /// How long links may rest there, by transport.
    #[serde(default)]
    patience: BTreeMap<String, Patience>,
}

/// The latest winner of each network.
#[derive(Clone, Debug, Default)]
pub(super) struct Winners(VecDeque<Winner>);

impl Winners {
    pub(super) fn new(winners: Vec<Winner>) -> Self {
        Self(winners.into_iter().take(MAX_WINNERS).collect())
    }

    pub(super) fn of(&self, network: &Network) -> Option<&str> {
        let winner = self.0.iter().find(|winner| winner.network == *network)?;
        Some(&winner.transport)
    }

    pub(super) fn won(&mut self, network: Network, transport: &str) {
        if self.of(&network) == Some(transport) {
            return;
        }
        let known = self.0.iter().position(|winner| winner.network == network);
        let patience = known.and_then(|at| self.0.remove(at));
        self.0.push_front(Winner {
            network,
            transport: transport.to_owned(),
            patience: patience.map(|winner| winner.patience).unwrap_or_default(),
        });
        self.0.truncate(MAX_WINNERS);
    }

    /// Returns how long links of the winner may rest.
    pub(super) fn patience(&mut self, network: &Network) -> Option<&mut Patience> {
        let mut winners = self.0.iter_mut();
        let winner = winners.find(|winner| winner.network == *network)?;
        Some(winner.patience.entry(winner.transport.clone()).or_default())
    }

    pub(super) fn remember(&self) -> Vec<Winner> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(last: u8) -> Network {
        Network {
            local: [10, 0, 0, last].into(),
            server: ([192, 0, 2, 1], 443).into(),
        }
    }

    #[test]
    fn a_network_remembers_who_won_last() {
        let mut winners = Winners::default();
        winners.won(network(1), "h2");
        winners.won(network(2), "quic");
        winners.won(network(2), "h2");
        winners.won(network(1), "quic");
        let winners = Winners::new(winners.remember());
        assert_eq!(winners.of(&network(1)), Some("quic"));
        assert_eq!(winners.of(&network(2)), Some("h2"));
        assert_eq!(winners.of(&network(3)), None);
    }

    #[test]
    fn the_patience_of_a_network_is_remembered_for_each_transport() {
        let mut winners = Winners::default();
        assert_eq!(winners.patience(&network(1)), None);
        winners.won(network(1), "h2");
        let patience = winners.patience(&network(1)).unwrap();
        patience.lost(std::time::Duration::from_secs(60));
        let learned = patience.clone();
        let text = serde_json::to_string(&winners.remember()).unwrap();
        let mut winners = Winners::new(serde_json::from_str(&text).unwrap());
        winners.won(network(1), "h2");
        assert_eq!(winners.patience(&network(1)), Some(&mut learned.clone()));
        winners.won(network(1), "quic");
        assert_ne!(winners.patience(&network(1)), Some(&mut learned.clone()));
        winners.won(network(1), "h2");
        assert_eq!(winners.patience(&network(1)), Some(&mut learned.clone()));
    }

    #[test]
    fn the_oldest_networks_are_forgotten() {
        let mut winners = Winners::default();
        for last in 0..=64 {
            winners.won(network(last), "h2");
        }
        assert_eq!(winners.remember().len(), MAX_WINNERS);
        assert_eq!(winners.of(&network(0)), None);
        assert_eq!(winners.of(&network(64)), Some("h2"));
    }
}
