//! The nodes of a cluster: watched, and kept on disk for a start without an API server.

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

/// The pause before a failed watch is restarted.
const PAUSE: Duration = Duration::from_secs(2);

/// How many refused claims are logged: a kubelet can make up new ones for ever.
const MAX_LOGGED: usize = 20_000;

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
    /// The kubeconfig cannot be used.
    #[error("make a client of the cluster")]
    Client(#[source] kube::Error),
    /// The data folder could not be made.
    #[error("make the folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The state of the watch.
#[derive(Default)]
struct Watched {
    nodes: BTreeMap<NodeName, Known>,
    /// A list that is not complete yet.
    listed: BTreeMap<NodeName, Known>,
    /// The refused claims that were logged.
    refused: HashSet<RefusedClaim>,
}

impl KubeNodes {
    /// Returns the source, and the nodes that `folder` keeps from an earlier run; blocks on the disk.
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
    async fn follow(&self, table: &watch::Sender<Arc<NodeTable>>) {
        let nodes = Api::<NodeObject>::all(self.client.clone());
        let events = watcher(nodes, watcher::Config::default());
        pin_mut!(events);
        let mut watched = Watched::default();
        let mut is_warned = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    is_warned = false;
                    if watched.take(event) {
                        self.publish_table(&mut watched, table).await;
                    }
                }
                Err(error) => {
                    if !is_warned {
                        warn!(
                            error = Chain(&error).to_string(),
                            "cannot watch the nodes; the last table stays"
                        );
                    }
                    is_warned = true;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Publishes a table, and keeps it on disk.
    async fn publish_table(
        &self,
        watched: &mut Watched,
        published: &watch::Sender<Arc<NodeTable>>,
    ) {
        let nodes = oldest_first(watched.nodes.values());
        let table = NodeTable::claimed(nodes.iter().cloned(), &self.grants);
        watched.log_refused(table.refused());
        let is_new = published.send_if_modified(|before| {
            let is_new = **before != table;
            *before = Arc::new(table);
            is_new
        });
        if !is_new {
            return;
        }
        info!(nodes = nodes.len(), "read the nodes");
        if let Some(folder) = self.folder.clone() {
            let written = tokio::task::spawn_blocking(move || kept::write(&folder, &nodes)).await;
            if let Ok(Err(error)) = written {
                warn!(
                    error = Chain(&error).to_string(),
                    "cannot keep the nodes on disk"
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

impl Watched {
    /// Returns whether the table may have changed. A list counts once it is complete.
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

    /// Logs claims that were not refused before: for each reason their number, and one of them.
    fn log_refused(&mut self, refused: &[RefusedClaim]) {
        let mut fresh = BTreeMap::new();
        for claim in refused {
            if self.refused.len() < MAX_LOGGED && self.refused.insert(claim.clone()) {
                let (claims, _) = fresh.entry(claim.reason).or_insert((0_usize, claim));
                *claims += 1;
            }
        }
        for (reason, (claims, RefusedClaim { node, host, .. })) in fresh {
            warn!(claims, %reason, node, ?host, "ignoring addresses of Node objects");
        }
    }
}
