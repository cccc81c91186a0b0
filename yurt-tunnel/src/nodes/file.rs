//! A file of nodes, written by the operator.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use yurt_core::error::Chain;

use super::{Node, NodeSource, NodeTable};

/// How often the file is checked.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Ten thousand nodes with some addresses each are shorter.
const MAX_BYTES: u64 = 8 << 20;

/// Why a file of nodes is invalid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidNodes {
    /// The file could not be read.
    #[error("read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is longer than any list of nodes.
    #[error("{} is longer than {MAX_BYTES} bytes", path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
    /// The file is not `{"nodes": [{"name": …, "addresses": […]}, …]}`.
    #[error("parse {}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
}

/// A file of nodes, JSON, which is read again when it has changed.
#[derive(Debug)]
pub struct NodesFile {
    path: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    nodes: Vec<Node>,
}

impl NodesFile {
    /// Reads the file once, so that its errors show at the start; blocks on the disk.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(path: &Path) -> Result<(Self, NodeTable), InvalidNodes> {
        let table = parse(path, &read(path)?)?;
        let path = path.to_owned();
        Ok((Self { path }, table))
    }

    /// Returns the nodes that a file lists, in its order; blocks on the disk.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn list(path: &Path) -> Result<Vec<Node>, InvalidNodes> {
        listed(path, &read(path)?)
    }
}

#[async_trait]
impl NodeSource for NodesFile {
    async fn publish(&self, table: watch::Sender<Arc<NodeTable>>, shutdown: CancellationToken) {
        let mut before: Option<Vec<u8>> = None;
        loop {
            let path = self.path.clone();
            // Reading a file does not panic.
            if let Ok(bytes) = tokio::task::spawn_blocking(move || read(&path)).await {
                match bytes {
                    Ok(bytes) if before.as_ref() == Some(&bytes) => {}
                    Ok(bytes) => {
                        take(&self.path, &bytes, &table);
                        before = Some(bytes);
                    }
                    Err(error) => {
                        warn!(error = %Chain(&error), "cannot read the nodes; the former list stays")
                    }
                }
            }
            tokio::select! {
                () = sleep(CHECK_EVERY) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}

fn take(path: &Path, bytes: &[u8], table: &watch::Sender<Arc<NodeTable>>) {
    match parse(path, bytes) {
        Ok(nodes) => {
            let is_new = table.send_if_modified(|table| {
                let is_new = **table != nodes;
                *table = Arc::new(nodes);
                is_new
            });
            if is_new {
                info!(nodes = table.borrow().nodes().count(), "read the nodes");
            }
        }
        Err(error) => warn!(error = %Chain(&error), "cannot read the nodes; the former list stays"),
    }
}

/// Returns the nodes that a file's bytes list.
///
/// # Errors
/// [`InvalidNodes::Parse`] with the place.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<NodeTable, InvalidNodes> {
    Ok(NodeTable::new(listed(path, bytes)?))
}

fn listed(path: &Path, bytes: &[u8]) -> Result<Vec<Node>, InvalidNodes> {
    let document: Document =
        serde_json::from_slice(bytes).map_err(|source| InvalidNodes::Parse {
            path: path.to_owned(),
            source,
        })?;
    Ok(document.nodes)
}

fn read(path: &Path) -> Result<Vec<u8>, InvalidNodes> {
    let failed = |source| InvalidNodes::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        let path = path.to_owned();
        return Err(InvalidNodes::TooLong { path });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::Found;

    #[test]
    fn a_file_lists_nodes_by_name_and_the_rest_is_what_one_expects() {
        let path = Path::new("nodes.json");
        let file = br#"{"nodes": [{"name": "edge-1", "addresses": ["192.0.2.7"]},
                                  {"name": "cloud-1", "edge": false, "kubeletPort": 11250}]}"#;
        let table = parse(path, file).unwrap();
        let Found::Node(edge) = table.find("192.0.2.7") else {
            panic!("edge-1 is listed");
        };
        assert!(edge.edge && edge.kubelet_port == 10250);
        let Found::Node(cloud) = table.find("cloud-1") else {
            panic!("cloud-1 is listed");
        };
        assert!(!cloud.edge && cloud.kubelet_port == 11250);
    }

    #[test]
    fn a_mistake_in_the_file_is_named_with_its_place() {
        let path = Path::new("nodes.json");
        for (file, says) in [
            ("", "line 1"),
            (r#"{"nodes": [{"name": "Not A Name"}]}"#, "is not a name"),
            (r#"{"nodes": [], "node": []}"#, "unknown field `node`"),
            (r#"{"nodes": [{"addresses": []}]}"#, "missing field `name`"),
        ] {
            let error = parse(path, file.as_bytes()).unwrap_err();
            let text = Chain(&error).to_string();
            assert!(
                text.starts_with("parse nodes.json") && text.contains(says),
                "{text}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "a test sets up its files")]
    async fn a_file_that_changes_is_read_again_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.json");
        let write = |name: &str| std::fs::write(&path, name).unwrap();
        write(r#"{"nodes": [{"name": "one"}]}"#);
        let (file, table) = NodesFile::open(&path).unwrap();
        let (tx, mut rx) = watch::channel(Arc::new(table));
        let shutdown = CancellationToken::new();
        let follow = async {
            write("broken");
            sleep(CHECK_EVERY * 3).await;
            assert!(!rx.has_changed().unwrap(), "the table of before stays");
            write(r#"{"nodes": [{"name": "two"}]}"#);
            rx.changed().await.unwrap();
            assert!(matches!(rx.borrow().find("two"), Found::Node(_)));
            shutdown.cancel();
        };
        tokio::join!(file.publish(tx, shutdown.clone()), follow);
    }
}
