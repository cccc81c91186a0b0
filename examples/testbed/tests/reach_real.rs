//! How a cluster reaches its nodes: directly, by a door in between, or not at all.

#![expect(
    clippy::unwrap_used,
    reason = "what a test takes for granted fails the test"
)]

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use parking_lot::Mutex;
use testbed::{
    cluster::{Cluster, ClusterConfig, Controllers, Egress, MetricsServer, Version},
    node::{Network, Node, NodeConfig, eventually},
    workload::Workload,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, UnixListener, UnixStream},
    task::JoinSet,
    time::timeout,
};

/// Beyond what any step takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Beyond what reaching a node takes that can be reached, a few milliseconds.
const NEVER: Duration = Duration::from_secs(5);

async fn cluster(network: &Network, version: Version, egress: Option<Egress>) -> Cluster {
    let config = ClusterConfig {
        version,
        address: network.address(),
        controllers: Some(Controllers::default()),
        egress,
        ..ClusterConfig::default()
    };
    Cluster::start(config).await.unwrap()
}

async fn node(network: &Arc<Network>, cluster: &Cluster, is_behind_nat: bool) -> Node {
    let config = NodeConfig {
        is_behind_nat,
        ..NodeConfig::new("edge-1")
    };
    let node = Node::start(network, cluster, config).await.unwrap();
    node.ready(cluster, PATIENCE).await.unwrap();
    node
}

/// Deploys a workload and returns a pod of it that runs.
async fn pod(cluster: &Cluster, node: &Node) -> String {
    let (workload, kubectl) = (Workload::new("shop"), cluster.kubectl());
    kubectl.apply(&workload.manifest()).await.unwrap();
    let address = workload.cluster_ip(kubectl).await.unwrap();
    eventually("an answer of the Service", PATIENCE, async || {
        let asked = workload.ask(node, &address).await;
        asked.map_err(|error| error.to_string())
    })
    .await
    .unwrap()
}

