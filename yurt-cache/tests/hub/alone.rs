//! What the node itself can stand behind while the cloud is away, and that nothing of it is left afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use testbed::api::ApiConfig;
use testbed::client::{Client, Watch};
use yurt_cache::store::MemoryStore;
use yurt_core::store::Store;
use yurt_core::testing::fault::{Call, SlowStore};

use super::site::{Bed, NODE, SOON, events, eventually, names, revision};

const PODS: &str = "/api/v1/namespaces/default/pods";
pub(crate) const POD: &str = "/api/v1/namespaces/default/pods/till";
const STATUS: &str = "/api/v1/namespaces/default/pods/till/status";
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
pub(crate) const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/shop-1";
const EVENTS: &str = "/api/v1/namespaces/default/events";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const CSI_DRIVERS: &str = "/apis/storage.k8s.io/v1/csidrivers";
const STRATEGIC: &str = "strategic-merge";

/// A bed whose node has one pod behind one Service, and whose kubelet and kube-proxy know them.
pub(crate) async fn bed() -> Bed {
    bed_on(Arc::new(MemoryStore::new())).await
}

pub(crate) async fn bed_on(store: Arc<dyn Store>) -> Bed {
    let bed = Bed::with(ApiConfig::default(), |site| site.with_store(store)).await;
    let cloud = bed.cloud();
    let pod = json!({
        "metadata": {"name": "till", "labels": {"app": "shop"}},
        "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "i"}]},
    });
    cloud.post(PODS, &pod).await.unwrap().expect(201);
    report(&cloud, "10.0.0.1", "True").await.expect(200);
    let uid = cloud.get(POD).await.unwrap().json()["metadata"]["uid"].clone();
    let slice = json!({
        "metadata": {"name": "shop-1", "labels": {"kubernetes.io/service-name": "shop"}},
        "addressType": "IPv4",
        "endpoints": [endpoint("10.0.0.1", true, &uid), endpoint("10.0.9.9", true, &json!("elsewhere"))],
        "ports": [{"port": 80}],
    });
    cloud.post(SLICES, &slice).await.unwrap().expect(201);
    for path in [PODS, SLICES] {
        let list = format!("{path}?resourceVersion=0");
        bed.site.node().get(&list).await.unwrap().expect(200);
    }
    bed
}

pub(crate) fn endpoint(ip: &str, ready: bool, uid: &Value) -> Value {
    json!({
        "addresses": [ip],
        "conditions": {"ready": ready, "serving": ready, "terminating": false},
        "targetRef": {"kind": "Pod", "name": "till", "namespace": "default", "uid": uid},
    })
}

/// Reports a pod's address and readiness as a kubelet does.
pub(crate) async fn report(client: &Client, ip: &str, ready: &str) -> testbed::client::Answer {
    let patch = json!({"status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"$patch": "replace"}, {"ip": ip}],
        "conditions": [{"type": "Ready", "status": ready}],
    }});
    client.patch(STATUS, STRATEGIC, &patch).await.unwrap()
}

pub(crate) async fn watch(client: &Client, path: &str) -> Watch {
    let list = client
        .get(&format!("{path}?resourceVersion=0"))
        .await
        .unwrap();
    let from = revision(&list.json());
    let uri = format!("{path}?watch=1&allowWatchBookmarks=true&resourceVersion={from}");
    client.watch(&uri).await.unwrap()
}

/// Returns the next object that a watch tells of.
pub(crate) async fn next(watch: &mut Watch) -> Value {
    loop {
        let event = watch.next(SOON).await.unwrap().expect("the watch goes on");
        assert_ne!(event.kind, "ERROR", "{}", event.object);
        if event.kind != "BOOKMARK" {
            return event.object;
        }
    }
}

