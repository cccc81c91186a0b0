//! The last table on disk; the form is that of `--nodes-file`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use tracing::info;
use yurt_core::error::Chain;
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
pub(super) fn write(folder: &Path, nodes: &[Node]) -> io::Result<()> {
    let document = serde_json::json!({ "nodes": nodes });
    let fresh = folder.join("nodes.json.new");
    let mut file = File::create(&fresh)?;
    file.write_all(document.to_string().as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, folder.join(FILE))?;
    File::open(folder)?.sync_all()
}
