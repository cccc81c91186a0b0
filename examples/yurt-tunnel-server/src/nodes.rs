//! The nodes of a cluster, watched; and remembered, so that a start without an API server knows them.

mod kept;
mod object;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
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
use yurt_tunnel::nodes::{Grants, NodeSource, NodeTable, RefusedClaim};

use self::object::{Known, NodeObject, known, oldest_first};

/// How long to wait before a watch that failed is begun again.
const PAUSE: Duration = Duration::from_secs(2);

/// How many refused claims the log may tell of: a kubelet can make up new ones for ever.
const MAX_TOLD: usize = 20_000;

/// The Node objects of a cluster.
pub(crate) struct KubeNodes {
    client: Client,
    folder: Option<PathBuf>,
    grants: Grants,
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
    nodes: BTreeMap<NodeName, Known>,
    /// A list that is not whole yet.
    listed: BTreeMap<NodeName, Known>,
    /// The refused claims that the log has told of.
    refused: HashSet<RefusedClaim>,
}

impl KubeNodes {
    /// Returns the source, and the nodes that an earlier start has remembered in `folder`; blocks on the disk.
    pub(crate) fn open(
        config: Config,
        folder: Option<PathBuf>,
        grants: Grants,
    ) -> Result<(Self, NodeTable), Error> {
        let client = Client::try_from(config).map_err(Error::Client)?;
        let table = match &folder {
            None => NodeTable::default(),
            Some(path) => {
                std::fs::create_dir_all(path).map_err(|source| Error::Folder {
                    path: path.clone(),
                    source,
                })?;
                kept::read(path, &grants)
            }
        };
        let source = Self {
            client,
            folder,
            grants,
        };
        Ok((source, table))
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
                        self.show(&mut told, shown).await;
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
    async fn show(&self, told: &mut Told, shown: &watch::Sender<Arc<NodeTable>>) {
        let nodes = oldest_first(told.nodes.values());
        let table = NodeTable::claimed(nodes.iter().cloned(), &self.grants);
        told.say_refused(table.refused());
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
                if let Some(known) = known(&object) {
                    self.listed.insert(known.node.name.clone(), known);
                }
                false
            }
            Event::InitDone => {
                self.nodes = std::mem::take(&mut self.listed);
                true
            }
            Event::Apply(object) => known(&object).is_some_and(|known| {
                let before = self.nodes.insert(known.node.name.clone(), known.clone());
                before.as_ref() != Some(&known)
            }),
            Event::Delete(object) => {
                known(&object).is_some_and(|known| self.nodes.remove(&known.node.name).is_some())
            }
        }
    }

    /// Tells of claims that were not refused before: of each reason how many, and one of them.
    fn say_refused(&mut self, refused: &[RefusedClaim]) {
        let mut fresh = BTreeMap::new();
        for claim in refused {
            if self.refused.len() < MAX_TOLD && self.refused.insert(claim.clone()) {
                let (claims, _) = fresh.entry(claim.reason).or_insert((0_usize, claim));
                *claims += 1;
            }
        }
        for (reason, (claims, RefusedClaim { node, host, .. })) in fresh {
            warn!(claims, %reason, node, ?host, "what a Node object claims leads to no agent");
        }
    }
}
