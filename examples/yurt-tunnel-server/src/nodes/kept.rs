//! The nodes on disk, the oldest first, in the format of `--nodes-file`.

use std::path::Path;

use tracing::info;
use yurt_core::error::Chain;
use yurt_core::files::{WriteError, replace};
use yurt_tunnel::nodes::{Grants, Node, NodeTable, NodesFile};

const FILE: &str = "nodes.json";

/// Reads the nodes of a file that may be missing or damaged: the cluster has them too.
pub(super) fn read(folder: &Path, grants: &Grants) -> NodeTable {
    match NodesFile::list(&folder.join(FILE)) {
        Ok(nodes) => {
            info!(nodes = nodes.len(), "read the nodes of the last run");
            NodeTable::claimed(nodes, grants)
        }
        Err(error) => {
            info!(
                error = Chain(&error).to_string(),
                "no nodes are known from the last run"
            );
            NodeTable::default()
        }
    }
}

/// Writes the nodes so that a crash leaves either the old or the new ones.
pub(super) fn write(folder: &Path, nodes: &[Node]) -> Result<(), WriteError> {
    let document = serde_json::json!({ "nodes": nodes }).to_string();
    replace(folder, &[(FILE, document, 0o644)])
}
