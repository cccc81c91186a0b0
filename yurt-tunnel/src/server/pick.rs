//! The road to an address. Pure.

use yurt_core::name::NodeName;
use yurt_core::transport::{Error, ErrorKind};

use crate::dial::{Address, Caller};
use crate::egress::{Destination, Policy};
use crate::nodes::{Found, Node, NodeTable};

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
/// [`ErrorKind::Forbidden`] if the caller may not go there, [`ErrorKind::NoPeer`] if several nodes are listed with it,
/// [`ErrorKind::Overloaded`] before the first list of nodes: an address at the edge may be another host's here.
pub(super) fn pick(
    caller: &Caller,
    address: &Address,
    nodes: &NodeTable,
    policy: &Policy,
) -> Result<Road, Error> {
    if !nodes.is_known() {
        let message = "the nodes are not known yet";
        return Err(Error::new(ErrorKind::Overloaded, message));
    }
    let allowed = |destination| match caller {
        Caller::ApiServer => Ok(()),
        Caller::Client(peer) => policy
            .allows(peer, destination, address)
            .map_err(|denied| Error::new(ErrorKind::Forbidden, denied.to_string())),
    };
    let elsewhere = || Road::Direct {
        host: address.host.clone(),
    };
    match nodes.find(&address.host) {
        Found::Disputed => {
            let message = format!("more than one node is listed with {}", address.host);
            Err(Error::new(ErrorKind::NoPeer, message))
        }
        Found::Nobody => allowed(Destination::Elsewhere).map(|()| elsewhere()),
        Found::Kubelet(node) if address.port != node.kubelet_port => {
            // The claim of an address is good for the kubelet; what else is there takes a rule that says so.
            match (caller, allowed(destination(node))) {
                (Caller::Client(_), Ok(())) => Ok(road(node, address)),
                (Caller::Client(_), Err(denied)) => allowed(Destination::Elsewhere)
                    .map(|()| elsewhere())
                    .map_err(|_| denied),
                (Caller::ApiServer, _) => Ok(elsewhere()),
            }
        }
        Found::Node(node) | Found::Kubelet(node) => {
            allowed(destination(node)).map(|()| road(node, address))
        }
    }
}

fn destination(node: &Node) -> Destination<'_> {
    let (name, kubelet_port) = (&node.name, node.kubelet_port);
    if node.edge {
        Destination::Edge {
            node: name,
            kubelet_port,
        }
    } else {
        Destination::Cloud {
            node: name,
            kubelet_port,
        }
    }
}

/// Who was allowed a node by its name gets that node, wherever a resolver would lead.
fn road(node: &Node, address: &Address) -> Road {
    let host = node.dialled(&address.host).to_owned();
    if node.edge {
        let node = node.name.clone();
        Road::Agent { node, host }
    } else {
        Road::Direct { host }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use yurt_core::transport::{Chain, Peer};

    use super::*;
    use crate::egress::{Nodes, Ports, Rule};
    use crate::nodes::Grants;

    fn nodes() -> [Node; 3] {
        let node = |name: &str, addresses: &[&str], edge| Node {
            name: name.parse().unwrap(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            edge,
            kubelet_port: 10250,
        };
        [
            node("edge-1", &["192.0.2.1", "192.0.2.9"], true),
            node("edge-2", &["192.0.2.2", "192.0.2.9"], true),
            node("cloud-1", &["192.0.2.3"], false),
        ]
    }

    fn road(caller: &Caller, to: &str) -> Result<String, ErrorKind> {
        road_in(&NodeTable::new(nodes()), caller, to)
    }

    /// The road where the nodes have claimed their hosts themselves.
    fn claimed_road(caller: &Caller, to: &str) -> Result<String, ErrorKind> {
        let grants = Grants {
            node_networks: vec!["192.0.2.0/24".parse().unwrap()],
            ..Grants::default()
        };
        road_in(&NodeTable::claimed(nodes(), &grants), caller, to)
    }

    fn road_in(nodes: &NodeTable, caller: &Caller, to: &str) -> Result<String, ErrorKind> {
        let scraper = Rule {
            users: ["prometheus".to_owned()].into(),
            nodes: Nodes::Every,
            ..Rule::default()
        };
        let other = Rule {
            users: ["exporter".to_owned()].into(),
            nodes: Nodes::Every,
            ports: Ports::Numbered([9100].into()),
            direct: ["192.0.2.1:8443".to_owned()].into(),
            ..Rule::default()
        };
        let policy = Policy {
            clients: vec![scraper, other],
            ..Policy::default()
        };
        let road = pick(caller, &to.parse().unwrap(), nodes, &policy);
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

    #[test]
    fn an_address_that_a_node_claims_leads_the_api_server_to_its_kubelet_and_nowhere_else() {
        for (to, by) in [
            ("192.0.2.1:10250", "edge-1 by 192.0.2.1"),
            ("192.0.2.9:10250", "edge-1 by 192.0.2.9"),
            ("192.0.2.2:10250", "edge-2 by 192.0.2.2"),
            ("192.0.2.3:10250", "direct to 192.0.2.3"),
            ("192.0.2.1:443", "direct to 192.0.2.1"),
            ("192.0.2.1:9100", "direct to 192.0.2.1"),
            ("edge-1:9100", "edge-1 by 192.0.2.1"),
        ] {
            let road = claimed_road(&Caller::ApiServer, to);
            assert_eq!(road.as_deref(), Ok(by), "{to}");
        }
    }

    #[test]
    fn a_client_reaches_other_ports_of_a_claimed_address_by_a_rule() {
        for (user, to, by) in [
            ("exporter", "192.0.2.1:9100", Ok("edge-1 by 192.0.2.1")),
            ("exporter", "192.0.2.1:8443", Ok("direct to 192.0.2.1")),
            ("exporter", "192.0.2.1:22", Err(ErrorKind::Forbidden)),
            ("prometheus", "192.0.2.1:10250", Ok("edge-1 by 192.0.2.1")),
            ("prometheus", "192.0.2.1:9100", Err(ErrorKind::Forbidden)),
        ] {
            let road = claimed_road(&client(user), to);
            assert_eq!(road, by.map(str::to_owned), "{user} to {to}");
        }
    }

    #[test]
    fn nobody_is_dialled_before_the_first_list_of_nodes() {
        for to in ["edge-1:10250", "192.0.2.1:10250", "10.96.0.10:443"] {
            for caller in [Caller::ApiServer, client("prometheus")] {
                let road = road_in(&NodeTable::default(), &caller, to);
                assert_eq!(road, Err(ErrorKind::Overloaded), "{to}");
            }
        }
        let none = road_in(&NodeTable::new([]), &Caller::ApiServer, "10.96.0.10:443");
        assert_eq!(
            none.as_deref(),
            Ok("direct to 10.96.0.10"),
            "a list of none is a list"
        );
    }
}