fn ip(pod: &Value) -> &str {
    pod["status"]["podIP"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_status_reported_while_cut_off_is_what_everybody_on_the_node_sees_until_the_cloud_is_back()
 {
    let mut bed = bed().await;
    let node = bed.site.node();
    let before = bed.cloud().get(POD).await.unwrap().text().to_owned();
    let mut pods = watch(&node, PODS).await;
    bed.cut().await;

    let answer = report(&node, "10.0.0.7", "False").await;
    assert_eq!(answer.code, 200, "{}", answer.text());
    let shown = answer.json();
    assert_eq!(ip(&shown), "10.0.0.7");
    assert_eq!(shown["spec"]["nodeName"], NODE);
    assert_eq!(next(&mut pods).await, shown);
    assert_eq!(node.get(POD).await.unwrap().json(), shown);
    let list = node.get(PODS).await.unwrap().json();
    assert_eq!(ip(&list["items"][0]), "10.0.0.7");
    assert!(revision(&list) >= revision(&shown));

    bed.restart().await;
    let node = bed.site.node();
    bed.site.sees_the_cloud(false).await;
    assert_eq!(
        node.get(POD).await.unwrap().json(),
        shown,
        "over a restart too"
    );
    let mut pods = watch(&node, PODS).await;

    bed.mend().await;
    let back = next(&mut pods).await;
    assert_eq!(ip(&back), "10.0.0.1");
    let own = node.get(&format!("{POD}?resourceVersion=0")).await.unwrap();
    assert_eq!(
        own.text().trim_end(),
        before,
        "byte for byte what the cloud has"
    );
}

#[tokio::test]
async fn what_changes_nothing_makes_no_event_and_what_is_for_another_pod_is_a_conflict() {
    let bed = bed().await;
    let node = bed.site.node();
    bed.cut().await;
    let known = node.get(POD).await.unwrap().json();
    let same = report(&node, "10.0.0.1", "True").await;
    assert_eq!(revision(&same.json()), revision(&known));
    let other = json!({"metadata": {"uid": "other"}, "status": {"phase": "Failed"}});
    let refused = node.patch(STATUS, STRATEGIC, &other).await.unwrap();
    assert_eq!(
        (refused.code, refused.json()["reason"].as_str()),
        (409, Some("Conflict"))
    );
    let unknown = format!("{PODS}/nobody/status");
    let refused = node.patch(&unknown, STRATEGIC, &json!({})).await.unwrap();
    assert_eq!(refused.code, 503, "{}", refused.text());
}

#[tokio::test]
async fn a_write_that_is_only_tried_leaves_no_trace() {
    let bed = bed().await;
    let node = bed.site.node();
    bed.cut().await;
    let known = node.get(POD).await.unwrap().json();
    let list = revision(&node.get(PODS).await.unwrap().json());
    let patch = json!({"status": {"podIP": "10.0.0.9"}});
    let tried = node
        .patch(&format!("{STATUS}?dryRun=All"), STRATEGIC, &patch)
        .await
        .unwrap();
    assert_eq!(ip(&tried.expect(200)), "10.0.0.9", "what it would be");
    assert_eq!(node.get(POD).await.unwrap().json(), known);
    assert_eq!(revision(&node.get(PODS).await.unwrap().json()), list);
    let event = json!({
        "kind": "Event", "apiVersion": "v1",
        "metadata": {"name": "till.9", "namespace": "default"}, "reason": "Started",
    });
    let tried = node.post(&format!("{EVENTS}?dryRun=All"), &event).await;
    tried.unwrap().expect(201);
    assert_eq!(bed.site.metric("yurthub_events_queued", "").await, 0.0);
}

#[tokio::test]
async fn the_endpoints_of_a_service_follow_the_pods_that_really_run_here() {
    let bed = bed().await;
    let node = bed.site.node();
    let mut slices = watch(&node, SLICES).await;
    bed.cut().await;
    let uid = node.get(POD).await.unwrap().json()["metadata"]["uid"].clone();
    report(&node, "10.0.0.7", "False").await.expect(200);
    let unready = next(&mut slices).await;
    assert_eq!(unready["endpoints"][0], endpoint("10.0.0.7", false, &uid));
    assert_eq!(
        unready["endpoints"][1],
        endpoint("10.0.9.9", true, &json!("elsewhere")),
        "pods of other nodes stay as last known"
    );
    report(&node, "10.0.0.7", "True").await.expect(200);
    let ready = next(&mut slices).await;
    assert_eq!(ready["endpoints"][0], endpoint("10.0.0.7", true, &uid));
    assert!(
        revision(&ready) > revision(&unready),
        "informers ignore what has no new revision"
    );

    bed.mend().await;
    // The kubelet reports again, and the cloud's controller follows.
    report(&bed.cloud(), "10.0.0.7", "True").await.expect(200);
    let patch = json!({"endpoints": [endpoint("10.0.0.7", true, &uid)]});
    let merged = bed.cloud().patch(SLICE, "merge", &patch).await;
    let merged = merged.unwrap().expect(200);
    loop {
        let seen = next(&mut slices).await;
        assert_eq!(
            seen["endpoints"][0],
            endpoint("10.0.0.7", true, &uid),
            "a Service that answered goes on answering"
        );
        if revision(&seen) == revision(&merged) {
            break;
        }
    }
    eventually("nothing local is left", async || {
        let slice = node
            .get(&format!("{SLICE}?resourceVersion=0"))
            .await
            .unwrap();
        slice.json() == merged
    })
    .await;
}

#[tokio::test]
async fn nobody_says_here_how_a_pod_of_another_node_is() {
    let bed = bed().await;
    let pod = json!({
        "metadata": {"name": "far", "labels": {"app": "shop"}},
        "spec": {"nodeName": "n2", "containers": [{"name": "c", "image": "i"}]},
    });
    let far = bed.cloud().post(PODS, &pod).await.unwrap().expect(201);
    let slice = json!({
        "metadata": {"name": "shop-2"}, "addressType": "IPv4",
        "endpoints": [endpoint("10.0.2.1", true, &far["metadata"]["uid"])],
    });
    bed.cloud().post(SLICES, &slice).await.unwrap().expect(201);
    let node = bed.site.node();
    let path = format!("{SLICES}/shop-2?resourceVersion=0");
    eventually("the node has both", async || {
        let list = node.get(&format!("{PODS}?resourceVersion=0")).await;
        list.unwrap().json()["items"].as_array().map(Vec::len) == Some(2)
            && node.get(&path).await.unwrap().code == 200
    })
    .await;
    bed.cut().await;
    let before = node.get(&path).await.unwrap().expect(200);
    let patch = json!({"status": {"podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}],
        "conditions": [{"type": "Ready", "status": "False"}]}});
    let answer = node
        .patch(&format!("{PODS}/far/status"), STRATEGIC, &patch)
        .await
        .unwrap();
    assert_eq!(node.get(&path).await.unwrap().expect(200), before);
    assert_eq!(answer.code, 403, "{}", answer.text());
}

/// Returns whom the Service's slice leads to.
pub(crate) async fn endpoints(client: &Client) -> Value {
    let list = client.get(&format!("{SLICES}?resourceVersion=0")).await;
    list.unwrap().expect(200)["items"][0]["endpoints"].clone()
}

#[tokio::test]
async fn a_pods_word_costs_its_own_endpoints_and_not_all_of_the_namespace() {
    const OTHERS: usize = 60;
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = reads.clone();
    let counting = move |call| {
        if call == Call::Get {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    };
    let bed = bed_on(Arc::new(SlowStore::new(MemoryStore::new(), counting))).await;
    let (node, cloud) = (bed.site.node(), bed.cloud());
    for other in 0..OTHERS {
        let slice = json!({
            "metadata": {"name": format!("other-{other}")},
            "addressType": "IPv4",
            "endpoints": [endpoint("10.0.9.9", true, &json!(format!("elsewhere-{other}")))],
        });
        cloud.post(SLICES, &slice).await.unwrap().expect(201);
    }
    eventually("the node has them", async || {
        let list = node.get(&format!("{SLICES}?resourceVersion=0")).await;
        list.unwrap().json()["items"].as_array().map(Vec::len) == Some(OTHERS + 1)
    })
    .await;
    bed.cut().await;
    report(&node, "10.0.0.7", "True").await.expect(200);
    let before = reads.load(Ordering::SeqCst);
    report(&node, "10.0.0.8", "True").await.expect(200);
    let read = reads.load(Ordering::SeqCst) - before;
    assert!(read < OTHERS / 2, "{read} reads");
    let slice = node.get(SLICE).await.unwrap().expect(200);
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["10.0.0.8"]));
}

#[tokio::test]
async fn the_server_wins_even_where_its_numbers_and_the_nodes_are_the_same() {
    let bed = bed().await;
    let (node, cloud) = (bed.site.node(), bed.cloud());
    let mut pods = watch(&node, PODS).await;
    bed.cut().await;
    let start = revision(&node.get(PODS).await.unwrap().json());
    let mut local = start;
    for round in 0..6 {
        local = revision(
            &report(&node, &format!("10.0.1.{round}"), "True")
                .await
                .json(),
        );
    }
    let label = |round: u64| json!({"metadata": {"labels": {"round": round.to_string()}}});
    let mut last = 0;
    let mut round = 0;
    // The cloud passes through each number that the node has used.
    while last < local {
        round += 1;
        let patched = cloud.patch(POD, STRATEGIC, &label(round)).await.unwrap();
        last = revision(&patched.expect(200));
    }
    bed.mend().await;
    let end = cloud.get(POD).await.unwrap().json();
    loop {
        if next(&mut pods).await == end {
            break;
        }
    }
    assert_eq!(
        node.get(&format!("{POD}?resourceVersion=0"))
            .await
            .unwrap()
            .json(),
        end
    );
    let at_once = json!({"gracePeriodSeconds": 0});
    cloud.delete(POD, Some(&at_once)).await.unwrap().expect(200);
    assert_eq!(events(&mut pods, 1).await, ["DELETED till"]);
}

#[tokio::test]
async fn events_wait_for_the_cloud_and_come_once() {
    let mut bed = bed().await;
    let node = bed.site.node();
    bed.cut().await;
    let event = |name: &str, count: u32| {
        json!({
            "kind": "Event", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": "default"},
            "involvedObject": {"kind": "Pod", "name": "till", "namespace": "default"},
            "reason": "Started", "message": "it runs", "count": count,
        })
    };
    for (name, count) in [("till.1", 1), ("till.2", 1), ("till.1", 2)] {
        node.post(EVENTS, &event(name, count))
            .await
            .unwrap()
            .expect(201);
    }
    let patch = json!({"count": 3});
    let unknown = node
        .patch(&format!("{EVENTS}/till.1"), STRATEGIC, &patch)
        .await
        .unwrap();
    assert_eq!(
        unknown.code, 404,
        "whose word was not sent yet says it anew"
    );
    assert_eq!(bed.site.metric("yurthub_events_queued", "").await, 2.0);
    bed.restart().await;
    bed.mend().await;
    eventually("the cloud has been told", async || {
        bed.site.metric("yurthub_events_delivered_total", "").await > 1.5
    })
    .await;
    let told = bed.cloud().get(EVENTS).await.unwrap().json()["items"].clone();
    assert_eq!(told.as_array().map(Vec::len), Some(2));
    assert_eq!(told[0]["count"], 2);
    assert_eq!(bed.site.metric("yurthub_events_queued", "").await, 0.0);
}

#[tokio::test]
async fn heartbeats_are_answered_and_a_known_node_is_told_that_it_is_known() {
    let bed = bed().await;
    let node = bed.site.node();
    let itself = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": NODE}});
    bed.cloud()
        .post("/api/v1/nodes", &itself)
        .await
        .unwrap()
        .expect(201);
    let mine = format!("/api/v1/nodes?resourceVersion=0&fieldSelector=metadata.name%3D{NODE}");
    node.get(&mine).await.unwrap().expect(200);
    bed.cut().await;
    let lease = json!({
        "kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"name": NODE, "namespace": "kube-node-lease", "resourceVersion": "7"},
        "spec": {"holderIdentity": NODE},
    });
    let renewed = node.put(&format!("{LEASES}/{NODE}"), &lease).await.unwrap();
    assert_eq!((renewed.code, renewed.json()), (200, lease.clone()));
    assert_eq!(node.post(LEASES, &lease).await.unwrap().code, 201);
    let known = node.post("/api/v1/nodes", &itself).await.unwrap();
    assert_eq!(
        (known.code, known.json()["reason"].as_str()),
        (409, Some("AlreadyExists"))
    );
    let condition = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let status = format!("/api/v1/nodes/{NODE}/status");
    node.patch(&status, STRATEGIC, &condition)
        .await
        .unwrap()
        .expect(200);
}

#[tokio::test]
async fn everything_else_is_refused_and_never_a_phantom_success() {
    let bed = bed().await;
    let node = bed.site.node();
    bed.cut().await;
    let body = json!({"metadata": {"name": "x"}});
    for (path, body) in [
        (PODS, &body),
        (&format!("{POD}/eviction"), &body),
        (&format!("{POD}/binding"), &body),
        (
            "/apis/certificates.k8s.io/v1/certificatesigningrequests",
            &body,
        ),
        (&format!("{LEASES}/other"), &body),
    ] {
        let refused = node.post(path, body).await.unwrap();
        assert_eq!(refused.code, 503, "{path} {}", refused.text());
        assert_eq!(refused.json()["reason"], "ServiceUnavailable");
    }
    assert_eq!(node.delete(POD, None).await.unwrap().code, 503);
    let other = node
        .put(&format!("{LEASES}/other-node"), &body)
        .await
        .unwrap();
    assert_eq!(other.code, 503);
    let pod = bed.site.bearer(testbed::api::ADMIN_TOKEN);
    let lent = pod
        .patch(STATUS, STRATEGIC, &json!({"status": {}}))
        .await
        .unwrap();
    assert!(matches!(lent.code, 401 | 503), "{}", lent.text());
}

#[tokio::test]
async fn what_the_node_made_of_itself_is_there_after_a_restart_while_cut_off() {
    let mut bed = bed().await;
    let node = bed.site.node();
    let csi_nodes = "/apis/storage.k8s.io/v1/csinodes";
    let csi_node = json!({
        "kind": "CSINode", "apiVersion": "storage.k8s.io/v1",
        "metadata": {"name": NODE}, "spec": {"drivers": []},
    });
    let lease = json!({
        "kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"name": NODE}, "spec": {"holderIdentity": NODE},
    });
    node.post(csi_nodes, &csi_node).await.unwrap().expect(201);
    node.post(LEASES, &lease).await.unwrap().expect(201);
    let both = [format!("{csi_nodes}/{NODE}"), format!("{LEASES}/{NODE}")];
    eventually(
        "the hub has asked for both beside the answers",
        async || {
            let asked = |resource| bed.api.count("get", resource) > 0;
            asked("csinodes") && asked("leases")
        },
    )
    .await;
    // The second answer may still be on its way: it is as long as the hub takes to serve this.
    node.get(CSI_DRIVERS).await.unwrap().expect(200);
    bed.cut().await;
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    for path in both {
        assert_eq!(
            bed.site.node().get(&path).await.unwrap().code,
            200,
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_reported_while_cut_off_takes_a_pod_out_of_a_scope_that_selects_by_it() {
    let bed = bed().await;
    let node = bed.site.node();
    let running = "/api/v1/pods?fieldSelector=status.phase%3DRunning";
    let from_mirror = format!("{running}&resourceVersion=0");
    let held = node.get(&from_mirror).await.unwrap().expect(200);
    assert_eq!(names(&held), ["till"]);
    bed.site.is_live("v1/pods where status.phase=Running").await;
    bed.cut().await;
    let then = revision(&node.get(&from_mirror).await.unwrap().expect(200));
    let path = format!("{running}&watch=1&resourceVersion={then}");
    let mut watch = node.watch(&path).await.unwrap();
    let failed = json!({"status": {"phase": "Failed"}});
    let patched = node.patch(STATUS, STRATEGIC, &failed).await.unwrap();
    patched.expect(200);
    assert_eq!(events(&mut watch, 1).await, ["DELETED till"]);
    let held = node.get(&from_mirror).await.unwrap().expect(200);
    assert_eq!(names(&held), [""; 0]);
    bed.mend().await;
    assert_eq!(events(&mut watch, 1).await, ["ADDED till"]);
}
