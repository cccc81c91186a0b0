use std::path::Path;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use testbed::api::{ApiConfig, ApiServer};
use tokio::task::JoinSet;
use tokio::time::timeout;
use yurt_tunnel::nodes::Found;

use super::object::EDGE_LABEL;
use super::*;
use crate::config::Cluster;

/// Whatever takes longer has failed.
const SOON: Duration = Duration::from_secs(20);

type KubeNode = k8s_openapi::api::core::v1::Node;

/// What is published while this lives.
struct Shown {
    table: watch::Receiver<Arc<NodeTable>>,
    _task: JoinSet<()>,
}

fn grants() -> Grants {
    Grants {
        node_networks: vec!["192.0.2.0/24".parse().unwrap()],
        ..Grants::default()
    }
}

impl Shown {
    fn of(config: Config, folder: &Path) -> Self {
        let (source, table) = KubeNodes::open(config, Some(folder.to_owned()), grants()).unwrap();
        let (tx, table) = watch::channel(Arc::new(table));
        let mut task = JoinSet::new();
        task.spawn(async move { source.publish(tx, CancellationToken::new()).await });
        Self { table, _task: task }
    }

    /// Waits for a table with these names.
    async fn names(&mut self, expected: &[&str]) {
        let is_it = |table: &Arc<NodeTable>| {
            let names = table.nodes().map(|node| node.name.as_str());
            names.eq(expected.iter().copied())
        };
        let waited = timeout(SOON, self.table.wait_for(is_it)).await;
        assert!(waited.is_ok(), "{expected:?} are awaited");
    }
}

