//! What filters know of Services and pools: where it comes from, and what a change of it changes.

use serde_json::{Value, json};
use testbed::client::Client;
use yurt_cache::hub::FilterConfig;

use super::super::site::{Bed, MOMENT, SOON, eventually};
use super::{HUB, SERVICES, SLICES, account, adjusted, bed, next, patch, put, service, token};

const KEYS: &str = "openyurt.io/topologyKeys";
const LISTEN: &str = "nodeport.openyurt.io/listen";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
const NODES: &str = "/api/v1/nodes";
const POOLS: &str = "/apis/apps.openyurt.io/v1beta2/nodepools";
const BUCKETS: &str = "/apis/apps.openyurt.io/v1alpha1/nodebuckets";

fn slice(service: &str, nodes: &[&str]) -> Value {
    let endpoint = |node: &&str| json!({"addresses": ["10.0.0.1"], "nodeName": node});
    let endpoints: Vec<Value> = nodes.iter().map(endpoint).collect();
    json!({"metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "https", "port": 6443}]})
}

/// Returns where the endpoints of a slice are.
fn nodes(slice: &Value) -> Vec<&str> {
    let endpoints = slice["endpoints"].as_array().unwrap();
    endpoints
        .iter()
        .map(|one| one["nodeName"].as_str().unwrap())
        .collect()
}

/// Makes a Service with a slice on three nodes.
async fn publish(bed: &Bed, name: &str, keys: &str) {
    put(
        bed,
        SERVICES,
        &service(name, "ClusterIP", json!({KEYS: keys})),
    )
    .await;
    put(bed, SLICES, &slice(name, &["n1", "n2", "n3"])).await;
}

async fn join(bed: &Bed, pool: &str) {
    let labels = json!({"apps.openyurt.io/nodepool": pool});
    put(
        bed,
        NODES,
        &json!({"metadata": {"name": "n1", "labels": labels}}),
    )
    .await;
}

/// Defines a cluster-scoped kind of OpenYurt.
async fn define(bed: &Bed, plural: &str, kind: &str, version: &str) {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.apps.openyurt.io")},
        "spec": {"group": "apps.openyurt.io", "scope": "Cluster",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
            "versions": [{"name": version, "served": true, "storage": true, "schema": schema}]}});
    put(
        bed,
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        &definition,
    )
    .await;
}

async fn pool(bed: &Bed, name: &str, nodes: &[&str]) {
    let pool = json!({"apiVersion": "apps.openyurt.io/v1beta2", "kind": "NodePool",
        "metadata": {"name": name}, "status": {"nodes": nodes}});
    put(bed, POOLS, &pool).await;
}

