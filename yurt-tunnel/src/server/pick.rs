//! The road to an address. Pure.

use yurt_core::name::NodeName;
use yurt_core::transport::{Error, ErrorKind};

use super::dial::{Address, Caller};
use super::nodes::{Found, NodeTable};
use crate::egress::{Destination, Policy};

/// How a connection is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Road {
    /// By the node's agent, wherever it is connected; it is to dial this host.
    Agent {
        /// The node.
        node: NodeName,
        /// What its agent dials.
        host: String,
    },
    /// By a socket of our own, to this host.
    Direct {
        /// A node's address, or what was asked for.
        host: String,
    },
}

/// Returns the road to an address for this caller.
///
/// # Errors
/// [`ErrorKind::Forbidden`] if the caller may not go there, [`ErrorKind::NoPeer`] if several nodes claim it.
pub(super) fn pick(
    caller: &Caller,
    address: &Address,
    nodes: &NodeTable,
    policy: &Policy,
) -> Result<Road, Error> {
    let (destination, road) = match nodes.find(&address.host) {
        Found::Disputed => {
            let message = format!("more than one node claims {}", address.host);
            return Err(Error::new(ErrorKind::NoPeer, message));
        }
        Found::Nobody => {
            let host = address.host.clone();
            (Destination::Elsewhere, Road::Direct { host })
        }
        Found::Node(node) => {
            let (name, kubelet_port) = (&node.name, node.kubelet_port);
            // Who was allowed a node by its name gets that node, wherever a resolver would lead.
            let host = node.dialled(&address.host).to_owned();
            if node.edge {
                let road = Road::Agent {
                    node: name.clone(),
                    host,
                };
                (
                    Destination::Edge {
                        node: name,
                        kubelet_port,
                    },
                    road,
                )
            } else {
                (
                    Destination::Cloud {
                        node: name,
                        kubelet_port,
                    },
                    Road::Direct { host },
                )
            }
        }
    };
    match caller {
        Caller::ApiServer => Ok(road),
        Caller::Client(peer) => match policy.allows(peer, destination, address) {
            Ok(()) => Ok(road),
            Err(denied) => Err(Error::new(ErrorKind::Forbidden, denied.to_string())),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use yurt_core::transport::{Chain, Peer};

    use super::*;
    use crate::egress::{Nodes, Rule};
    use crate::server::nodes::Node;

    fn table() -> NodeTable {
        let node = |name: &str, addresses: &[&str], edge| Node {
            name: name.parse().unwrap(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            edge,
            kubelet_port: 10250,
        };
        NodeTable::new([
            node("edge-1", &["192.0.2.1", "192.0.2.9"], true),
            node("edge-2", &["192.0.2.2", "192.0.2.9"], true),
            node("cloud-1", &["192.0.2.3"], false),
        ])
    }

    fn road(caller: &Caller, to: &str) -> Result<String, ErrorKind> {
        let scraper = Rule {
            users: ["prometheus".to_owned()].into(),
            nodes: Nodes::Every,
            ..Rule::default()
        };
        let policy = Policy {
            clients: vec![scraper],
            ..Policy::default()
        };
        let road = pick(caller, &to.parse().unwrap(), &table(), &policy);
        road.map_err(|error| error.kind()).map(|road| match road {
            Road::Direct { host } => format!("direct to {host}"),
            Road::Agent { node, host } => format!("{node} by {host}"),
        })
    }

    fn client(user: &str) -> Caller {
        Caller::Client(Peer {
            user: user.to_owned(),
            groups: Vec::new(),
            names: Vec::new(),
            expires: SystemTime::UNIX_EPOCH,
            chain: Chain::default(),
        })
    }

    #[test]
    fn the_api_server_goes_everywhere_by_the_road_that_there_is() {
        for (to, by) in [
            ("edge-1:10250", Ok("edge-1 by 192.0.2.1")),
            ("192.0.2.1:10250", Ok("edge-1 by 192.0.2.1")),
            ("edge-1:9100", Ok("edge-1 by 192.0.2.1")),
            ("192.0.2.9:10250", Err(ErrorKind::NoPeer)),
            ("cloud-1:10250", Ok("direct to 192.0.2.3")),
            ("192.0.2.3:10250", Ok("direct to 192.0.2.3")),
            ("10.96.0.10:443", Ok("direct to 10.96.0.10")),
            ("webhook.example:443", Ok("direct to webhook.example")),
        ] {
            assert_eq!(road(&Caller::ApiServer, to), by.map(str::to_owned), "{to}");
        }
    }

    #[test]
    fn a_client_goes_where_a_rule_lets_it_and_nowhere_else() {
        for (user, to, by) in [
            ("prometheus", "edge-1:10250", Ok("edge-1 by 192.0.2.1")),
            ("prometheus", "edge-1:22", Err(ErrorKind::Forbidden)),
            ("prometheus", "cloud-1:10250", Err(ErrorKind::Forbidden)),
            ("prometheus", "10.96.0.10:443", Err(ErrorKind::Forbidden)),
            ("stranger", "edge-1:10250", Err(ErrorKind::Forbidden)),
        ] {
            assert_eq!(
                road(&client(user), to),
                by.map(str::to_owned),
                "{user} to {to}"
            );
        }
    }
}
