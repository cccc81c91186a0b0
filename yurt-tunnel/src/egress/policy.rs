//! Who may use which door, and who may reach what. Pure; nothing is allowed by default.

mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use yurt_core::name::NodeName;
use yurt_core::transport::Peer;

pub use self::file::Mistake;
use crate::dial::Address;

/// The users of certificates that kube-apiserver usually has: kubeadm's for the kubelets, and its own name.
const API_SERVERS: [&str; 2] = ["kube-apiserver", "kube-apiserver-kubelet-client"];

/// Who may reach what. The [default](Self::default) allows kube-apiserver and no client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The users whose certificates make them kube-apiserver at the listener for it.
    pub api_servers: BTreeSet<String>,
    /// What clients of the CONNECT door may reach: what any rule allows.
    pub clients: Vec<Rule>,
}

/// What some clients may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is for, by the common name of the certificate.
    pub users: BTreeSet<String>,
    /// Whom else it is for, by an organization of the certificate.
    pub groups: BTreeSet<String>,
    /// Nodes at the edge, reached through their agents.
    pub nodes: Nodes,
    /// Nodes that the server dials itself.
    pub cloud_nodes: Nodes,
    /// The ports of those nodes.
    pub ports: Ports,
    /// Other `host:port` that the server dials itself, exactly as they are dialled.
    pub direct: BTreeSet<String>,
}

/// A set of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// These.
    Named(BTreeSet<NodeName>),
    /// All that the cluster has.
    Every,
}

/// A set of a node's ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ports {
    /// The kubelet's, wherever it is.
    #[default]
    Kubelet,
    /// These.
    Numbered(BTreeSet<u16>),
    /// All.
    Every,
}

/// What an address leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// A node at the edge, through its agent.
    Edge {
        /// Which.
        node: &'a NodeName,
        /// Where its kubelet listens.
        kubelet_port: u16,
    },
    /// A node that the server dials itself.
    Cloud {
        /// Which.
        node: &'a NodeName,
        /// Where its kubelet listens.
        kubelet_port: u16,
    },
    /// No node: the server dials the address itself.
    Elsewhere,
}

/// Why a client is denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// No rule is for this client.
    #[error("no rule applies to user {user:?}")]
    Client {
        /// Who it is.
        user: String,
    },
    /// No rule for this client allows it.
    #[error("no rule allows user {user:?} to reach {target}")]
    Target {
        /// Who it is.
        user: String,
        /// What it wants.
        target: String,
    },
    /// The certificate is not kube-apiserver's.
    #[error("user {user:?} is not an API server")]
    NotApiServer {
        /// Who it is.
        user: String,
    },
}

// === Policy ===

impl Default for Policy {
    fn default() -> Self {
        Self {
            api_servers: API_SERVERS.map(str::to_owned).into(),
            clients: Vec::new(),
        }
    }
}

impl Policy {
    /// Reads a policy as it stands in a configuration file; the README shows one with every key.
    ///
    /// # Errors
    /// Every mistake in it, each with its place.
    pub fn read(file: &serde_json::Value) -> Result<Self, Vec<Mistake>> {
        file::read(file)
    }

    /// Returns whether a certificate is kube-apiserver's.
    ///
    /// # Errors
    /// [`Denied::NotApiServer`] if it is not.
    pub fn is_api_server(&self, peer: &Peer) -> Result<(), Denied> {
        if self.api_servers.contains(&peer.user) {
            return Ok(());
        }
        let user = peer.user.clone();
        Err(Denied::NotApiServer { user })
    }

    /// Returns whether a client may reach anything at all.
    ///
    /// # Errors
    /// [`Denied::Client`] if not.
    pub fn knows(&self, client: &Peer) -> Result<(), Denied> {
        if self.clients.iter().any(|rule| rule.is_for(client)) {
            return Ok(());
        }
        let user = client.user.clone();
        Err(Denied::Client { user })
    }

    /// Returns whether a client may reach an address that leads to this destination.
    ///
    /// # Errors
    /// [`Denied::Client`] or [`Denied::Target`] if not.
    pub fn allows(
        &self,
        client: &Peer,
        destination: Destination<'_>,
        address: &Address,
    ) -> Result<(), Denied> {
        self.knows(client)?;
        let mut rules = self.clients.iter().filter(|rule| rule.is_for(client));
        if rules.any(|rule| rule.reaches(destination, address)) {
            return Ok(());
        }
        Err(Denied::Target {
            user: client.user.clone(),
            target: destination.named(address),
        })
    }
}

// === Rule, Nodes, Ports ===

impl Rule {
    fn is_for(&self, client: &Peer) -> bool {
        self.users.contains(&client.user)
            || client
                .groups
                .iter()
                .any(|group| self.groups.contains(group))
    }

    fn reaches(&self, destination: Destination<'_>, address: &Address) -> bool {
        match destination {
            Destination::Edge { node, kubelet_port } => {
                self.nodes.has(node) && self.ports.has(address.port, kubelet_port)
            }
            Destination::Cloud { node, kubelet_port } => {
                self.cloud_nodes.has(node) && self.ports.has(address.port, kubelet_port)
            }
            Destination::Elsewhere => self.direct.contains(&address.to_string().to_lowercase()),
        }
    }
}

impl Nodes {
    fn has(&self, node: &NodeName) -> bool {
        match self {
            Self::Named(names) => names.contains(node),
            Self::Every => true,
        }
    }
}

impl Default for Nodes {
    /// None.
    fn default() -> Self {
        Self::Named(BTreeSet::new())
    }
}

impl Ports {
    fn has(&self, port: u16, kubelet_port: u16) -> bool {
        match self {
            Self::Kubelet => port == kubelet_port,
            Self::Numbered(ports) => ports.contains(&port),
            Self::Every => true,
        }
    }
}

impl Destination<'_> {
    fn named(self, address: &Address) -> String {
        let port = address.port;
        match self {
            Self::Edge { node, .. } => format!("port {port} of node {node}"),
            Self::Cloud { node, .. } => {
                format!("port {port} of node {node}, which is not at the edge")
            }
            Self::Elsewhere => format!("{address}, which is no node"),
        }
    }
}
