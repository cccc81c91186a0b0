//! What was read by name is remembered as the cloud last showed it, and forgotten when it is gone, not before.

use serde_json::json;
use tokio::sync::watch;

use super::cloud::{Cloud, Say};
use super::site::{Bed, eventually, revision};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAP: &str = "/api/v1/namespaces/default/configmaps/a";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// A bed with a ConfigMap that the node has read by name; returns its revision too.
async fn bed(finalizers: &[&str]) -> (Bed, u64) {
    let bed = Bed::start().await;
    let map = json!({"metadata": {"name": "a", "finalizers": finalizers}, "data": {"k": "1"}});
    bed.cloud().post(MAPS, &map).await.unwrap().expect(201);
    let read = bed.site.node().get(MAP).await.unwrap().expect(200);
    (bed, revision(&read))
}

/// Cuts the link, and waits until the node reads the ConfigMap as it is from this revision on.
async fn is_read_offline_from(bed: &Bed, wanted: u64) {
    bed.cut().await;
    let node = bed.site.node();
    eventually("what the caller saw last is read", async || {
        let read = node.get(MAP).await.unwrap();
        read.code == 200 && revision(&read.json()) >= wanted
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_that_was_only_tried_forgets_nothing() {
    let (bed, at) = bed(&[]).await;
    let (node, tried) = (bed.site.node(), format!("{MAP}?dryRun=All"));
    node.delete(&tried, None).await.unwrap().expect(200);
    is_read_offline_from(&bed, at).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_finalizer_keeps_is_remembered_as_it_is_now() {
    let (bed, _) = bed(&["example.com/keep"]).await;
    let node = bed.site.node();
    let deleting = node.delete(MAP, None).await.unwrap().expect(200);
    let at = revision(&deleting);
    is_read_offline_from(&bed, at).await;
    let read = node.get(MAP).await.unwrap().expect(200);
    assert!(read["metadata"]["deletionTimestamp"].is_string(), "{read}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_is_forgotten() {
    let (bed, _) = bed(&[]).await;
    let node = bed.site.node();
    node.delete(MAP, None).await.unwrap().expect(200);
    bed.cut().await;
    eventually("it is not read any more", async || {
        node.get(MAP).await.unwrap().code == 503
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_reads_offline_what_it_has_written_itself() {
    let (bed, _) = bed(&[]).await;
    let node = bed.site.node();
    let mut map = node.get(MAP).await.unwrap().expect(200);
    map["data"]["k"] = json!("2");
    node.put(MAP, &map).await.unwrap().expect(200);
    let patch = json!({"data": {"k": "3"}});
    let patched = node.patch(MAP, "merge", &patch).await.unwrap().expect(200);
    let (tried, patch) = (format!("{MAP}?dryRun=All"), json!({"data": {"k": "4"}}));
    let tried = node.patch(&tried, "merge", &patch).await;
    tried.unwrap().expect(200);
    is_read_offline_from(&bed, revision(&patched)).await;
    let read = node.get(MAP).await.unwrap().expect(200);
    assert_eq!(read["data"]["k"], "3", "and nothing that was only tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_table_showed_is_not_older_offline() {
    let (bed, _) = bed(&[]).await;
    let patch = json!({"data": {"k": "2"}});
    let patched = bed.cloud().patch(MAP, "merge", &patch).await.unwrap();
    let at = revision(&patched.expect(200));
    let node = bed.site.node();
    let reads = bed.api.count("get", "configmaps");
    node.get_as(MAP, TABLE).await.unwrap().expect(200);
    eventually("the hub has read it beside the table", async || {
        bed.api.count("get", "configmaps") == reads + 2
    })
    .await;
    node.get_as(MAP, TABLE).await.unwrap().expect(200);
    is_read_offline_from(&bed, at).await;
    assert_eq!(
        bed.api.count("get", "configmaps"),
        reads + 3,
        "what is known to be as new is not read again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_after_the_cloud_was_put_back_is_read_offline_too() {
    for later in [MAP.to_owned(), format!("{MAP}?resourceVersion=0")] {
        let (restored, is_restored) = watch::channel(false);
        let (cloud, site) = Cloud::with_hub(move |_| {
            let at = if *is_restored.borrow() { 12 } else { 18 };
            let metadata =
                json!({"name": "a", "namespace": "default", "resourceVersion": at.to_string()});
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
            Say::json(200, map.to_string())
        })
        .await;
        let node = site.node();
        node.get(MAP).await.unwrap().expect(200);
        eventually("it is remembered", async || {
            site.metric("yurthub_remembered", r#"what="object""#).await > 0.5
        })
        .await;
        restored.send_replace(true);
        node.get(&later).await.unwrap().expect(200);
        eventually("the hub has read it once more", async || {
            cloud.count(MAP, false) == 3
        })
        .await;
        drop(cloud);
        site.sees_the_cloud(false).await;
        eventually("what was read last is read", async || {
            revision(&node.get(MAP).await.unwrap().expect(200)) == 12
        })
        .await;
    }
}
