//! Whether the node would survive a reboot: on the page, in the metrics, and in the cloud.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::api::ApiConfig;
use testbed::client::Client;

use super::site::{Bed, NODE, Site, eventually};

/// What a kubelet lists before it starts a pod.
pub(crate) const KUBELET: [&str; 5] = [
    "/api/v1/nodes?fieldSelector=metadata.name%3Dn1",
    "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1",
    "/api/v1/services?fieldSelector=spec.clusterIP%21%3DNone",
    "/apis/node.k8s.io/v1/runtimeclasses?",
    "/apis/storage.k8s.io/v1/csidrivers?",
];

const NODE_PATH: &str = "/api/v1/nodes/n1";

pub(crate) fn pod(name: &str, volumes: &Value) -> Value {
    let containers = json!([{"name": "c", "image": "pause"}]);
    json!({"metadata": {"name": name}, "spec": {"nodeName": NODE, "containers": containers, "volumes": volumes}})
}

/// Makes the node, and a pod on it with a ConfigMap and a Secret.
pub(crate) async fn furnish(cloud: &Client) {
    let ready =
        json!({"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]});
    let node = json!({"metadata": {"name": NODE}, "status": ready});
    cloud
        .post("/api/v1/nodes", &node)
        .await
        .unwrap()
        .expect(201);
    for (plural, name) in [("configmaps", "settings"), ("secrets", "key")] {
        let body = json!({"metadata": {"name": name}});
        let path = format!("/api/v1/namespaces/default/{plural}");
        cloud.post(&path, &body).await.unwrap().expect(201);
    }
    let volumes = json!([
        {"name": "c", "configMap": {"name": "settings"}},
        {"name": "s", "secret": {"secretName": "key"}}]);
    create_pod(cloud, "web", &volumes).await;
}

pub(crate) async fn create_pod(cloud: &Client, name: &str, volumes: &Value) {
    let path = "/api/v1/namespaces/default/pods";
    cloud
        .post(path, &pod(name, volumes))
        .await
        .unwrap()
        .expect(201);
}

/// Lists as a kubelet does when it starts.
pub(crate) async fn list_all(node: &Client) {
    for path in KUBELET {
        node.get(&format!("{path}&resourceVersion=0"))
            .await
            .unwrap()
            .expect(200);
    }
}

/// Lists one object as a kubelet does that watches what its pods need.
pub(crate) async fn list_one(node: &Client, plural: &str, name: &str) {
    let path = format!(
        "/api/v1/namespaces/default/{plural}?fieldSelector=metadata.name%3D{name}&resourceVersion=0"
    );
    node.get(&path).await.unwrap().expect(200);
}

async fn bed() -> Bed {
    let bed = Bed::with(ApiConfig::default(), |mut site| {
        site.adjust(|config| config.autonomy_period = Duration::from_millis(50));
        site.on_disk()
    })
    .await;
    furnish(&bed.cloud()).await;
    bed
}

async fn live(bed: &Bed) {
    let node = bed.site.node();
    list_all(&node).await;
    list_one(&node, "configmaps", "settings").await;
    list_one(&node, "secrets", "key").await;
}

/// Returns the condition as the cloud has it: status and reason, and the types of all.
async fn condition(bed: &Bed) -> (String, String, Vec<String>) {
    let node = bed.cloud().get(NODE_PATH).await.unwrap().expect(200);
    let conditions = node["status"]["conditions"].as_array().unwrap();
    let types = conditions.iter().map(|one| one["type"].as_str().unwrap());
    let mut types: Vec<String> = types.map(str::to_owned).collect();
    types.sort();
    let found = conditions.iter().find(|one| one["type"] == "Autonomy");
    let text = |name| {
        found
            .map_or("", |one| one[name].as_str().unwrap())
            .to_owned()
    };
    (text("status"), text("reason"), types)
}

async fn is_told(bed: &Bed, status: &str, reason: &str) {
    eventually("the cloud is told", async || {
        let (at, why, _) = condition(bed).await;
        (&*at, &*why) == (status, reason)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_would_survive_says_so_and_one_that_would_not_says_why() {
    let bed = bed().await;
    let (code, page) = bed.site.page("/readyz?autonomy").await;
    assert_eq!(code, 500, "{page}");
    assert!(
        page.contains("[-] KubeletScopes failed: nobody has listed v1/nodes where metadata.name=n1 through the hub"),
        "{page}"
    );
    assert!(
        page.contains("[-] PodObjects failed: the pods of the node are not known"),
        "{page}"
    );
    assert!(page.ends_with("autonomy check failed\n"), "{page}");
    live(&bed).await;
    eventually("nothing is missing", async || {
        bed.site.page("/readyz?autonomy").await.0 == 200
    })
    .await;
    let (_, page) = bed.site.page("/readyz?autonomy").await;
    assert!(page.contains("[+] PodObjects ok"), "{page}");
    assert!(
        page.contains("[+] ClientCertificate ok: the node's certificate lives until"),
        "{page}"
    );
    is_told(&bed, "True", "WouldSurviveReboot").await;
    assert_eq!(
        condition(&bed).await.2,
        ["Autonomy", "Ready"],
        "the kubelet's stays"
    );
    assert!(bed.site.metric("yurthub_autonomy", "PodObjects").await > 0.5);

    let volumes = json!([{"name": "s", "secret": {"secretName": "absent"}}]);
    create_pod(&bed.cloud(), "db", &volumes).await;
    is_told(&bed, "False", "PodObjects").await;
    let (code, page) = bed.site.page("/readyz?autonomy").await;
    let why = "[-] PodObjects failed: not on the node: pod default/db needs secrets default/absent";
    assert!(code == 500 && page.contains(why), "{page}");
    assert!(bed.site.metric("yurthub_autonomy", "PodObjects").await < 0.5);
    let (ready, page) = bed.site.page("/readyz").await;
    assert_eq!(ready, 200, "who asks now gets an answer: {page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_condition_is_written_on_change_and_again_when_the_cloud_lost_it() {
    let bed = bed().await;
    live(&bed).await;
    is_told(&bed, "True", "WouldSurviveReboot").await;
    let revision = async || {
        let node = bed.cloud().get(NODE_PATH).await.unwrap().expect(200);
        node["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let before = revision().await;
    // Many looks' time: that nothing is written in it is what the test shows.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        revision().await,
        before,
        "what has not changed is not written"
    );

    let cloud = bed.cloud();
    let mut node = cloud.get(NODE_PATH).await.unwrap().expect(200);
    node["status"]["conditions"] =
        json!([{"type": "Ready", "status": "True", "reason": "KubeletReady"}]);
    cloud
        .put(&format!("{NODE_PATH}/status"), &node)
        .await
        .unwrap()
        .expect(200);
    is_told(&bed, "True", "WouldSurviveReboot").await;
    assert_eq!(condition(&bed).await.2, ["Autonomy", "Ready"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_and_started_again_still_says_that_it_would_survive() {
    let mut bed = bed().await;
    live(&bed).await;
    is_told(&bed, "True", "WouldSurviveReboot").await;
    bed.cut().await;
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    let (code, page) = bed.site.page("/readyz?autonomy").await;
    assert_eq!(code, 200, "{page}");
    assert!(page.contains("behind)"), "how old it is: {page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_was_only_read_by_name_is_not_at_hand_for_a_kubelet_that_watches() {
    let bed = bed().await;
    let node = bed.site.node();
    list_all(&node).await;
    list_one(&node, "configmaps", "settings").await;
    let secret = "/api/v1/namespaces/default/secrets/key";
    node.get(secret).await.unwrap().expect(200);
    eventually("a kubelet that reads by name finds it", async || {
        bed.site.page("/readyz?autonomy").await.0 == 200
    })
    .await;
    let volumes = json!([{"name": "s", "secret": {"secretName": "other"}}]);
    let body = json!({"metadata": {"name": "other"}});
    bed.cloud()
        .post("/api/v1/namespaces/default/secrets", &body)
        .await
        .unwrap()
        .expect(201);
    create_pod(&bed.cloud(), "db", &volumes).await;
    list_one(&node, "secrets", "other").await;
    eventually("one that watches does not", async || {
        let (code, page) = bed.site.page("/readyz?autonomy").await;
        code == 500 && page.contains("pod default/web needs secrets default/key")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_forgets_at_a_reboot_is_no_autonomy() {
    let bed = Bed::with(ApiConfig::default(), |site: Site| site).await;
    let (code, page) = bed.site.page("/readyz?autonomy").await;
    assert_eq!(code, 500);
    assert!(
        page.contains("[-] StoreDurable failed: the store occupies no disk"),
        "{page}"
    );
}
