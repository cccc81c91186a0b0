//! The nodes of a cluster, watched; and remembered, so that a start without an API server knows them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Node as KubeNode;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use yurt_tunnel::server::{KUBELET_PORT, Node, NodeSource, NodeTable, parse_nodes};

/// Nodes with this label are at the edge (OpenYurt's well-known label).
const EDGE_LABEL: &str = "openyurt.io/is-edge-worker";

/// The last table, in the data folder; the form is that of `--nodes-file`.
const FILE: &str = "nodes.json";

/// How long to wait before a watch that failed is begun again.
const PAUSE: Duration = Duration::from_secs(2);

/// The Node objects of a cluster.
pub(crate) struct KubeNodes {
    client: Client,
    folder: Option<PathBuf>,
}

/// Why the nodes of a cluster cannot be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// The kubeconfig names nothing that can be used.
    #[error("make a client of the cluster")]
    Client(#[source] kube::Error),
    /// The data folder cannot be had.
    #[error("make the folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl KubeNodes {
    /// Returns the source, and the nodes that an earlier start has remembered in `folder`.
    pub(crate) fn open(
        config: Config,
        folder: Option<PathBuf>,
    ) -> Result<(Self, NodeTable), Error> {
        let client = Client::try_from(config).map_err(Error::Client)?;
        let table = match &folder {
            None => NodeTable::default(),
            Some(path) => {
                fs::create_dir_all(path).map_err(|source| Error::Folder {
                    path: path.clone(),
                    source,
                })?;
                remembered(&path.join(FILE))
            }
        };
        Ok((Self { client, folder }, table))
    }

    /// Shows a table, and remembers it.
    async fn show(&self, nodes: &BTreeMap<String, Node>, shown: &watch::Sender<Arc<NodeTable>>) {
        let table = NodeTable::new(nodes.values().cloned());
        let is_new = shown.send_if_modified(|before| {
            let is_new = **before != table;
            *before = Arc::new(table);
            is_new
        });
        if !is_new {
            return;
        }
        info!(nodes = nodes.len(), "nodes are known");
        if let Some(folder) = self.folder.clone() {
            let nodes: Vec<_> = nodes.values().cloned().collect();
            let written = tokio::task::spawn_blocking(move || remember(&folder, &nodes)).await;
            if let Ok(Err(error)) = written {
                warn!(%error, "the nodes are not remembered");
            }
        }
    }

    /// Watches until the watch fails for good or the shutdown.
    async fn follow(&self, shown: &watch::Sender<Arc<NodeTable>>) {
        let events = watcher(
            Api::<KubeNode>::all(self.client.clone()),
            watcher::Config::default(),
        );
        pin_mut!(events);
        let mut nodes = BTreeMap::new();
        let mut listed = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = BTreeMap::new(),
                Ok(Event::InitApply(node)) => insert(&mut listed, &node),
                Ok(Event::InitDone) => nodes = std::mem::take(&mut listed),
                Ok(Event::Apply(node)) => insert(&mut nodes, &node),
                Ok(Event::Delete(node)) => {
                    nodes.remove(node.metadata.name.as_deref().unwrap_or_default());
                }
                Err(error) => {
                    warn!(%error, "the nodes of before stay");
                    sleep(PAUSE).await;
                    continue;
                }
            }
            if listed.is_empty() && !nodes.is_empty() {
                self.show(&nodes, shown).await;
            }
        }
    }
}

impl fmt::Debug for KubeNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeNodes")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl NodeSource for KubeNodes {
    async fn publish(&self, table: watch::Sender<Arc<NodeTable>>, shutdown: CancellationToken) {
        tokio::select! {
            () = self.follow(&table) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

fn insert(nodes: &mut BTreeMap<String, Node>, node: &KubeNode) {
    if let Some(node) = known(node) {
        nodes.insert(node.name.to_string(), node);
    }
}

/// What a Node object says of itself; nothing if its name is none.
fn known(node: &KubeNode) -> Option<Node> {
    let name = node.metadata.name.as_deref()?.parse().ok()?;
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_ref());
    // The address by which nodes reach each other is the one to dial.
    let mut addresses: Vec<_> = addresses.into_iter().flatten().collect();
    addresses.sort_by_key(|address| address.type_ != "InternalIP");
    let port = status
        .and_then(|status| status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref())
        .and_then(|endpoint| u16::try_from(endpoint.port).ok())
        .filter(|port| *port != 0);
    let labels = node.metadata.labels.as_ref();
    Some(Node {
        name,
        addresses: addresses
            .into_iter()
            .map(|address| address.address.clone())
            .collect(),
        edge: labels
            .is_some_and(|labels| labels.get(EDGE_LABEL).is_some_and(|value| value == "true")),
        kubelet_port: port.unwrap_or(KUBELET_PORT),
    })
}

/// The nodes of a file that may be missing or damaged: they come again from the cluster.
fn remembered(path: &Path) -> NodeTable {
    let read = fs::read(path).map_err(|error| error.to_string());
    match read.and_then(|bytes| parse_nodes(path, &bytes).map_err(|error| error.to_string())) {
        Ok(table) => {
            info!(nodes = table.nodes().count(), "nodes are remembered");
            table
        }
        Err(error) => {
            info!(error, "no nodes are remembered");
            NodeTable::default()
        }
    }
}

/// Writes the nodes so that after a crash either they or those of before are there.
fn remember(folder: &Path, nodes: &[Node]) -> io::Result<()> {
    let document = serde_json::json!({ "nodes": nodes });
    let fresh = folder.join("nodes.json.new");
    let mut file = File::create(&fresh)?;
    file.write_all(document.to_string().as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, folder.join(FILE))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use yurt_tunnel::server::Found;

    use super::*;

    fn kube_node(value: serde_json::Value) -> KubeNode {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_node_is_what_its_object_says() {
        let node = known(&kube_node(json!({
            "metadata": {"name": "edge-1", "labels": {EDGE_LABEL: "true"}},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "shop-7"},
                    {"type": "ExternalIP", "address": "203.0.113.9"},
                    {"type": "InternalIP", "address": "10.1.2.3"},
                ],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 11250}},
            },
        })));
        let node = node.unwrap();
        assert_eq!(node.addresses, ["10.1.2.3", "shop-7", "203.0.113.9"]);
        assert!(node.edge && node.kubelet_port == 11250);
        let bare = known(&kube_node(json!({"metadata": {"name": "cloud-1"}}))).unwrap();
        assert!(!bare.edge && bare.kubelet_port == 10250 && bare.addresses.is_empty());
        let other = kube_node(json!({"metadata": {"name": "c", "labels": {EDGE_LABEL: "false"}}}));
        assert!(!known(&other).unwrap().edge);
    }

    #[test]
    fn nodes_are_remembered_and_a_damaged_memory_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(remembered(&path), NodeTable::default());
        let node = known(&kube_node(json!({"metadata": {"name": "cloud-1"}}))).unwrap();
        remember(folder.path(), std::slice::from_ref(&node)).unwrap();
        assert!(matches!(remembered(&path).find("cloud-1"), Found::Node(found) if *found == node));
        File::create(&path)
            .unwrap()
            .write_all(b"{\"nodes\": [")
            .unwrap();
        assert_eq!(remembered(&path), NodeTable::default());
    }
}
