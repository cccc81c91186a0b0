//! The nodes of before on disk, the oldest first; the form is that of `--nodes-file`.

use std::path::Path;

use tracing::info;
use yurt_core::error::Chain;
use yurt_core::files::{WriteError, replace};
use yurt_tunnel::nodes::{Grants, Node, NodeTable, NodesFile};

const FILE: &str = "nodes.json";

/// The nodes of a file that may be missing or damaged: they come again from the cluster.
pub(super) fn read(folder: &Path, grants: &Grants) -> NodeTable {
    match NodesFile::list(&folder.join(FILE)) {
        Ok(nodes) => {
            info!(nodes = nodes.len(), "nodes are remembered");
            NodeTable::claimed(nodes, grants)
        }
        Err(error) => {
            info!(error = Chain(&error).to_string(), "no nodes are remembered");
            NodeTable::default()
        }
    }
}

/// Writes the nodes so that after a crash either they or those of before are there.
pub(super) fn write(folder: &Path, nodes: &[Node]) -> Result<(), WriteError> {
    let document = serde_json::json!({ "nodes": nodes }).to_string();
    replace(folder, &[(FILE, document, 0o644)])
}
