//! The Node's condition `Autonomy` on the real server: written as the node, beside the kubelet's own.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::{
    client::Client,
    cluster::{ClusterConfig, Version},
};
use tokio::time::{Instant, sleep};

use crate::{
    hub::NODE,
    site::{PATIENCE, Site},
    world::post,
};

const NODE_PATH: &str = "/api/v1/nodes/edge-1";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// What a kubelet lists before it starts a pod.
const KUBELET: [&str; 5] = [
    "/api/v1/nodes?fieldSelector=metadata.name%3Dedge-1",
    "/api/v1/pods?fieldSelector=spec.nodeName%3Dedge-1",
    "/api/v1/services?fieldSelector=spec.clusterIP%21%3DNone",
    "/apis/node.k8s.io/v1/runtimeclasses?",
    "/apis/storage.k8s.io/v1/csidrivers?",
];

/// Writes a condition as a kubelet does: a patch that merges by type.
async fn beat(kubelet: &Client, message: &str) {
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": message,
        "lastHeartbeatTime": "2026-01-02T03:04:05Z", "lastTransitionTime": "2026-01-02T03:04:05Z"});
    let patch = json!({"status": {"conditions": [ready]}});
    let path = format!("{NODE_PATH}/status");
    kubelet
        .patch(&path, "strategic-merge", &patch)
        .await
        .unwrap()
        .expect(200);
}

/// Returns a condition as the cloud has it.
fn condition<'a>(node: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = node["status"]["conditions"].as_array()?;
    conditions.iter().find(|one| one["type"] == kind)
}

/// Waits until the cloud has been told.
async fn told(site: &Site, status: &str, reason: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let node = site.direct.get(NODE_PATH).await.unwrap().expect(200);
        let found = condition(&node, "Autonomy");
        if found.is_some_and(|one| one["status"] == status && one["reason"] == reason) {
            return node;
        }
        assert!(Instant::now() < deadline, "{found:#?}\n{}", site.log());
        sleep(Duration::from_millis(50)).await;
    }
}

/// The node may say it of itself, the kubelet's conditions survive it, and it survives the kubelet's.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn the_condition_lives_beside_the_kubelets() {
    for version in [Version::Oldest, Version::Newest] {
        lives_beside_the_kubelets(version).await;
    }
}

async fn lives_beside_the_kubelets(version: Version) {
    let config = ClusterConfig {
        version,
        authorization: "Node,RBAC".to_owned(),
        ..ClusterConfig::default()
    };
    let site = Site::start_told(config, &["--autonomy-period", "1s"]).await;
    let node = json!({"metadata": {"name": NODE}});
    post(&site.direct, "/api/v1/nodes", node).await.unwrap();
    let map = json!({"metadata": {"name": "settings"}});
    post(&site.direct, "/api/v1/namespaces/default/configmaps", map)
        .await
        .unwrap();
    let volumes = json!([{"name": "c", "configMap": {"name": "settings"}}]);
    let pod = |name: &str, volumes: &Value| {
        json!({"metadata": {"name": name}, "spec": {"nodeName": NODE, "volumes": volumes,
            "containers": [{"name": "c", "image": "pause"}]}})
    };
    post(&site.direct, PODS, pod("web", &volumes))
        .await
        .unwrap();
    let kubelet = site.kubelet();
    beat(&kubelet, "one").await;
    for path in KUBELET {
        let path = format!("{path}&resourceVersion=0");
        kubelet.get(&path).await.unwrap().expect(200);
    }
    let named = "/api/v1/namespaces/default/configmaps?fieldSelector=metadata.name%3Dsettings";
    kubelet
        .get(&format!("{named}&resourceVersion=0"))
        .await
        .unwrap()
        .expect(200);

    let node = told(&site, "True", "WouldSurviveReboot").await;
    assert_eq!(condition(&node, "Ready").unwrap()["message"], "one");
    let owners = node["metadata"]["managedFields"].as_array().unwrap();
    let ours = owners
        .iter()
        .find(|one| one["manager"] == "yurthub-autonomy")
        .unwrap();
    let fields = ours["fieldsV1"].to_string();
    assert_eq!(
        (&ours["operation"], &ours["subresource"]),
        (&json!("Apply"), &json!("status"))
    );
    assert!(
        fields.contains("Autonomy") && !fields.contains("Ready\""),
        "{fields}"
    );

    beat(&kubelet, "two").await;
    let node = told(&site, "True", "WouldSurviveReboot").await;
    assert_eq!(condition(&node, "Ready").unwrap()["message"], "two");
    let since = condition(&node, "Autonomy").unwrap()["lastTransitionTime"].clone();
    let written = node["metadata"]["managedFields"].to_string();
    // Some looks' time: that nothing is written in it is what the test shows.
    sleep(Duration::from_secs(3)).await;
    let later = site.direct.get(NODE_PATH).await.unwrap().expect(200);
    assert_eq!(later["metadata"]["managedFields"].to_string(), written);

    let volumes = json!([{"name": "s", "secret": {"secretName": "absent"}}]);
    post(&site.direct, PODS, pod("db", &volumes)).await.unwrap();
    let node = told(&site, "False", "PodObjects").await;
    let ours = condition(&node, "Autonomy").unwrap();
    assert!(
        ours["message"]
            .as_str()
            .unwrap()
            .contains("pod default/db needs secrets default/absent")
    );
    assert_ne!(ours["lastTransitionTime"], since);
    assert_eq!(condition(&node, "Ready").unwrap()["message"], "two");
}
