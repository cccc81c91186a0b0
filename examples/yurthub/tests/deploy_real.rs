//! What `deploy/` holds is what an API server takes.

use testbed::cluster::{Kubectl, shared};

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn the_static_pod_is_a_valid_pod() {
    let kubectl = Kubectl::new(&shared().await.unwrap()).unwrap();
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/yurthub.yaml");
    let create = [
        "create",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        manifest,
    ];
    let said = kubectl.run(&create).await.unwrap();
    assert!(said.contains("pod/yurthub created"), "{said}");
}

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn the_nodes_right_to_the_keys_of_tokens_is_valid() {
    let kubectl = Kubectl::new(&shared().await.unwrap()).unwrap();
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rbac.yaml");
    let create = [
        "create",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        manifest,
    ];
    let said = kubectl.run(&create).await.unwrap();
    assert!(said.contains("created"), "{said}");
}