async fn sees(client: &Client, name: &str, expected: &[&str]) {
    let slice = client
        .get(&format!("{SLICES}/{name}"))
        .await
        .unwrap()
        .expect(200);
    assert_eq!(nodes(&slice), expected, "{name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_stays_near_where_its_service_says_so() {
    let bed = bed().await;
    join(&bed, "here").await;
    define(&bed, "nodepools", "NodePool", "v1beta2").await;
    pool(&bed, "here", &["n1", "n2"]).await;
    publish(&bed, "near", "kubernetes.io/hostname").await;
    publish(&bed, "pool", "openyurt.io/nodepool").await;
    publish(&bed, "far", "").await;
    put(&bed, SLICES, &slice("kubernetes", &["-"])).await;
    let addresses = ["n1", "n2"].map(|node| json!({"ip": "10.0.0.1", "nodeName": node}));
    let endpoints = json!({"metadata": {"name": "near"}, "subsets": [{"addresses": addresses}]});
    put(&bed, ENDPOINTS, &endpoints).await;
    for name in ["kube-proxy", "coredns"] {
        let client = account(&bed, name).await;
        sees(&client, "near", &["n1"]).await;
        sees(&client, "pool", &["n1", "n2"]).await;
        sees(&client, "far", &["n1", "n2", "n3"]).await;
        let list = client.get(SLICES).await.unwrap().expect(200);
        let kubernetes = list["items"].as_array().unwrap().iter();
        let kubernetes = kubernetes
            .clone()
            .find(|slice| slice["metadata"]["name"] == "kubernetes");
        let is_moved = kubernetes.unwrap()["endpoints"][0]["addresses"][0] == HUB;
        assert_eq!(is_moved, name == "kube-proxy");
        let path = format!("{ENDPOINTS}?watch=1&resourceVersion=0");
        let endpoints = next(&mut client.watch(&path).await.unwrap()).await;
        assert_eq!(
            endpoints["subsets"][0]["addresses"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }
    sees(&bed.site.node(), "near", &["n1", "n2", "n3"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buckets_say_who_is_in_a_pool_where_there_are_no_node_pools() {
    let bed = bed().await;
    join(&bed, "here").await;
    define(&bed, "nodebuckets", "NodeBucket", "v1alpha1").await;
    for (name, pool, node) in [
        ("a", "here", "n2"),
        ("b", "here", "n4"),
        ("c", "there", "n3"),
    ] {
        let bucket = json!({"apiVersion": "apps.openyurt.io/v1alpha1", "kind": "NodeBucket",
            "metadata": {"name": name, "labels": {"openyurt.io/pool-name": pool}}, "nodes": [{"name": node}]});
        put(&bed, BUCKETS, &bucket).await;
    }
    publish(&bed, "pool", "openyurt.io/nodepool").await;
    sees(&account(&bed, "kube-proxy").await, "pool", &["n1", "n2"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_may_say_the_pool() {
    let bed = adjusted(|config| config.pool_name = Some("there".into())).await;
    put(
        &bed,
        SERVICES,
        &service("open", "NodePort", json!({LISTEN: "there"})),
    )
    .await;
    put(
        &bed,
        SERVICES,
        &service("closed", "NodePort", json!({LISTEN: "here"})),
    )
    .await;
    let proxy = account(&bed, "kube-proxy").await;
    let list = proxy.get(SERVICES).await.unwrap().expect(200);
    assert_eq!(super::super::site::names(&list), ["open"]);
    assert_eq!(bed.api.count("list", "nodes"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_asks_the_cloud_only_what_its_services_make_necessary() {
    let bed = bed().await;
    let asked = || {
        ["services", "nodes", "nodepools", "nodebuckets"].map(|kind| bed.api.count("list", kind))
    };
    bed.site.node().get(SERVICES).await.unwrap().expect(200);
    assert_eq!(asked(), [1, 0, 0, 0], "that one the node asked for");
    publish(&bed, "near", "kubernetes.io/hostname").await;
    sees(&account(&bed, "kube-proxy").await, "near", &["n1"]).await;
    assert_eq!(asked()[1..], [0, 0, 0]);
    publish(&bed, "pool", "openyurt.io/nodepool").await;
    eventually("the node is looked at", async || asked()[1] == 1).await;
    // It is in no pool.
    let proxy = account(&bed, "kube-proxy").await;
    eventually("the Service is known", async || {
        let slice = proxy.get(&format!("{SLICES}/pool")).await.unwrap();
        slice.code == 200 && nodes(&slice.expect(200)) == ["n1"]
    })
    .await;
    assert_eq!(asked()[2..], [0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_decided_is_refused_and_never_shown() {
    let bed = bed().await;
    join(&bed, "here").await;
    publish(&bed, "far", "").await;
    let proxy = account(&bed, "kube-proxy").await;
    let list = proxy.get(SLICES).await.unwrap().expect(200);
    let then = super::revision(&list);
    let mut watch = proxy
        .watch(&format!("{SLICES}?watch=1&resourceVersion={then}"))
        .await
        .unwrap();
    // Nobody says which nodes are in the pool.
    put(
        &bed,
        SERVICES,
        &service("pool", "ClusterIP", json!({KEYS: "openyurt.io/nodepool"})),
    )
    .await;
    eventually("the Service is known", async || {
        bed.api.count("list", "nodebuckets") > 0
    })
    .await;
    put(&bed, SLICES, &slice("pool", &["n1", "n2", "n3"])).await;
    let event = watch.next(SOON).await.unwrap().unwrap();
    assert_eq!(
        (event.kind.as_str(), event.object["code"].as_u64()),
        ("ERROR", Some(503))
    );
    assert!(watch.next(SOON).await.unwrap().is_none());
    sees(
        &account(&bed, "stranger").await,
        "pool",
        &["n1", "n2", "n3"],
    )
    .await;
    for path in [SLICES, &format!("{SLICES}/pool")] {
        let refused = proxy.get(path).await.unwrap();
        let text = refused.expect_status(503, "ServiceUnavailable");
        assert!(
            text["message"]
                .as_str()
                .unwrap()
                .contains("servicetopology"),
            "{text}"
        );
    }
    sees(&proxy, "far", &["n1", "n2", "n3"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_service_or_a_pool_reaches_who_watches_the_slices() {
    let bed = bed().await;
    join(&bed, "here").await;
    define(&bed, "nodepools", "NodePool", "v1beta2").await;
    pool(&bed, "here", &["n1", "n2"]).await;
    publish(&bed, "web", "").await;
    publish(&bed, "other", "").await;
    let proxy = account(&bed, "kube-proxy").await;
    let list = proxy.get(SLICES).await.unwrap().expect(200);
    let mut last = super::revision(&list);
    let mut watch = proxy
        .watch(&format!("{SLICES}?watch=1&resourceVersion={last}"))
        .await
        .unwrap();
    let keys = |keys: &str| json!({"metadata": {"annotations": {KEYS: keys}}});
    let service = format!("{SERVICES}/web");
    let members = json!({"status": {"nodes": ["n1", "n3"]}});
    for (path, change, expected) in [
        (&service, keys("kubernetes.io/hostname"), &["n1"][..]),
        (&service, keys("openyurt.io/nodepool"), &["n1", "n2"]),
        (&format!("{POOLS}/here"), members, &["n1", "n3"]),
        (&service, keys(""), &["n1", "n2", "n3"]),
    ] {
        patch(&bed, path, &change).await;
        let slice = next(&mut watch).await;
        assert_eq!(slice["metadata"]["name"], "web", "{slice}");
        assert_eq!(nodes(&slice), expected);
        assert!(
            super::revision(&slice) > last,
            "clients ignore what is not newer"
        );
        last = super::revision(&slice);
        // And once more with the cloud's own revision, by which whoever writes goes.
        assert_eq!(nodes(&next(&mut watch).await), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_filters_know_survives_a_restart_while_cut_off() {
    let mut bed = adjusted(|config| config.pod_address = None).await;
    publish(&bed, "near", "kubernetes.io/hostname").await;
    let token = token(&bed, "kube-proxy").await;
    let proxy = bed.site.bearer(&token);
    let list = proxy.get(SLICES).await.unwrap().expect(200);
    assert_eq!(nodes(&list["items"][0]), ["n1"]);
    let path = format!(
        "{SLICES}?watch=1&resourceVersion={}",
        super::revision(&list)
    );
    assert_eq!(proxy.watch(&path).await.unwrap().code, 200);
    bed.site
        .is_live("discovery.k8s.io/v1/endpointslices in default")
        .await;
    bed.cut().await;
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    let proxy = bed.site.bearer(&token);
    let mut watch = proxy.watch(&path).await.unwrap();
    assert_eq!(watch.code, 200);
    let again = proxy.get(SLICES).await.unwrap().expect(200);
    assert_eq!(again["items"], list["items"]);
    assert!(watch.is_silent(MOMENT).await.unwrap(), "nothing is news");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_new_configuration_changes_reaches_who_resumes_after_the_restart() {
    let mut bed = adjusted(|config| config.filters = FilterConfig::off()).await;
    publish(&bed, "near", "kubernetes.io/hostname").await;
    publish(&bed, "far", "").await;
    let list = account(&bed, "kube-proxy").await.get(SLICES).await;
    let list = list.unwrap().expect(200);
    assert_eq!(nodes(&list["items"][1]), ["n1", "n2", "n3"]);
    let from = format!(
        "{SLICES}?watch=1&resourceVersion={}",
        super::revision(&list)
    );
    bed.site
        .is_live("discovery.k8s.io/v1/endpointslices in default")
        .await;
    bed.site.adjust(|_| {});
    bed.restart().await;
    bed.site.sees_the_cloud(true).await;
    let proxy = account(&bed, "kube-proxy").await;
    let mut watch = proxy.watch(&from).await.unwrap();
    let slice = loop {
        let slice = next(&mut watch).await;
        if slice["metadata"]["name"] == "near" {
            break slice;
        }
    };
    assert_eq!(nodes(&slice), ["n1"]);
}
