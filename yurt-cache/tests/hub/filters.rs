//! What callers see through the filters: alike in lists, watches, single reads and answers to writes.

#[path = "filters/hidden.rs"]
mod hidden;
#[path = "filters/topology.rs"]
mod topology;

use serde_json::{Value, json};
use testbed::api::ApiConfig;
use testbed::client::{Client, Watch};
use yurt_cache::hub::{CallerName, Config, FilterConfig, FilterName};

use super::site::{Bed, SOON, eventually, revision};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const PODS: &str = "/api/v1/namespaces/default/pods";
const HUB: &str = "127.0.0.1";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The query of a watch whose initial events are asked for.
const INITIAL: &str =
    "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";

/// A bed whose hub pods reach, on the node `n1`.
async fn bed() -> Bed {
    adjusted(|_| {}).await
}

async fn adjusted(adjust: impl Fn(&mut Config) + Send + Sync + 'static) -> Bed {
    Bed::with(ApiConfig::default(), |mut site| {
        site.adjust(move |config| {
            config.pod_address = Some(format!("{HUB}:0").parse().unwrap());
            adjust(config);
        });
        site
    })
    .await
}

/// Returns a client that is a service account of kube-system.
async fn account(bed: &Bed, name: &str) -> Client {
    bed.site.bearer(&token(bed, name).await)
}

/// Asks the cloud for a token of a service account of kube-system.
async fn token(bed: &Bed, name: &str) -> String {
    let accounts = "/api/v1/namespaces/kube-system/serviceaccounts";
    let body = json!({"metadata": {"name": name}});
    let made = bed.cloud().post(accounts, &body).await.unwrap();
    assert!([201, 409].contains(&made.code), "{}", made.code);
    let asked =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let said = put(bed, &format!("{accounts}/{name}/token"), &asked).await;
    said["status"]["token"].as_str().unwrap().to_owned()
}

async fn put(bed: &Bed, collection: &str, object: &Value) -> Value {
    let made = bed.cloud().post(collection, object).await.unwrap();
    made.expect(201)
}

/// Patches an object in the cloud; returns its revision.
async fn patch(bed: &Bed, path: &str, patch: &Value) -> u64 {
    let patched = bed.cloud().patch(path, "merge", patch).await.unwrap();
    revision(&patched.expect(200))
}

fn service(name: &str, kind: &str, annotations: Value) -> Value {
    json!({"metadata": {"name": name, "annotations": annotations},
        "spec": {"type": kind, "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
            "ports": [{"name": "https", "port": 443}], "fromTheFuture": {"a": 1}}})
}

fn pod() -> Value {
    let variable = json!({"name": "KUBERNETES_SERVICE_HOST", "value": "10.96.0.1"});
    let container = json!({"name": "c", "image": "i", "env": [variable]});
    json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [container]}})
}

fn host(pod: &Value) -> &str {
    pod["spec"]["containers"][0]["env"][0]["value"]
        .as_str()
        .unwrap()
}

async fn next(watch: &mut Watch) -> Value {
    let event = watch.next(SOON).await.unwrap();
    event.expect("the watch goes on").object
}

