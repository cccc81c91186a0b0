//! The nodes of a cluster, watched; and remembered, so that a start without an API server knows them.

mod kept;
mod object;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, pin_mut};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use yurt_core::error::Chain;
use yurt_core::name::NodeName;
use yurt_tunnel::server::{Node, NodeSource, NodeTable};

use self::object::{NodeObject, known};

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

/// What the watch has told so far.
#[derive(Default)]
struct Told {
    nodes: BTreeMap<NodeName, Node>,
    /// A list that is not whole yet.
    listed: BTreeMap<NodeName, Node>,
}

impl KubeNodes {
    /// Returns the source, and the nodes that an earlier start has remembered in `folder`; blocks on the disk.
    pub(crate) fn open(
        config: Config,
        folder: Option<PathBuf>,
    ) -> Result<(Self, NodeTable), Error> {
        let client = Client::try_from(config).map_err(Error::Client)?;
        let table = match &folder {
            None => NodeTable::default(),
            Some(path) => {
                std::fs::create_dir_all(path).map_err(|source| Error::Folder {
                    path: path.clone(),
                    source,
                })?;
                kept::read(path)
            }
        };
        Ok((Self { client, folder }, table))
    }

    /// Watches as long as the client lives.
    async fn follow(&self, shown: &watch::Sender<Arc<NodeTable>>) {
        let nodes = Api::<NodeObject>::all(self.client.clone());
        let events = watcher(nodes, watcher::Config::default());
        pin_mut!(events);
        let mut told = Told::default();
        let mut is_warned = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    is_warned = false;
                    if told.take(event) {
                        self.show(&told.nodes, shown).await;
                    }
                }
                Err(error) => {
                    if !is_warned {
                        warn!(
                            error = Chain(&error).to_string(),
                            "the nodes of before stay"
                        );
                    }
                    is_warned = true;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Shows a table, and remembers it.
    async fn show(&self, nodes: &BTreeMap<NodeName, Node>, shown: &watch::Sender<Arc<NodeTable>>) {
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
            let written = tokio::task::spawn_blocking(move || kept::write(&folder, &nodes)).await;
            if let Ok(Err(error)) = written {
                warn!(
                    error = Chain(&error).to_string(),
                    "the nodes are not remembered"
                );
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

impl Told {
    /// Returns whether another table follows. A list counts when it is whole.
    fn take(&mut self, event: Event<NodeObject>) -> bool {
        match event {
            Event::Init => {
                self.listed.clear();
                false
            }
            Event::InitApply(object) => {
                if let Some(node) = known(&object) {
                    self.listed.insert(node.name.clone(), node);
                }
                false
            }
            Event::InitDone => {
                self.nodes = std::mem::take(&mut self.listed);
                true
            }
            Event::Apply(object) => known(&object).is_some_and(|node| {
                let before = self.nodes.insert(node.name.clone(), node.clone());
                before.as_ref() != Some(&node)
            }),
            Event::Delete(object) => {
                known(&object).is_some_and(|node| self.nodes.remove(&node.name).is_some())
            }
        }
    }
}
