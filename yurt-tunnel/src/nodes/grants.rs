//! Which addresses of Node objects count: a kubelet writes its own, so they lead to its node only as far as the
//! operator grants. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{KUBELET_PORT, Node, host};
use crate::network::{LOCAL, NOBODY, Network};

/// The private ranges, which hold the nodes of most clusters.
const PRIVATE: [Network; 5] = [
    Network::v4(10, 0, 0, 0, 8),
    Network::v4(172, 16, 0, 0, 12),
    Network::v4(192, 168, 0, 0, 16),
    Network::v4(100, 64, 0, 0, 10),
    Network::v6(0xfc00, 0, 7),
];

/// What Node objects may claim. The [default](Self::default) grants the private ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// The networks of nodes.
    pub node_networks: Vec<Network>,
    /// The networks of Services and pods: no address in them is a node's.
    pub service_networks: Vec<Network>,
    /// Names and addresses of the tunnel's servers: none is a node's.
    pub servers: BTreeSet<String>,
}

/// A claim that is ignored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RefusedClaim {
    /// The node whose object makes it.
    pub node: String,
    /// The name or address.
    pub host: String,
    /// Why it is ignored.
    pub reason: ClaimRefusal,
}

/// Why a claim is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimRefusal {
    /// Loopback, link-local, multicast or unspecified.
    #[error("an address that leads to no other host")]
    Local,
    /// An address or a name of Services or pods.
    #[error("an address or a name of a Service")]
    Service,
    /// An address or a name of the tunnel's servers.
    #[error("an address or a name of the tunnel's servers")]
    Server,
    /// An address outside of the node networks.
    #[error("an address outside of the node networks")]
    Outside,
    /// The Node has another kubelet port than 10250.
    #[error("a kubelet port that is not 10250")]
    Port,
    /// An address of an older node, or the name of another.
    #[error("a host of another node")]
    Taken,
}

impl ClaimRefusal {
    /// Every reason, so that each has a number from the start.
    pub(crate) const ALL: [Self; 6] = [
        Self::Local,
        Self::Service,
        Self::Server,
        Self::Outside,
        Self::Port,
        Self::Taken,
    ];

    /// Returns the reason as a label of metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Service => "service",
            Self::Server => "server",
            Self::Outside => "outside",
            Self::Port => "port",
            Self::Taken => "taken",
        }
    }

    /// Whether a node must not be dialled there even when it is asked for by its name.
    pub(super) fn is_never_dialled(self) -> bool {
        match self {
            Self::Local | Self::Service | Self::Server => true,
            Self::Outside | Self::Port | Self::Taken => false,
        }
    }
}

impl Default for Grants {
    fn default() -> Self {
        Self {
            node_networks: PRIVATE.to_vec(),
            service_networks: Vec::new(),
            servers: BTreeSet::new(),
        }
    }
}

impl Grants {
    /// Returns whether a node may have this host, if no other has it.
    pub(super) fn judge(&self, node: &Node, claimed: &str) -> Result<(), ClaimRefusal> {
        let within =
            |networks: &[Network], address| networks.iter().any(|one| one.contains(address));
        let claimed = host(claimed);
        match claimed.parse::<IpAddr>() {
            Ok(address) if within(&LOCAL, address) || within(&NOBODY, address) => {
                return Err(ClaimRefusal::Local);
            }
            Ok(address) if within(&self.service_networks, address) => {
                return Err(ClaimRefusal::Service);
            }
            Err(_) if is_local_name(&claimed) => return Err(ClaimRefusal::Local),
            Err(_) if is_service_name(&claimed) => return Err(ClaimRefusal::Service),
            Ok(_) | Err(_) => {}
        }
        // The node that a server runs on has its address.
        if node.edge && self.servers.iter().any(|server| host(server) == claimed) {
            return Err(ClaimRefusal::Server);
        }
        if let Ok(address) = claimed.parse()
            && !within(&self.node_networks, address)
        {
            return Err(ClaimRefusal::Outside);
        }
        if node.kubelet_port != KUBELET_PORT {
            return Err(ClaimRefusal::Port);
        }
        Ok(())
    }
}

fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

/// As the cluster's DNS has them, with its domain or without.
fn is_service_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.ends_with(".svc") || name.contains(".svc.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants() -> Grants {
        Grants {
            service_networks: vec!["10.96.0.0/12".parse().unwrap()],
            servers: ["tunnel.example", "10.0.0.5"].map(str::to_owned).into(),
            ..Grants::default()
        }
    }

    fn node(edge: bool, kubelet_port: u16) -> Node {
        Node {
            name: "edge-1".parse().unwrap(),
            addresses: Vec::new(),
            edge,
            kubelet_port,
        }
    }

    #[test]
    fn a_claim_counts_within_the_node_networks_and_nowhere_else() {
        use ClaimRefusal::{Local, Outside, Server, Service};
        for (claimed, expected) in [
            ("10.1.2.3", Ok(())),
            ("172.31.0.1", Ok(())),
            ("192.168.1.1", Ok(())),
            ("100.64.0.1", Ok(())),
            ("fd00::7", Ok(())),
            ("::ffff:10.1.2.3", Ok(())),
            ("shop-7", Ok(())),
            ("203.0.113.9", Err(Outside)),
            ("172.32.0.1", Err(Outside)),
            ("2001:db8::1", Err(Outside)),
            ("127.0.0.1", Err(Local)),
            ("::1", Err(Local)),
            ("::ffff:127.0.0.1", Err(Local)),
            ("169.254.169.254", Err(Local)),
            ("fe80::1", Err(Local)),
            ("0.0.0.0", Err(Local)),
            ("::", Err(Local)),
            ("224.0.0.1", Err(Local)),
            ("255.255.255.255", Err(Local)),
            ("ff02::1", Err(Local)),
            ("LocalHost", Err(Local)),
            ("localhost.", Err(Local)),
            ("10.96.0.10", Err(Service)),
            ("::ffff:10.96.0.10", Err(Service)),
            ("webhook.tools.svc", Err(Service)),
            ("Webhook.tools.SVC.cluster.local", Err(Service)),
            ("10.0.0.5", Err(Server)),
            ("::ffff:10.0.0.5", Err(Server)),
            ("Tunnel.example", Err(Server)),
        ] {
            assert_eq!(
                grants().judge(&node(true, 10250), claimed),
                expected,
                "{claimed}"
            );
        }
    }

    #[test]
    fn a_port_is_claimed_too_and_a_server_runs_on_a_node_of_the_cloud() {
        let judge = |edge, port| grants().judge(&node(edge, port), "10.0.0.5");
        assert_eq!(judge(false, 10250), Ok(()));
        assert_eq!(judge(true, 10250), Err(ClaimRefusal::Server));
        // A webhook's pod listens at 9443, an API server at 6443.
        let judge = |port| grants().judge(&node(true, port), "10.1.2.3");
        assert_eq!(judge(9443), Err(ClaimRefusal::Port));
        assert_eq!(judge(6443), Err(ClaimRefusal::Port));
    }

    #[test]
    fn an_operators_networks_replace_the_private_ones() {
        let grants = Grants {
            node_networks: vec!["203.0.113.0/24".parse().unwrap()],
            ..Grants::default()
        };
        let judge = |claimed| grants.judge(&node(true, 10250), claimed);
        assert_eq!(judge("203.0.113.9"), Ok(()));
        assert_eq!(judge("10.1.2.3"), Err(ClaimRefusal::Outside));
    }
}
