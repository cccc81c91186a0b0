//! What this agent dials: by default the kubelet of its own node, and what an operator allows besides.

use std::net::{IpAddr, SocketAddr};

use yurt_core::name::NodeName;

use super::allow::Allow;
use crate::network::{LOCAL, NOBODY};

/// What may be dialled, by whatever the cloud asks for.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) node: NodeName,
    pub(super) kubelet_port: u16,
    pub(super) allow: Vec<Allow>,
}

/// What is asked, when its host is known by address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The host as it was asked for: a name or an address.
    pub(super) host: &'a str,
    /// What it was found to be.
    pub(super) address: SocketAddr,
    /// Whether that address is this node's own.
    pub(super) is_own: bool,
    /// Where the servers are that this agent knows.
    pub(super) servers: &'a [SocketAddr],
}

/// Why something is not dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub(super) enum Forbidden {
    /// The stream is for another node.
    #[error("this agent dials for its own node alone")]
    OtherNode,
    /// The address is of nobody, or of many.
    #[error("nobody can be dialled at such an address")]
    NoHost,
    /// The address belongs to the tunnel's own servers.
    #[error("the tunnel's servers are not dialled through the tunnel")]
    Server,
    /// The address is good for this machine or this wire only.
    #[error("loopback and link-local addresses are not dialled unless they are allowed by number")]
    Local,
    /// No rule allows it.
    #[error("the agent allows the kubelet of its own node, and what --allow names")]
    NotAllowed,
}

impl Policy {
    /// Returns whether a stream for this node, or for whoever has the session, is one of ours.
    pub(super) fn check_node(&self, node: Option<&NodeName>) -> Result<(), Forbidden> {
        if node.is_none_or(|node| *node == self.node) {
            Ok(())
        } else {
            Err(Forbidden::OtherNode)
        }
    }

    /// Returns what is dialled for what a server asks of this very node. Behind a 1:1 NAT the address that the node is
    /// known by is on none of its interfaces: at the kubelet's port it means the kubelet, which is at `own`.
    pub(super) fn meant(
        &self,
        asked: &Asked<'_>,
        own: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<SocketAddr, Forbidden> {
        let is_elsewhere = !asked.is_own && asked.address.port() == self.kubelet_port;
        match self.check(asked) {
            Ok(()) => Ok(asked.address),
            Err(Forbidden::NotAllowed) if is_elsewhere => {
                let own = own().ok_or(Forbidden::NotAllowed)?;
                let address = SocketAddr::new(own, self.kubelet_port);
                let is_own = true;
                let asked = Asked {
                    address,
                    is_own,
                    ..*asked
                };
                self.check(&asked).map(|()| address)
            }
            Err(forbidden) => Err(forbidden),
        }
    }

    /// Returns whether an address may be dialled: the very address that is dialled then, so that a name that
    /// leads elsewhere the next time changes nothing.
    pub(super) fn check(&self, asked: &Asked<'_>) -> Result<(), Forbidden> {
        let address = SocketAddr::new(asked.address.ip().to_canonical(), asked.address.port());
        let (ip, port) = (address.ip(), address.port());
        if port == 0 || NOBODY.iter().any(|network| network.contains(ip)) {
            return Err(Forbidden::NoHost);
        }
        let is_kubelet = asked.is_own && port == self.kubelet_port;
        // A server on this very machine leaves the machine its other ports, and whatever servers tell, the kubelet is
        // none of them.
        let is_server = |server: &SocketAddr| {
            server.ip().to_canonical() == ip && (!asked.is_own || server.port() == port)
        };
        if !is_kubelet && asked.servers.iter().any(is_server) {
            return Err(Forbidden::Server);
        }
        let networks = self.allow.iter().filter_map(|allow| allow.network(port));
        let mut networks = networks.filter(|network| network.contains(ip));
        if let Some(local) = LOCAL.iter().find(|local| local.contains(ip)) {
            // A rule for everything does not mean this machine: it has to say so.
            return match networks.any(|network| network.is_within(local)) {
                true => Ok(()),
                false => Err(Forbidden::Local),
            };
        }
        let is_named = self.allow.iter().any(|allow| allow.names(asked.host, port));
        if is_kubelet || is_named || networks.next().is_some() {
            Ok(())
        } else {
            Err(Forbidden::NotAllowed)
        }
    }
}

impl Forbidden {
    /// Every reason, so that each has a counter from the start.
    pub(super) const ALL: [Self; 5] = [
        Self::OtherNode,
        Self::NoHost,
        Self::Server,
        Self::Local,
        Self::NotAllowed,
    ];