/// How to ask an API server as its administrator: by a kubeconfig in a folder.
async fn config(server: &ApiServer, folder: &Path) -> Config {
    let (endpoint, ca) = (server.endpoint(), folder.join("ca.crt"));
    let kubeconfig = json!({
        "clusters": [{"name": "c", "cluster": {"server": endpoint.url, "certificate-authority": ca}}],
        "users": [{"name": "u", "user": {"token": endpoint.admin_token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    write(&ca, &endpoint.ca_pem);
    write(&folder.join("kubeconfig"), &kubeconfig.to_string());
    let cluster = Cluster::by_file(&folder.join("kubeconfig")).unwrap();
    cluster.config().await.unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test sets up its files")]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

async fn create(nodes: &Api<KubeNode>, name: &str) {
    let node = json!({"metadata": {"name": name, "labels": {EDGE_LABEL: "true"}}});
    let node = serde_json::from_value(node).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
}

#[tokio::test]
async fn nodes_come_change_and_go_and_the_last_one_too() {
    let (server, folder) = (
        ApiServer::start(ApiConfig::default()).await.unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let config = config(&server, folder.path()).await;
    let nodes = Api::<KubeNode>::all(Client::try_from(config.clone()).unwrap());
    create(&nodes, "one").await;
    let mut shown = Shown::of(config, folder.path());
    shown.names(&["one"]).await;
    create(&nodes, "two").await;
    shown.names(&["one", "two"]).await;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
    let (how, what) = (PatchParams::default(), Patch::Merge(status));
    nodes.patch_status("one", &how, &what).await.unwrap();
    let has_address = |table: &Arc<NodeTable>| matches!(table.find("192.0.2.1"), Found::Kubelet(_));
    let found = timeout(SOON, shown.table.wait_for(has_address))
        .await
        .is_ok();
    assert!(found, "a node's address is found");
    for (gone, left) in [("two", &["one"][..]), ("one", &[])] {
        nodes.delete(gone, &DeleteParams::default()).await.unwrap();
        shown.names(left).await;
    }
}

#[tokio::test]
async fn without_an_api_server_the_nodes_of_before_are_known() {
    let (server, folder) = (
        ApiServer::start(ApiConfig::default()).await.unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let config = config(&server, folder.path()).await;
    let nodes = Api::<KubeNode>::all(Client::try_from(config.clone()).unwrap());
    create(&nodes, "one").await;
    let mut shown = Shown::of(config.clone(), folder.path());
    shown.names(&["one"]).await;
    // A second table shows that the first is on disk.
    create(&nodes, "two").await;
    shown.names(&["one", "two"]).await;
    drop(shown);
    server.stop().await;
    let mut shown = Shown::of(config, folder.path());
    let before = shown.table.borrow_and_update().clone();
    assert!(matches!(before.find("one"), Found::Node(node) if node.edge));
    let changed = timeout(PAUSE * 2, shown.table.changed()).await;
    assert!(changed.is_err(), "what is known stays");
}

fn object(value: Value) -> NodeObject {
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_node_is_what_its_object_says() {
    let node = known(&object(json!({
        "metadata": {"name": "edge-1", "labels": {EDGE_LABEL: "true"}},
        "spec": {"podCIDR": "10.244.1.0/24"},
        "status": {
            "addresses": [
                {"type": "Hostname", "address": "shop-7"},
                {"type": "ExternalIP", "address": "203.0.113.9"},
                {"type": "InternalIP", "address": "10.1.2.3"},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 11250}},
            "images": [{"names": ["pause"], "sizeBytes": 1}],
        },
    })));
    let node = node.unwrap().node;
    assert_eq!(node.addresses, ["10.1.2.3", "shop-7", "203.0.113.9"]);
    assert!(node.edge && node.kubelet_port == 11250);
    let bare = json!({"metadata": {"name": "cloud-1"}, "spec": {}});
    let bare = known(&object(bare)).unwrap().node;
    assert!(!bare.edge && bare.kubelet_port == 10250 && bare.addresses.is_empty());
    let labels = json!({EDGE_LABEL: "false"});
    let other = json!({"metadata": {"name": "c", "labels": labels}, "spec": {}});
    assert!(!known(&object(other)).unwrap().node.edge);
}

#[test]
fn a_node_does_not_claim_a_whole_network_nor_fill_the_memory() {
    let mut addresses: Vec<_> = (0..255).map(|last| format!("192.0.2.{last}")).collect();
    addresses.insert(0, "a".repeat(1 << 20));
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let node = known(&claiming("edge-1", "2025-01-01T00:00:00Z", &addresses));
    let node = node.unwrap().node;
    assert_eq!(node.addresses.len(), 64);
    assert_eq!(node.addresses[0], "192.0.2.0");
}

#[test]
fn nodes_are_remembered_and_a_damaged_memory_is_none() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(kept::read(folder.path(), &grants()), NodeTable::default());
    let bare = json!({"metadata": {"name": "cloud-1"}, "spec": {}});
    let node = known(&object(bare)).unwrap().node;
    kept::write(folder.path(), std::slice::from_ref(&node)).unwrap();
    let table = kept::read(folder.path(), &grants());
    assert!(matches!(table.find("cloud-1"), Found::Node(found) if *found == node));
    let file = std::fs::File::create(folder.path().join("nodes.json")).unwrap();
    file.set_len(3).unwrap();
    assert_eq!(kept::read(folder.path(), &grants()), NodeTable::default());
}

/// A Node object that says so of itself.
fn claiming(name: &str, created: &str, addresses: &[&str]) -> NodeObject {
    let addresses = addresses.iter();
    let addresses = addresses.map(|one| json!({"type": "ExternalIP", "address": one}));
    object(json!({
        "metadata": {"name": name, "creationTimestamp": created, "labels": {EDGE_LABEL: "true"}},
        "status": {"addresses": addresses.collect::<Vec<_>>()},
    }))
}

#[test]
fn what_a_node_claims_of_an_older_one_stays_the_older_ones_and_after_a_restart_too() {
    let mut watched = Watched::default();
    let (old, young) = ("2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
    watched.take(Event::Apply(claiming("edge-9", old, &["192.0.2.9"])));
    watched.take(Event::Apply(claiming(
        "edge-1",
        young,
        &["192.0.2.1", "192.0.2.9", "10.96.0.1"],
    )));
    watched.take(Event::Apply(claiming("edge-2", young, &["192.0.2.1"])));
    let nodes = oldest_first(watched.nodes.values());
    let table = NodeTable::claimed(nodes.clone(), &grants());
    let folder = tempfile::tempdir().unwrap();
    kept::write(folder.path(), &nodes).unwrap();
    assert_eq!(kept::read(folder.path(), &grants()), table);
    let owner = |host| match table.find(host) {
        Found::Kubelet(node) => node.name.as_str(),
        Found::Node(_) | Found::Disputed | Found::Nobody => "nobody",
    };
    assert_eq!(owner("192.0.2.9"), "edge-9", "the older one");
    assert_eq!(owner("192.0.2.1"), "edge-1", "of one age, by name");
    assert_eq!(owner("10.96.0.1"), "nobody", "outside");
    assert_eq!(table.refused().len(), 3);
}
