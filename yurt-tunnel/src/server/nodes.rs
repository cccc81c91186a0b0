//! Which nodes there are, by which names and addresses they go, and which of them are at the edge.
//!
//! This is what the cluster says, or a file of the operator's: an agent proves which node it is by its certificate,
//! and what that node serves it does not get to say.

mod file;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use yurt_core::name::NodeName;

pub use self::file::{InvalidNodes, NodesFile, parse};

/// Where kubelets listen unless their Node says otherwise.
pub const KUBELET_PORT: u16 = 10250;

/// Says which nodes there are, again whenever that changes.
#[async_trait]
pub trait NodeSource: fmt::Debug + Send + Sync + 'static {
    /// Publishes tables until the shutdown; a source that returns before ends the server. What was published stays
    /// when the source cannot be asked.
    ///
    /// # Cancel safety
    /// Dropped, nothing more is published.
    async fn publish(&self, table: watch::Sender<Arc<NodeTable>>, shutdown: CancellationToken);
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    #[serde(with = "name")]
    pub name: NodeName,
    /// Other names and addresses that it goes by; the first address is the one to dial when its name is asked for.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Whether it is reached through its agent, and not directly.
    #[serde(default = "yes")]
    pub edge: bool,
    /// Where its kubelet listens.
    #[serde(default = "kubelet_port", rename = "kubeletPort")]
    pub kubelet_port: u16,
}

/// All nodes, by name and by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeTable {
    nodes: BTreeMap<NodeName, Node>,
    /// Hosts in lower case; those that two nodes claim belong to neither.
    hosts: HashMap<String, Owner>,
}

/// Whose a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    One(NodeName),
    Several,
}

/// What a table knows of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// It is this node's.
    Node(&'a Node),
    /// Several nodes claim it.
    Disputed,
    /// No node claims it.
    Nobody,
}

impl NodeTable {
    /// Returns the table of these nodes; of two with one name the later one counts.
    pub fn new(nodes: impl IntoIterator<Item = Node>) -> Self {
        let nodes: BTreeMap<_, _> = nodes
            .into_iter()
            .map(|node| (node.name.clone(), node))
            .collect();
        let mut hosts: HashMap<String, Owner> = HashMap::new();
        for node in nodes.values() {
            for address in &node.addresses {
                let owner = hosts
                    .entry(host(address))
                    .or_insert_with(|| Owner::One(node.name.clone()));
                if *owner != Owner::One(node.name.clone()) {
                    *owner = Owner::Several;
                }
            }
        }
        // A name is that of the node that has it, whatever others say.
        for name in nodes.keys() {
            hosts.insert(name.as_str().to_owned(), Owner::One(name.clone()));
        }
        Self { nodes, hosts }
    }

    /// Returns whose a host is: a name or an address.
    #[must_use]
    pub fn find(&self, asked: &str) -> Found<'_> {
        match self.hosts.get(&host(asked)) {
            Some(Owner::One(name)) => self.nodes.get(name).map_or(Found::Nobody, Found::Node),
            Some(Owner::Several) => Found::Disputed,
            None => Found::Nobody,
        }
    }

    /// Returns the nodes in the order of their names.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }
}

impl Node {
    /// Returns what to dial for this node when it was asked for as `asked`: an address if there is one.
    #[must_use]
    pub fn dialled<'a>(&'a self, asked: &'a str) -> &'a str {
        if asked.parse::<IpAddr>().is_ok() {
            return asked;
        }
        let mut addresses = self.addresses.iter().map(String::as_str);
        addresses
            .find(|address| address.parse::<IpAddr>().is_ok())
            .unwrap_or(asked)
    }
}

/// A host as it is compared: addresses in one form, names in lower case.
fn host(text: &str) -> String {
    match text.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => text.to_ascii_lowercase(),
    }
}

fn yes() -> bool {
    true
}

fn kubelet_port() -> u16 {
    KUBELET_PORT
}

/// A node's name in a document.
mod name {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use yurt_core::name::NodeName;

    pub(super) fn serialize<S: Serializer>(name: &NodeName, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(name.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NodeName, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, addresses: &[&str]) -> Node {
        Node {
            name: name.parse().unwrap(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            edge: true,
            kubelet_port: KUBELET_PORT,
        }
    }

    fn found(table: &NodeTable, host: &str) -> String {
        match table.find(host) {
            Found::Node(node) => node.name.to_string(),
            Found::Disputed => "disputed".to_owned(),
            Found::Nobody => "nobody".to_owned(),
        }
    }

    #[test]
    fn a_host_is_the_nodes_that_claims_it_alone() {
        let table = NodeTable::new([
            node(
                "one",
                &["192.0.2.1", "shop.example", "2001:db8::1", "192.0.2.9"],
            ),
            node("two", &["192.0.2.2", "192.0.2.9", "one"]),
        ]);
        for (host, owner) in [
            ("one", "one"),
            ("ONE", "one"),
            ("192.0.2.1", "one"),
            ("Shop.Example", "one"),
            ("2001:DB8:0::1", "one"),
            ("::ffff:192.0.2.2", "two"),
            ("192.0.2.9", "disputed"),
            ("192.0.2.3", "nobody"),
            ("", "nobody"),
        ] {
            assert_eq!(found(&table, host), owner, "{host}");
        }
    }

    #[test]
    fn a_name_is_dialled_by_the_nodes_address() {
        let one = node("one", &["shop.example", "192.0.2.1"]);
        assert_eq!(one.dialled("one"), "192.0.2.1");
        assert_eq!(one.dialled("192.0.2.7"), "192.0.2.7");
        assert_eq!(node("one", &[]).dialled("one"), "one");
    }
}