#[track_caller]
fn is_moved(bed: &Bed, service: &Value) {
    assert_eq!(service["spec"]["clusterIP"], HUB, "{service}");
    assert_eq!(service["spec"]["clusterIPs"], json!([HUB]));
    assert_eq!(service["spec"]["ports"][0]["port"], bed.site.pods().port());
    assert_eq!(service["spec"]["fromTheFuture"]["a"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_reads_and_watches_pass_the_same_filters_online_and_cut_off() {
    let bed = bed().await;
    put(
        &bed,
        SERVICES,
        &service("kubernetes", "ClusterIP", json!({})),
    )
    .await;
    let other = put(&bed, SERVICES, &service("web", "ClusterIP", json!({}))).await;
    let node = bed.site.node();
    let one = format!("{SERVICES}/kubernetes");
    for is_cut in [false, true] {
        if is_cut {
            bed.cut().await;
        }
        for query in ["", "?resourceVersion=0", "?limit=1"] {
            let answer = node.get(&format!("{SERVICES}{query}")).await.unwrap();
            assert_eq!(answer.headers["x-yurt-served-from"], "mirror", "{query}");
            is_moved(&bed, &answer.expect(200)["items"][0]);
        }
        for query in ["", "?resourceVersion=0"] {
            let service = node
                .get(&format!("{one}{query}"))
                .await
                .unwrap()
                .expect(200);
            assert_eq!(service["kind"], "Service");
            is_moved(&bed, &service);
        }
        for query in [INITIAL, "?watch=1", "?watch=1&resourceVersion=0"] {
            let mut watch = node.watch(&format!("{SERVICES}{query}")).await.unwrap();
            let service = next(&mut watch).await;
            assert_eq!(service["kind"], "Service");
            is_moved(&bed, &service);
            assert_eq!(next(&mut watch).await, other, "what no filter changes");
        }
    }
    bed.mend().await;
    let stranger = account(&bed, "stranger").await;
    let seen = stranger.get(&one).await.unwrap().expect(200);
    assert_eq!(seen["spec"]["clusterIP"], "10.96.0.7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_a_running_watch_passes_the_filters() {
    let bed = bed().await;
    put(
        &bed,
        SERVICES,
        &service("kubernetes", "ClusterIP", json!({})),
    )
    .await;
    let node = bed.site.node();
    let then = revision(&node.get(SERVICES).await.unwrap().expect(200));
    let path = format!("{SERVICES}?watch=1&resourceVersion={then}");
    let mut watch = node.watch(&path).await.unwrap();
    let change = json!({"metadata": {"labels": {"a": "b"}}});
    let changed = patch(&bed, &format!("{SERVICES}/kubernetes"), &change).await;
    let service = next(&mut watch).await;
    assert_eq!(revision(&service), changed);
    is_moved(&bed, &service);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_a_callers_own_write_passes_the_filters_and_the_cloud_keeps_what_it_has() {
    let bed = bed().await;
    put(&bed, PODS, &pod()).await;
    let node = bed.site.node();
    let path = format!("{PODS}/p");
    let status = json!({"status": {"phase": "Running"}});
    for kind in ["merge", "strategic-merge"] {
        let answer = node.patch(&format!("{path}/status"), kind, &status).await;
        let written = answer.unwrap().expect(200);
        assert_eq!(host(&written), HUB);
        assert_eq!(written["status"]["phase"], "Running");
    }
    let mut whole = bed.cloud().get(&path).await.unwrap().expect(200);
    assert_eq!(host(&whole), "10.96.0.1");
    whole["metadata"]["labels"] = json!({"a": "b"});
    let written = node.put(&path, &whole).await.unwrap().expect(200);
    assert_eq!(host(&written), HUB);
    let gone = node.delete(&path, None).await.unwrap().expect(200);
    assert_eq!(host(&gone), HUB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_and_metadata_pass_the_filters_too() {
    let bed = bed().await;
    let discarded = json!({"svc.openyurt.io/discard": "true"});
    put(&bed, SERVICES, &service("cloud", "LoadBalancer", discarded)).await;
    put(&bed, SERVICES, &service("web", "LoadBalancer", json!({}))).await;
    let proxy = account(&bed, "kube-proxy").await;
    for is_cut in [false, true] {
        if is_cut {
            bed.cut().await;
        }
        let table = proxy.get_as(SERVICES, TABLE).await.unwrap().expect(200);
        assert_eq!(table["kind"], "Table");
        assert_eq!(table["rows"].as_array().unwrap().len(), 1, "{table}");
        let list = proxy
            .get_as(SERVICES, METADATA_LIST)
            .await
            .unwrap()
            .expect(200);
        assert_eq!(list["kind"], "PartialObjectMetadataList");
        assert_eq!(super::site::names(&list), ["web"]);
        for (accept, kind) in [(TABLE, "Table"), (METADATA, "PartialObjectMetadata")] {
            let one = proxy
                .get_as(&format!("{SERVICES}/web"), accept)
                .await
                .unwrap();
            assert_eq!(one.expect(200)["kind"], kind);
            let hidden = proxy
                .get_as(&format!("{SERVICES}/cloud"), accept)
                .await
                .unwrap();
            hidden.expect_status(404, "NotFound");
            let path = format!("{SERVICES}?watch=1&resourceVersion=0");
            let mut watch = proxy.watch_as(&path, accept).await.unwrap();
            assert_eq!(next(&mut watch).await["kind"], kind);
        }
        let refused = proxy.get_as(SERVICES, PROTOBUF).await.unwrap();
        refused.expect_status(406, "NotAcceptable");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_is_off_for_whom_it_is_not_and_where_pods_cannot_reach_the_hub() {
    let custom = CallerName::ServiceAccount {
        namespace: "kube-system".into(),
        name: "router".into(),
    };
    let beds = [
        adjusted(|config| config.pod_address = None).await,
        adjusted(|config| config.filters = FilterConfig::off()).await,
        adjusted(move |config| {
            config
                .filters
                .set(FilterName::MasterService, [custom.clone()])
        })
        .await,
    ];
    for (at, bed) in beds.iter().enumerate() {
        put(
            bed,
            SERVICES,
            &service("kubernetes", "ClusterIP", json!({})),
        )
        .await;
        let path = format!("{SERVICES}/kubernetes");
        for client in [bed.site.node(), account(bed, "kube-proxy").await] {
            let seen = client.get(&path).await.unwrap().expect(200);
            assert_eq!(seen["spec"]["clusterIP"], "10.96.0.7");
        }
        let router = account(bed, "router").await;
        let seen = router.get(&path).await.unwrap().expect(200);
        assert_eq!(seen["spec"]["clusterIP"] == HUB, at == 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_clients_were_shown_once_more_has_the_revision_of_the_cloud() {
    let mut bed = bed().await;
    let made = put(
        &bed,
        SERVICES,
        &service("kubernetes", "ClusterIP", json!({})),
    )
    .await;
    let from_mirror = format!("{SERVICES}?resourceVersion=0");
    let held = bed.site.node().get(&from_mirror).await.unwrap().expect(200);
    bed.site.is_live("v1/services in default").await;
    // The hub has another port for pods: clients have to see its Service once more.
    bed.restart().await;
    bed.site.sees_the_cloud(true).await;
    let from = revision(&held);
    let path = format!("{SERVICES}?watch=1&resourceVersion={from}");
    let node = bed.site.node();
    let mut watch = node.watch(&path).await.unwrap();
    next(&mut watch).await;
    eventually("it can be written as it was read", async || {
        let list = node.get(&from_mirror).await.unwrap().json();
        let mut items = list["items"].as_array().unwrap().iter();
        items.any(|item| revision(item) == revision(&made))
    })
    .await;
}
