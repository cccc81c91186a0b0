//! The quickstart on a real API server, by a kubeconfig as administrators have them.
#![expect(clippy::unwrap_used, reason = "what cannot be had here fails the test")]

use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use testbed::cluster::{Cluster, ClusterConfig};
use tokio::process::Command;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(170);

/// A hub without a client certificate probes a real server without pause: the server closes every HTTP/2
/// connection that carried an anonymous request. To be emptied when it no longer does.
const KNOWN: [&str; 0] = [];

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn every_promise_is_kept_on_a_real_cluster() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = cluster.pki().client("root", &["system:masters"]);
    let data = |text: &str| BASE64_STANDARD.encode(text);
    let endpoint = cluster.endpoint();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {
            "server": endpoint.url, "certificate-authority-data": data(&endpoint.ca_pem)}}],
        "users": [{"name": "it", "user": {
            "client-certificate-data": data(&certificate), "client-key-data": data(&key)}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    });
    write(&folder.path().join("kubeconfig"), &config.to_string());
    let output = Command::new(env!("CARGO_BIN_EXE_quickstart"))
        .args(["--kubeconfig", "kubeconfig", "--json", "report.json"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, output).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let report = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let promises = report["promises"].as_array().unwrap();
    let mut broken = promises
        .iter()
        .filter(|promise| promise["outcome"] != "kept");
    assert!(
        broken.all(|promise| KNOWN.contains(&promise["promise"].as_str().unwrap())),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(report["isKept"].as_bool(), Some(output.status.success()));

    let kubectl = cluster.kubectl();
    let phases = "jsonpath={range .items[*]}{.metadata.name} {.status.phase}{\"\\n\"}{end}";
    let namespaces = kubectl
        .run(&["get", "namespaces", "-o", phases])
        .await
        .unwrap();
    let ours: Vec<&str> = namespaces
        .lines()
        .filter(|line| line.starts_with("yurt-"))
        .collect();
    assert_eq!(ours.len(), 1, "{namespaces}");
    assert!(ours[0].ends_with(" Terminating"), "{namespaces}");
    let wait = [
        "wait",
        "--for=delete",
        "customresourcedefinitions",
        "--all",
        "--timeout=30s",
    ];
    kubectl.run(&wait).await.unwrap();
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's file need not survive a crash"
)]
fn write(path: &std::path::Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
