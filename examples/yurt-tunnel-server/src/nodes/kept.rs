//! The last table on disk; the form is that of `--nodes-file`.

use std::path::Path;

use tracing::info;
use yurt_core::error::Chain;
use yurt_core::files::{WriteError, replace};
use yurt_tunnel::server::{Node, NodeTable, NodesFile};

const FILE: &str = "nodes.json";

/// The nodes of a file that may be missing or damaged: they come again from the cluster.
pub(super) fn read(folder: &Path) -> NodeTable {
    match NodesFile::open(&folder.join(FILE)) {
        Ok((_, table)) => {
            info!(nodes = table.nodes().count(), "nodes are remembered");
            table
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
