//! A node that the operator denies is sent away, and let in again when it is allowed.

use std::path::Path;

use tempfile::tempdir;
use yurt_core::testing::transport::node;

use crate::world::{Manner, World, at, config, ended};

#[expect(clippy::disallowed_methods, reason = "a test sets up its files")]
fn deny(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
}

#[tokio::test]
async fn a_node_is_denied_within_seconds_and_all_others_go_on() {
    let (world, folder) = (World::new(), tempdir().unwrap());
    let file = folder.path().join("denied");
    deny(&file, "edge-3\n");
    let path = file.clone();
    let server = world
        .server(at(1), |config| config.denied_nodes = Some(path))
        .await;
    let agent = |name: &'static str| world.agent(name, &server, Manner::Echoes);
    let (stolen, other) = (agent("edge-1").await, agent("edge-2").await);
    let at_start = world.connect(node("edge-3"), server.address).await.unwrap();
    assert_eq!(ended(&*at_start).await, "the operator denies this node");

    deny(&file, "edge-1 # stolen\n");
    assert_eq!(
        ended(&*stolen.session).await,
        "the operator denies this node"
    );
    let again = world.connect(node("edge-1"), server.address).await.unwrap();
    assert_eq!(ended(&*again).await, "the operator denies this node");
    let (_, metrics) = server.page("/metrics").await;
    assert!(
        metrics.contains("refusals_total{reason=\"denied\"} 3"),
        "{metrics}"
    );

    // What cannot be read denies whom it has denied.
    deny(&file, "no list of nodes\n");
    let again = world.connect(node("edge-1"), server.address).await.unwrap();
    assert_eq!(ended(&*again).await, "the operator denies this node");
    server.reaches("edge-2:10250").await;
    drop(other);
}

#[tokio::test]
async fn a_list_with_a_mistake_is_no_start() {
    let (world, folder) = (World::new(), tempdir().unwrap());
    let file = folder.path().join("denied");
    deny(&file, "edge-1 soon\n");
    let mut config = config(at(1));
    config.denied_nodes = Some(file);
    let error = world.refuses(config).await;
    assert!(error.contains("line 1"), "{error}");
}
