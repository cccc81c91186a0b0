//! The table of nodes: their names and addresses, and which of them are at the edge.
//!
//! It comes from a file of the operator, or from the cluster's Node objects within what the operator grants. An agent
//! proves by its certificate which node it is; it has no say in the addresses of that node.

mod file;
mod grants;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use yurt_core::name::NodeName;

pub use self::file::{InvalidNodes, NodesFile, parse};
pub use self::grants::{ClaimRefusal, Grants, RefusedClaim};
pub use crate::network::{InvalidNetwork, Network};

/// Where kubelets listen unless their Node says otherwise.
pub const KUBELET_PORT: u16 = 10250;

/// Publishes the table of nodes whenever it changes.
#[async_trait]
pub trait NodeSource: fmt::Debug + Send + Sync + 'static {
    /// Publishes tables until the shutdown; returning earlier ends the server. While the source is not reachable the
    /// last table stays.
    ///
    /// # Cancel safety
    /// Dropped, nothing more is published.
    async fn publish(&self, table: watch::Sender<Arc<NodeTable>>, shutdown: CancellationToken);
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The node's name.
    #[serde(with = "name")]
    pub name: NodeName,
    /// Its other names and addresses; the first address is dialled for its name.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Whether it is reached through its agent, not directly.
    #[serde(default = "yes")]
    pub edge: bool,
    /// The port of its kubelet.
    #[serde(default = "kubelet_port", rename = "kubeletPort")]
    pub kubelet_port: u16,
}

/// All nodes, by name and by address. The [default](Self::default) stands for no list yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeTable {
    nodes: BTreeMap<NodeName, Node>,
    /// Hosts in lower case.
    hosts: HashMap<String, Owner>,
    refused: Vec<RefusedClaim>,
    is_known: bool,
}

/// The owner of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    One(NodeName),
    /// By a claim of its Node object that is granted.
    Claimed(NodeName),
    /// A host that the operator lists for several nodes belongs to none.
    Several,
}

/// The result of looking up a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// The host is this node.
    Node(&'a Node),
    /// This node's kubelet; other ports of the host may be something else.
    Kubelet(&'a Node),
    /// Several nodes are listed with it.
    Disputed,
    /// It is no node.
    Nobody,
}

impl NodeTable {
    /// Returns the table of these nodes as an operator lists them; of two with one name the later one counts.
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
        Self::named(nodes, hosts, Vec::new())
    }

    /// Returns the table of these nodes as their Node objects describe them, the oldest first: a host is that of the
    /// oldest node that claims it, if it is granted, and only for its kubelet.
    pub fn claimed(nodes: impl IntoIterator<Item = Node>, grants: &Grants) -> Self {
        let nodes: Vec<_> = nodes.into_iter().collect();
        let names: HashSet<_> = nodes
            .iter()
            .map(|node| node.name.as_str().to_owned())
            .collect();
        let mut hosts: HashMap<String, Owner> = HashMap::new();
        let (mut kept, mut refused) = (BTreeMap::new(), Vec::new());
        for mut node in nodes {
            let own = Owner::Claimed(node.name.clone());
            let mut claims = std::mem::take(&mut node.addresses);
            claims.retain(|claimed| {
                let key = host(claimed);
                if key == node.name.as_str() {
                    return true;
                }
                let judged = grants.judge(&node, claimed).and_then(|()| {
                    let is_name = names.contains(&key);
                    let is_own =
                        !is_name && *hosts.entry(key).or_insert_with(|| own.clone()) == own;
                    is_own.then_some(()).ok_or(ClaimRefusal::Taken)
                });
                let Err(reason) = judged else { return true };
                refused.push(RefusedClaim {
                    node: node.name.to_string(),
                    host: claimed.clone(),
                    reason,
                });
                !reason.is_never_dialled()
            });
            node.addresses = claims;
            kept.insert(node.name.clone(), node);
        }
        Self::named(kept, hosts, refused)
    }

    /// A name is that of the node that has it, whatever others say.
    fn named(
        nodes: BTreeMap<NodeName, Node>,
        mut hosts: HashMap<String, Owner>,
        refused: Vec<RefusedClaim>,
    ) -> Self {
        for name in nodes.keys() {
            hosts.insert(name.as_str().to_owned(), Owner::One(name.clone()));
        }
        Self {
            nodes,
            hosts,
            refused,
            is_known: true,
        }
    }

    /// Returns whether there has been a list of nodes, be it one of none.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// Returns the claims of Node objects that do not count.
    #[must_use]
    pub fn refused(&self) -> &[RefusedClaim] {
        &self.refused
    }

    /// Returns whose a host is: a name or an address.
    #[must_use]
    pub fn find(&self, asked: &str) -> Found<'_> {
        match self.hosts.get(&host(asked)) {
            Some(Owner::One(name)) => self.nodes.get(name).map_or(Found::Nobody, Found::Node),
            Some(Owner::Claimed(name)) => {
                self.nodes.get(name).map_or(Found::Nobody, Found::Kubelet)
            }
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
    /// Returns the host to dial when this node was asked for as `asked`: an address if it has one.
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

/// The canonical form of a host: addresses in one notation, names in lower case.
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
            Found::Kubelet(node) => format!("{}'s kubelet", node.name),
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
    fn of_two_nodes_that_claim_a_host_the_older_keeps_it() {
        let claimed = |nodes| NodeTable::claimed(nodes, &Grants::default());
        let old = node("zoo", &["10.0.0.1", "zoo"]);
        let young = node(
            "ark",
            &["10.0.0.2", "10.0.0.1", "::ffff:10.0.0.1", "zoo", "10.0.0.2"],
        );
        let table = claimed([old.clone(), young.clone()]);
        for (host, owner) in [
            ("10.0.0.1", "zoo's kubelet"),
            ("10.0.0.2", "ark's kubelet"),
            ("zoo", "zoo"),
            ("ark", "ark"),
        ] {
            assert_eq!(found(&table, host), owner, "{host}");
        }
        let refused = table.refused().iter();
        let refused: Vec<_> = refused
            .map(|one| (&*one.node, &*one.host, one.reason))
            .collect();
        let taken = ClaimRefusal::Taken;
        assert_eq!(
            refused,
            [
                ("ark", "10.0.0.1", taken),
                ("ark", "::ffff:10.0.0.1", taken),
                ("ark", "zoo", taken)
            ]
        );
        let table = claimed([young, old]);
        assert_eq!(found(&table, "10.0.0.1"), "ark's kubelet");
        assert_eq!(
            found(&table, "zoo"),
            "zoo",
            "a name is nobody else's, however old"
        );
    }

    #[test]
    fn a_node_is_dialled_by_name_where_others_may_be_and_never_at_a_servers_loopback() {
        let all = [
            "127.0.0.1",
            "kubernetes.default.svc",
            "203.0.113.9",
            "10.0.0.1",
        ];
        let table = NodeTable::claimed([node("one", &all)], &Grants::default());
        let Found::Node(one) = table.find("one") else {
            panic!("one is known");
        };
        assert_eq!(one.dialled("one"), "203.0.113.9");
        assert_eq!(found(&table, "203.0.113.9"), "nobody");
        assert_eq!(found(&table, "127.0.0.1"), "nobody");
    }

    #[test]
    fn a_name_is_dialled_by_the_nodes_address() {
        let one = node("one", &["shop.example", "192.0.2.1"]);
        assert_eq!(one.dialled("one"), "192.0.2.1");
        assert_eq!(one.dialled("192.0.2.7"), "192.0.2.7");
        assert_eq!(node("one", &[]).dialled("one"), "one");
    }
}