    /// Returns the reason as a label of a metric.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::OtherNode => "other_node",
            Self::NoHost => "no_host",
            Self::Server => "server",
            Self::Local => "local",
            Self::NotAllowed => "not_allowed",
        }
    }
}

/// Returns the address as it is dialled: an IPv4 address in the guise of an IPv6 one as what it is.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "192.0.2.7";
    const SERVER: &str = "203.0.113.1:8443";

    fn policy(allow: &[&str]) -> Policy {
        Policy {
            node: "edge-1".parse().unwrap(),
            kubelet_port: 10250,
            allow: allow.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn check(allow: &[&str], host: &str, address: &str) -> Result<(), Forbidden> {
        let policy = policy(allow);
        let address: SocketAddr = address.parse().unwrap();
        let own = [
            OWN,
            "2001:db8::7",
            "203.0.113.2",
            "203.0.113.3",
            "127.0.0.1",
            "::1",
            "169.254.2.1",
        ];
        policy.check(&Asked {
            host,
            address,
            // What the machine has, as `local` would tell.
            is_own: own.contains(&address.ip().to_canonical().to_string().as_str()),
            servers: &[
                SERVER.parse().unwrap(),
                "203.0.113.2:8443".parse().unwrap(),
                "203.0.113.3:10250".parse().unwrap(),
            ],
        })
    }

    #[test]
    fn by_default_the_nodes_own_kubelet_is_dialled_and_nothing_else() {
        use Forbidden::{Local, NoHost, NotAllowed, Server};
        for (address, expected) in [
            ("192.0.2.7:10250", Ok(())),
            ("[2001:db8::7]:10250", Ok(())),
            ("[::ffff:192.0.2.7]:10250", Ok(())),
            ("192.0.2.7:10255", Err(NotAllowed)),
            ("192.0.2.7:22", Err(NotAllowed)),
            ("192.0.2.8:10250", Err(NotAllowed)),
            ("127.0.0.1:10250", Err(Local)),
            ("127.0.0.2:10250", Err(Local)),
            ("[::1]:10250", Err(Local)),
            ("[::ffff:127.0.0.1]:10250", Err(Local)),
            ("169.254.2.1:10250", Err(Local)),
            ("169.254.169.254:80", Err(Local)),
            ("[fe80::1]:10250", Err(Local)),
            ("[::ffff:169.254.169.254]:80", Err(Local)),
            ("0.0.0.0:10250", Err(NoHost)),
            ("0.1.2.3:10250", Err(NoHost)),
            ("[::]:10250", Err(NoHost)),
            ("[::ffff:0.0.0.0]:10250", Err(NoHost)),
            ("224.0.0.1:10250", Err(NoHost)),
            ("255.255.255.255:10250", Err(NoHost)),
            ("[ff02::1]:10250", Err(NoHost)),
            ("192.0.2.7:0", Err(NoHost)),
            ("203.0.113.1:10250", Err(Server)),
            ("203.0.113.1:8443", Err(Server)),
        ] {
            assert_eq!(check(&[], "host", address), expected, "{address}");
        }
    }

    #[test]
    fn what_is_allowed_is_dialled_besides() {
        use Forbidden::{Local, NoHost, NotAllowed, Server};
        for (allow, host, address, expected) in [
            ("192.0.2.8:9100", "192.0.2.8", "192.0.2.8:9100", Ok(())),
            (
                "192.0.2.8:9100",
                "192.0.2.8",
                "192.0.2.8:9101",
                Err(NotAllowed),
            ),
            ("192.0.2.0/24:*", "192.0.2.8", "192.0.2.8:1", Ok(())),
            (
                "192.0.2.0/24:*",
                "192.0.3.8",
                "192.0.3.8:1",
                Err(NotAllowed),
            ),
            ("plc.example:502", "PLC.example", "192.0.2.8:502", Ok(())),
            (
                "plc.example:502",
                "other.example",
                "192.0.2.8:502",
                Err(NotAllowed),
            ),
            (
                "plc.example:502",
                "192.0.2.8",
                "192.0.2.8:502",
                Err(NotAllowed),
            ),
            // A name that leads to the machine itself, or to nobody.
            ("plc.example:*", "plc.example", "127.0.0.1:502", Err(Local)),
            (
                "plc.example:*",
                "plc.example",
                "169.254.169.254:80",
                Err(Local),
            ),
            ("plc.example:*", "plc.example", "0.0.0.0:502", Err(NoHost)),
            // This machine is meant by a rule that says so, and by no wider one.
            ("127.0.0.1:10248", "127.0.0.1", "127.0.0.1:10248", Ok(())),
            ("127.0.0.0/8:*", "localhost", "127.0.0.1:10248", Ok(())),
            ("0.0.0.0/0:*", "127.0.0.1", "127.0.0.1:10248", Err(Local)),
            ("[::/0]:*", "::1", "[::1]:10248", Err(Local)),
            ("[::1]:10248", "::1", "[::1]:10248", Ok(())),
            ("0.0.0.0/0:*", "198.51.100.1", "198.51.100.1:80", Ok(())),
            ("0.0.0.0/0:*", "0.0.0.0", "0.0.0.0:80", Err(NoHost)),
            // The servers never.
            (
                "0.0.0.0/0:*",
                "203.0.113.1",
                "203.0.113.1:6443",
                Err(Server),
            ),
            (
                "203.0.113.1:6443",
                "203.0.113.1",
                "203.0.113.1:6443",
                Err(Server),
            ),
            ("[::/0]:*", "x", "[::ffff:203.0.113.1]:6443", Err(Server)),
        ] {
            assert_eq!(
                check(&[allow], host, address),
                expected,
                "{allow} {host} {address}"
            );
        }
    }

    #[test]
    fn a_server_on_the_nodes_own_machine_leaves_it_its_kubelet() {
        assert_eq!(check(&[], "host", "203.0.113.2:10250"), Ok(()));
        // Told by a server that means harm.
        assert_eq!(check(&[], "host", "203.0.113.3:10250"), Ok(()));
        let server = check(&["203.0.113.2:*"], "host", "203.0.113.2:8443");
        assert_eq!(server, Err(Forbidden::Server));
    }

    #[test]
    fn the_nodes_address_at_a_nat_means_its_kubelet_and_nothing_else_of_it() {
        const NAT: &str = "203.0.113.9";
        let kubelet = format!("{OWN}:10250");
        for (allow, address, own, expected) in [
            (&[][..], "203.0.113.9:10250", OWN, Ok(kubelet.as_str())),
            (&[], "192.0.2.7:10250", "192.0.2.77", Ok(&kubelet)),
            (&[], "203.0.113.9:22", OWN, Err(Forbidden::NotAllowed)),
            (&[], "127.0.0.1:10250", OWN, Err(Forbidden::Local)),
            (&[], "169.254.169.254:10250", OWN, Err(Forbidden::Local)),
            (&[], "0.0.0.0:10250", OWN, Err(Forbidden::NoHost)),
            (&[], SERVER, OWN, Err(Forbidden::Server)),
            // A server on the node's own machine.
            (&[], "203.0.113.9:10250", "127.0.0.1", Err(Forbidden::Local)),
            // What an operator has allowed is meant as it is said.
            (
                &["203.0.113.9:10250"],
                "203.0.113.9:10250",
                OWN,
                Ok("203.0.113.9:10250"),
            ),
        ] {
            let found = policy(allow).meant(
                &Asked {
                    host: NAT,
                    address: address.parse().unwrap(),
                    is_own: address.starts_with(OWN),
                    servers: &[SERVER.parse().unwrap()],
                },
                || own.parse().ok(),
            );
            let expected = expected.map(|address| address.parse().unwrap());
            assert_eq!(found, expected, "{address} {own}");
        }
    }

    #[test]
    fn a_stream_for_another_node_is_not_ours() {
        let policy = policy(&[]);
        let other: NodeName = "edge-2".parse().unwrap();
        assert_eq!(policy.check_node(Some(&other)), Err(Forbidden::OtherNode));
        assert_eq!(policy.check_node(Some(&policy.node)), Ok(()));
        assert_eq!(policy.check_node(None), Ok(()));
    }
}
