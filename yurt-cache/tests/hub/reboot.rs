//! A machine that is started again while cut off: nothing that ran before is taken for running, and the cloud's word counts
//! as soon as it is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use yurt_cache::store::MemoryStore;
use yurt_core::store::{Batch, Error, ErrorKind, Operation};
use yurt_core::testing::fault::{Fate, Fault, FaultyStore};

use super::alone::{POD, SLICE, SLICES, bed, bed_on, endpoint, endpoints, next, report, watch};
use super::site::{Bed, NODE, eventually, revision};

/// A bed of a machine that was started again while cut off, and where its boot id is.
async fn rebooted(meanwhile: impl AsyncFnOnce(&Bed, &Value)) -> (Bed, tempfile::TempDir, Value) {
    let (mut bed, folder, uid) = about_to_reboot(bed().await).await;
    meanwhile(&bed, &uid).await;
    write(&folder.path().join("boot_id"), "second");
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    let seen = endpoints(&bed.site.node()).await;
    assert_eq!(seen[0]["conditions"]["ready"], false);
    (bed, folder, uid)
}

/// A bed of a machine that was started once, cut off, where its boot id is, and the uid of its pod.
async fn about_to_reboot(mut bed: Bed) -> (Bed, tempfile::TempDir, Value) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("boot_id");
    write(&file, "first");
    let configured = file.clone();
    bed.site
        .adjust(move |config| config.boot_id_file = configured.clone());
    bed.restart().await;
    let mine = format!("/api/v1/pods?resourceVersion=0&fieldSelector=spec.nodeName%3D{NODE}");
    bed.site.node().get(&mine).await.unwrap().expect(200);
    let slices = "discovery.k8s.io/v1/endpointslices in default".to_owned();
    for scope in [slices, format!("v1/pods where spec.nodeName={NODE}")] {
        bed.site.is_live(&scope).await;
    }
    // Who lists what is followed in its name may watch it while cut off.
    endpoints(&bed.site.node()).await;
    let uid = bed.site.node().get(POD).await.unwrap().json()["metadata"]["uid"].clone();
    bed.cut().await;
    (bed, folder, uid)
}

/// Takes no write any more after the one that notes the machine's start, while it is armed.
#[derive(Clone, Debug, Default)]
struct FullOnceBooted {
    is_armed: Arc<AtomicBool>,
    is_full: Arc<AtomicBool>,
}

impl Fault for FullOnceBooted {
    fn fate(&self, _: u64, batch: &Batch) -> Fate {
        if !self.is_armed.load(Ordering::SeqCst) {
            return Fate::Done;
        }
        if self.is_full.load(Ordering::SeqCst) {
            return Fate::Refused(Error::new(ErrorKind::Full, "the disk is full"));
        }
        let is_boot = |one: &Operation| matches!(one, Operation::Put(key, _) if key == "i/boot");
        let is_full = batch.operations().iter().any(is_boot);
        self.is_full.store(is_full, Ordering::SeqCst);
        Fate::Done
    }
}

#[tokio::test]
async fn after_a_reboot_no_pod_is_ready_until_the_kubelet_says_so() {
    let (mut bed, folder, uid) = about_to_reboot(bed().await).await;
    let boot = |id: &str| write(&folder.path().join("boot_id"), id);
    for (id, ready) in [("first", true), ("second", false)] {
        boot(id);
        bed.restart().await;
        bed.site.sees_the_cloud(false).await;
        let expected = endpoint("10.0.0.1", ready, &uid);
        assert_eq!(endpoints(&bed.site.node()).await[0], expected, "{id}");
    }
    let node = bed.site.node();
    let mut slices = watch(&node, SLICES).await;
    report(&node, "10.0.0.7", "False").await.expect(200);
    report(&node, "10.0.0.7", "True").await.expect(200);
    let ready = next(&mut slices).await;
    let expected = [
        endpoint("10.0.0.7", true, &uid),
        endpoint("10.0.9.9", true, &json!("elsewhere")),
    ];
    assert_eq!(
        ready["endpoints"],
        json!(expected),
        "nothing is told before the pod serves"
    );
    boot("third");
    bed.mend().await;
    bed.restart().await;
    eventually(
        "the cloud's word counts as soon as it is there",
        async || endpoints(&bed.site.node()).await[0] == endpoint("10.0.0.1", true, &uid),
    )
    .await;
}

#[tokio::test]
async fn a_reboot_is_not_forgotten_by_a_hub_that_ends_before_it_has_taken_it_in() {
    let fault = FullOnceBooted::default();
    let store = FaultyStore::new(MemoryStore::new(), fault.clone());
    let (mut bed, folder, uid) = about_to_reboot(bed_on(Arc::new(store)).await).await;
    write(&folder.path().join("boot_id"), "second");
    fault.is_armed.store(true, Ordering::SeqCst);
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    fault.is_armed.store(false, Ordering::SeqCst);
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    let expected = endpoint("10.0.0.1", false, &uid);
    assert_eq!(endpoints(&bed.site.node()).await[0], expected);
}

#[tokio::test]
async fn a_hub_that_starts_again_after_a_reboot_knows_still_of_whom_the_kubelet_has_not_said_anything()
 {
    // Both where the cloud knows all that the kubelet said before, and where only this node does.
    for address in ["10.0.0.1", "10.0.0.7"] {
        let (mut bed, _folder, uid) = rebooted(async |bed, _| {
            if address != "10.0.0.1" {
                report(&bed.site.node(), address, "True").await.expect(200);
            }
        })
        .await;
        bed.restart().await;
        bed.site.sees_the_cloud(false).await;
        let seen = endpoints(&bed.site.node()).await;
        assert_eq!(seen[0]["conditions"]["ready"], false, "{address}");
        bed.mend().await;
        eventually("the cloud's word counts at once", async || {
            let seen = endpoints(&bed.site.node()).await;
            let is_ready = seen[0]["conditions"]["ready"] == true;
            let cloud = endpoint("10.0.0.1", true, &uid);
            assert!(
                !is_ready || seen[0] == cloud,
                "of before the reboot: {seen}"
            );
            is_ready
        })
        .await;
    }
}

#[tokio::test]
async fn what_was_ready_before_a_reboot_is_not_ready_again_when_the_cloud_says_that_it_is_not() {
    let (bed, _folder, uid) = rebooted(async |bed, uid| {
        // The cloud has noticed that the node is gone.
        report(&bed.cloud(), "10.0.0.1", "False").await.expect(200);
        let patch = json!({"endpoints": [endpoint("10.0.0.1", false, uid)]});
        let merged = bed.cloud().patch(SLICE, "merge", &patch).await;
        merged.unwrap().expect(200);
    })
    .await;
    let node = bed.site.node();
    let mut slices = watch(&node, SLICES).await;
    bed.mend().await;
    let cloud = bed.cloud().get(SLICE).await.unwrap().expect(200);
    loop {
        let seen = next(&mut slices).await;
        assert_eq!(seen["endpoints"][0], endpoint("10.0.0.1", false, &uid));
        if revision(&seen) >= revision(&cloud) {
            break;
        }
    }
    for _ in 0..50 {
        let seen = endpoints(&node).await;
        assert_eq!(seen[0], endpoint("10.0.0.1", false, &uid));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's file needs not survive a crash"
)]
fn write(path: &std::path::Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
