//! What `deploy/` holds is what an API server, and the program itself, take.

use std::process::Command;

use testbed::cluster::{Cluster, ClusterConfig, Kubectl, shared};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn the_manifest_is_valid() {
    let kubectl = Kubectl::new(&shared().await.unwrap()).unwrap();
    let manifest = format!("{FOLDER}/yurt-tunnel-server.yaml");
    let create = [
        "create",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        &manifest,
    ];
    let said = kubectl.run(&create).await.unwrap();
    for object in [
        "serviceaccount",
        "clusterrole",
        "clusterrolebinding",
        "service",
        "deployment.apps",
    ] {
        assert!(said.contains(object), "{object} in {said}");
    }
}

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn the_egress_selector_is_one_that_kube_apiserver_starts_with() {
    let file = format!("{FOLDER}/egress-selector.yaml");
    let config = ClusterConfig {
        arguments: vec![format!("--egress-selector-config-file={file}")],
        ..ClusterConfig::default()
    };
    Cluster::start(config).await.unwrap();
}

#[test]
fn the_configuration_lacks_nothing_but_the_files_that_it_names() {
    let program = env!("CARGO_BIN_EXE_yurt-tunnel-server");
    let config = format!("{FOLDER}/config.yaml");
    let run = Command::new(program)
        .args(["--config", &config])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2));
    let said = String::from_utf8(run.stderr).unwrap();
    for line in said.lines() {
        let is_expected = line.contains("/etc/kubernetes/pki/ca.crt")
            || line.contains("/etc/yurt-tunnel-server/tls")
            || line.contains("kubeconfig: missing");
        assert!(is_expected, "{said}");
    }
}
