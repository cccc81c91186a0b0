//! What `deploy/` holds is what an API server takes.

use testbed::cluster::{Kubectl, shared};

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn the_daemon_set_is_valid() {
    let kubectl = Kubectl::new(&shared().await.unwrap()).unwrap();
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/yurt-tunnel-agent.yaml");
    let create = [
        "create",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        manifest,
    ];
    let said = kubectl.run(&create).await.unwrap();
    let expected = "daemonset.apps/yurt-tunnel-agent created";
    assert!(said.contains(expected), "{said}");
}
