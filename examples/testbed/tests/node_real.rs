//! The real node itself: what a stock one does, and that the levers do what they say.

#![expect(
    clippy::unwrap_used,
    reason = "what a test takes for granted fails the test"
)]

use std::{sync::Arc, time::Duration};

use testbed::{
    cluster::{Cluster, ClusterConfig, Controllers, Kubectl, Version},
    node::{Network, Node, NodeConfig, eventually},
    workload::Workload,
};

/// Beyond what any step takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn start(version: Version) -> (Arc<Network>, Cluster, Node) {
    let network = Network::new().unwrap();
    let config = ClusterConfig {
        version,
        address: network.address(),
        controllers: Some(Controllers::default()),
        ..ClusterConfig::default()
    };
    let cluster = Cluster::start(config).await.unwrap();
    let node = Node::start(&network, &cluster, NodeConfig::new("edge-1"));
    let node = node.await.unwrap();
    (network, cluster, node)
}

async fn runs_what_a_user_deploys(version: Version) {
    let (_network, cluster, node) = start(version).await;
    let kubectl = cluster.kubectl();
    let workload = Workload::new("shop");
    cluster.install_dns().await.unwrap();
    kubectl.apply(&workload.manifest()).await.unwrap();
    for deployment in [
        "deployment/shop",
        "--namespace=kube-system deployment/coredns",
    ] {
        let arguments = format!("rollout status --timeout=90s {deployment}");
        run(kubectl, &arguments).await;
    }

    // The cluster IP leads to both pods, which have their ConfigMap and their Secret.
    let address = run(kubectl, "get service shop -o jsonpath={.spec.clusterIP}").await;
    let pods = run(
        kubectl,
        "get pods -l app=shop -o jsonpath={.items[*].metadata.name}",
    )
    .await;
    let pods: Vec<&str> = pods.split(' ').collect();
    assert_eq!(pods.len(), 2, "{pods:?}");
    for pod in &pods {
        let expected = format!("{pod} good morning swordfish\n");
        let url = format!("http://{address}/");
        eventually(&expected, PATIENCE, async || match node.get(&url).await {
            Ok(answer) if answer == expected => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
        .unwrap();
    }

    // kubectl reaches the pods through the API server and the kubelet.
    let log = run(kubectl, &format!("logs {}", pods[0])).await;
    assert_eq!(log, "started\n");
    let name = "shop.default.svc.cluster.local";
    let found = run(kubectl, &format!("exec {} -- nslookup {name}", pods[0])).await;
    assert!(found.contains(&format!("Address: {address}\n")), "{found}");
    let token = run(
        kubectl,
        &format!("exec {} -- cat {}", pods[1], Workload::TOKEN_FILE),
    )
    .await;

    // The token is the pod's own, and good for what its role allows.
    let own = node.kubectl(&token).unwrap();
    let who = run(&own, "auth whoami -o jsonpath={.status.userInfo.username}").await;
    assert_eq!(who, "system:serviceaccount:default:shop");
    run(&own, "get configmap shop").await;
    let refused = own.run(&["get", "secret", "shop"]).await.unwrap_err();
    assert!(refused.to_string().contains("Forbidden"), "{refused}");
}

async fn run(kubectl: &Kubectl, line: &str) -> String {
    let arguments: Vec<&str> = line.split(' ').collect();
    kubectl.run(&arguments).await.unwrap()
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn the_oldest_stock_node_runs_what_a_user_deploys() {
    runs_what_a_user_deploys(Version::Oldest).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn the_newest_stock_node_runs_what_a_user_deploys() {
    runs_what_a_user_deploys(Version::Newest).await;
}
