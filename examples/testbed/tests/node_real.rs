//! The real node itself: what a stock one does, and that the levers do what they say.

use std::time::{Duration, Instant};

use testbed::{
    cluster::{Cluster, ClusterConfig, Controllers, Version},
    node::{Network, Node, NodeConfig},
};

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn a_stock_node_runs_what_a_user_deploys() {
    let began = Instant::now();
    let network = Network::new().unwrap();
    let cluster = Cluster::start(ClusterConfig {
        version: Version::Oldest,
        address: network.address(),
        controllers: Some(Controllers::default()),
        ..ClusterConfig::default()
    })
    .await
    .unwrap();
    println!("cluster {:?}", began.elapsed());
    let node = Node::start(&network, &cluster, NodeConfig::new("edge-1"))
        .await
        .unwrap();
    println!("node {:?}", began.elapsed());
    node.ready(&cluster, Duration::from_secs(60)).await.unwrap();
    println!("ready {:?}", began.elapsed());
}
