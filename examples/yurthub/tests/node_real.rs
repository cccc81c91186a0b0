//! A stock node whose kubelet and kube-proxy take the hub for the API server.

#![expect(
    clippy::unwrap_used,
    reason = "what a test takes for granted fails the test"
)]

use std::time::Duration;

use testbed::{
    cluster::{Cluster, ClusterConfig, Controllers, Version},
    node::{Cut, HUB_DATA, HubConfig, Network, Node, NodeConfig, Program, Road, eventually},
    workload::Workload,
};

/// Beyond what any step takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn start(version: Version, disk: Option<u64>) -> (Cluster, Node) {
    let network = Network::new().unwrap();
    let cluster = Cluster::start(ClusterConfig {
        version,
        address: network.address(),
        controllers: Some(Controllers::default()),
        ..ClusterConfig::default()
    });
    let cluster = cluster.await.unwrap();
    let mut config = NodeConfig::new("edge-1");
    let mut hub = HubConfig::new(env!("CARGO_BIN_EXE_yurthub"));
    hub.disk = disk;
    config.road = Road::Hub(hub);
    let node = Node::start(&network, &cluster, config).await.unwrap();
    node.ready(&cluster, PATIENCE).await.unwrap();
    (cluster, node)
}

async fn runs_through_the_hub(version: Version) {
    let (cluster, mut node) = start(version, None).await;

    let kubectl = cluster.kubectl();
    let workload = Workload::new("shop");
    kubectl.apply(&workload.manifest()).await.unwrap();
    let rollout = ["rollout", "status", "--timeout=60s", "deployment/shop"];
    kubectl.run(&rollout).await.unwrap();
    let address = workload.cluster_ip(kubectl).await.unwrap();
    answered(&workload, &node, &address).await;
    let pods = workload.pods(kubectl).await.unwrap();
    let log = kubectl.run(&["logs", &pods[0]]).await.unwrap();
    assert_eq!(log, "started\n");
    let print = ["exec", &pods[0], "--", "cat", Workload::WORD_FILE];
    let word = kubectl.run(&print).await.unwrap();
    assert_eq!(word, workload.word);

    // While the link is cut everything goes on, also with a hub and a kubelet that were killed.
    let before = node.containers().await.unwrap();
    node.cut(Cut::Silent).unwrap();
    for program in [Program::Hub, Program::Kubelet] {
        node.kill(program).unwrap();
        node.start_program(program).await.unwrap();
    }
    answered(&workload, &node, &address).await;
    node.mend().unwrap();
    node.ready(&cluster, PATIENCE).await.unwrap();
    assert_eq!(node.containers().await.unwrap(), before);
}

async fn answered(workload: &Workload, node: &Node, address: &str) {
    eventually("an answer of the Service", PATIENCE, async || {
        let asked = workload.ask(node, address).await;
        asked.map(drop).map_err(|error| error.to_string())
    })
    .await
    .unwrap();
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn the_oldest_stock_node_runs_through_the_hub() {
    runs_through_the_hub(Version::Oldest).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn the_newest_stock_node_runs_through_the_hub() {
    runs_through_the_hub(Version::Newest).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn the_hubs_own_disk_fills_up_alone_and_outlives_a_power_cut() {
    let (_cluster, mut node) = start(Version::Oldest, Some(64 << 20)).await;
    let write = ["sh", "-c", "echo remembered >/var/lib/yurthub/note"];
    let read = ["cat", "/var/lib/yurthub/note"];
    node.fill_disk().await.unwrap();
    node.run(&write).await.unwrap_err();
    node.run(&["sh", "-c", "echo else >/var/lib/kubelet/note"])
        .await
        .unwrap();
    node.free_disk().await.unwrap();
    node.run(&write).await.unwrap();
    node.run(&["sync"]).await.unwrap();
    node.power_off();
    node.power_on().await.unwrap();
    assert_eq!(node.run(&read).await.unwrap(), "remembered\n");
    assert!(node.run(&["ls", HUB_DATA]).await.unwrap().contains("store"));
}