/// The answer to an HTTPS request of somebody without a certificate, as its code.
const ASK: &str =
    "curl --silent --insecure --max-time 2 --output /dev/null --write-out %{http_code}";

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn a_node_behind_nat_runs_pods_and_nobody_outside_reaches_it() {
    let network = Network::new().unwrap();
    let cluster = cluster(&network, Version::Oldest, None).await;
    let mut node = node(&network, &cluster, true).await;
    let pod = pod(&cluster, &node).await;

    let kubelet = format!("https://{}:10250/healthz", node.address());
    let ask: Vec<&str> = ASK.split(' ').chain([kubelet.as_str()]).collect();
    let ask_outside = || {
        let asked = Command::new(ask[0]).args(&ask[1..]).output().unwrap();
        // 28: not refused, but nothing came in time.
        (
            asked.status.code(),
            String::from_utf8(asked.stdout).unwrap(),
        )
    };
    assert_eq!(node.run(&ask).await.unwrap(), "401", "the kubelet answers");
    assert_eq!(ask_outside(), (Some(28), "000".to_owned()));
    let logs = ["logs", &pod];
    let logs = timeout(NEVER, cluster.kubectl().run(&logs)).await;
    assert!(!matches!(logs, Ok(Ok(_))), "{logs:?}");

    // As soon as the node has an interface nobody gets in, after a power cut too.
    node.power_off();
    node.power_on().await.unwrap();
    eventually("the kubelet", PATIENCE, async || {
        let asked = node.run(&ask).await;
        asked.map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    assert_eq!(ask_outside(), (Some(28), "000".to_owned()));
}

/// A tunnel as simple as can be: for each request to connect it takes one of the connections that wait, which a node
/// has made.
async fn serve_egress(door: UnixListener, waiting: TcpListener, asked: Arc<Mutex<Vec<String>>>) {
    let mut streams = JoinSet::new();
    loop {
        let (mut front, _) = door.accept().await.unwrap();
        let line = head(&mut front).await;
        asked.lock().push(line);
        let (mut back, _) = waiting.accept().await.unwrap();
        front.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        streams.spawn(async move { copy_bidirectional(&mut front, &mut back).await });
    }
}

/// Reads a request without a body and returns its first line.
async fn head(front: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(front.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    head.lines().next().unwrap().to_owned()
}

async fn reaches_by_the_door_alone(version: Version) {
    let network = Network::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("egress.sock");
    let cluster = cluster(&network, version, Some(Egress::Socket(socket.clone()))).await;
    let mut node = node(&network, &cluster, true).await;
    let pod = pod(&cluster, &node).await;
    let logs = ["logs", &pod];
    let closed = cluster.kubectl().run(&logs).await.unwrap_err();
    assert!(closed.to_string().contains("egress.sock"), "{closed}");

    let waiting = TcpListener::bind((network.address(), 0)).await.unwrap();
    let port = waiting.local_addr().unwrap().port();
    let asked = Arc::default();
    let mut door = JoinSet::new();
    let listener = UnixListener::bind(&socket).unwrap();
    door.spawn(serve_egress(listener, waiting, Arc::clone(&asked)));
    let dial = format!(
        "nc {} {port} -e busybox nc 127.0.0.1 10250",
        network.address()
    );
    let dial = format!("for _ in 1 2 3 4; do while :; do busybox {dial}; done & done; wait");
    let agent = node.add_program("agent", Path::new("busybox"), &["sh", "-c", &dial]);
    node.start_program(agent).await.unwrap();

    let logged = timeout(PATIENCE, cluster.kubectl().run(&logs)).await;
    assert_eq!(logged.unwrap().unwrap(), "started\n");
    let kubelet = format!("CONNECT {}:10250 HTTP/1.1", node.address());
    let asked = asked.lock();
    assert!(
        !asked.is_empty() && asked.iter().all(|line| *line == kubelet),
        "{asked:?}"
    );
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn the_oldest_api_server_reaches_a_node_by_the_door_alone() {
    reaches_by_the_door_alone(Version::Oldest).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn the_newest_api_server_reaches_a_node_by_the_door_alone() {
    reaches_by_the_door_alone(Version::Newest).await;
}

async fn top_shows_a_node(version: Version) {
    let network = Network::new().unwrap();
    let mut cluster = cluster(&network, version, None).await;
    let _node = node(&network, &cluster, false).await;
    let server = MetricsServer::default();
    cluster.start_metrics_server(&server).await.unwrap();
    let top = ["top", "node", "edge-1", "--no-headers"];
    let shown = eventually("figures", PATIENCE, async || {
        let shown = cluster.kubectl().run(&top).await;
        shown.map_err(|error| error.to_string())
    });
    let shown = shown.await.unwrap();
    let figures: Vec<&str> = shown.split_whitespace().collect();
    assert!(
        figures[1].ends_with('m') && figures[3].ends_with("Mi"),
        "{shown}"
    );
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn kubectl_top_shows_a_node_of_the_oldest_cluster() {
    top_shows_a_node(Version::Oldest).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn kubectl_top_shows_a_node_of_the_newest_cluster() {
    top_shows_a_node(Version::Newest).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn a_program_that_was_added_is_frozen_thawed_killed_and_logged_as_the_others_are() {
    let network = Network::new().unwrap();
    let cluster = cluster(&network, Version::Oldest, None).await;
    let mut node = node(&network, &cluster, false).await;
    node.write_file("/etc/own/config", "configured").unwrap();
    let script = "cat /etc/own/config; exec busybox nc -ll -p 7777 -e echo hello";
    let own = node.add_program("own", Path::new("sh"), &["-c", script]);
    node.start_program(own).await.unwrap();
    let hello = async |node: &Node| {
        let ask = ["busybox", "timeout", "1", "nc", "127.0.0.1", "7777"];
        node.run(&ask).await.map_err(|error| error.to_string())
    };
    let answers = async |node: &Node| {
        let asked = eventually("an answer", PATIENCE, async || hello(node).await);
        assert_eq!(asked.await.unwrap(), "hello\n");
    };
    answers(&node).await;
    assert_eq!(node.log(own), "configured");

    node.freeze(own).unwrap();
    hello(&node).await.unwrap_err();
    node.thaw(own).unwrap();
    answers(&node).await;

    let before = node.pid(own);
    node.restart(own).await.unwrap();
    answers(&node).await;
    assert_ne!(node.pid(own), before);
    node.kill(own).unwrap();
    hello(&node).await.unwrap_err();
    node.freeze(own).unwrap_err();

    node.power_off();
    node.power_on().await.unwrap();
    answers(&node).await;
}
