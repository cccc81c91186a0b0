//! The choice of a route to an address. Pure.

use yurt_core::name::NodeName;
use yurt_core::transport::{Error, ErrorKind};

use crate::dial::{Address, Caller};
use crate::egress::{Destination, Policy};
use crate::nodes::{Found, Node, NodeTable};

/// How a connection is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Through the node's agent, whichever server it is connected to.
    Agent {
        /// The node.
        node: NodeName,
        /// The host that the agent dials.
        host: String,
    },
    /// Directly, to this host.
    Direct {
        /// A node's address, or the host of the request.
        host: String,
    },
}

/// Returns the route to an address for this caller.
///
/// # Errors
/// [`ErrorKind::Forbidden`] if the caller may not go there, [`ErrorKind::NoPeer`] if several nodes are listed with it,
/// [`ErrorKind::Overloaded`] before the first list of nodes: an address at the edge may be another host's here.
pub(super) fn pick(
    caller: &Caller,
    address: &Address,
    nodes: &NodeTable,
    policy: &Policy,
) -> Result<Route, Error> {
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
    let elsewhere = || Route::Direct {
        host: address.host.clone(),
    };
    match nodes.find(&address.host) {
        Found::Disputed => {
            let message = format!("several nodes are listed with {}", address.host);
            Err(Error::new(ErrorKind::NoPeer, message))
        }
        Found::Nobody => allowed(Destination::Elsewhere).map(|()| elsewhere()),
        Found::Kubelet(node) if address.port != node.kubelet_port => {
            // A claimed address leads to the kubelet only; its other ports need a rule.
            match (caller, allowed(destination(node))) {
                (Caller::Client(_), Ok(())) => Ok(route(node, address)),
                (Caller::Client(_), Err(denied)) => allowed(Destination::Elsewhere)
                    .map(|()| elsewhere())
                    .map_err(|_| denied),
                (Caller::ApiServer, _) => Ok(elsewhere()),
            }
        }
        Found::Node(node) | Found::Kubelet(node) => {
            allowed(destination(node)).map(|()| route(node, address))
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

/// The route to a node: to its listed address, whatever a resolver would say of its name.
fn route(node: &Node, address: &Address) -> Route {
    let host = node.dialled(&address.host).to_owned();
    if node.edge {
        let node = node.name.clone();
        Route::Agent { node, host }
    } else {
        Route::Direct { host }
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

    fn route(caller: &Caller, to: &str) -> Result<String, ErrorKind> {
        route_in(&NodeTable::new(nodes()), caller, to)
    }

    /// The route where the nodes have claimed their hosts themselves.
    fn claimed_route(caller: &Caller, to: &str) -> Result<String, ErrorKind> {
        let grants = Grants {
            node_networks: vec!["192.0.2.0/24".parse().unwrap()],
            ..Grants::default()
        };
        route_in(&NodeTable::claimed(nodes(), &grants), caller, to)
    }

    fn route_in(nodes: &NodeTable, caller: &Caller, to: &str) -> Result<String, ErrorKind> {
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
        let route = pick(caller, &to.parse().unwrap(), nodes, &policy);
        route
            .map_err(|error| error.kind())
            .map(|route| match route {
                Route::Direct { host } => format!("direct to {host}"),
                Route::Agent { node, host } => format!("{node} by {host}"),
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
            assert_eq!(route(&Caller::ApiServer, to), by.map(str::to_owned), "{to}");
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
                route(&client(user), to),
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
            let route = claimed_route(&Caller::ApiServer, to);
            assert_eq!(route.as_deref(), Ok(by), "{to}");
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
            let route = claimed_route(&client(user), to);
            assert_eq!(route, by.map(str::to_owned), "{user} to {to}");
        }
    }

    #[test]
    fn nobody_is_dialled_before_the_first_list_of_nodes() {
        for to in ["edge-1:10250", "192.0.2.1:10250", "10.96.0.10:443"] {
            for caller in [Caller::ApiServer, client("prometheus")] {
                let route = route_in(&NodeTable::default(), &caller, to);
                assert_eq!(route, Err(ErrorKind::Overloaded), "{to}");
            }
        }
        let none = route_in(&NodeTable::new([]), &Caller::ApiServer, "10.96.0.10:443");
        assert_eq!(
            none.as_deref(),
            Ok("direct to 10.96.0.10"),
            "a list of none is a list"
        );
    }
}
