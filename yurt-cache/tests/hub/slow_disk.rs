//! A disk that takes a second for each write: it slows what is written, never who reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use testbed::api::ApiConfig;
use testbed::client::Client;
use tokio::time::Instant;
use yurt_cache::store::MemoryStore;
use yurt_core::testing::fault::{Call, SlowStore};

use super::site::Bed;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FROM_MIRROR: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=0";
const SCOPE: &str = "v1/configmaps in default";
const OTHER: &str = "/api/v1/namespaces/default/services?resourceVersion=0";
const OTHER_SCOPE: &str = "v1/services in default";

/// What nobody waits for longer.
const LIMIT: Duration = Duration::from_millis(700);

/// A bed with two live mirrors, on a disk that is slow when the switch is on.
async fn bed() -> (Bed, Arc<AtomicBool>) {
    let is_slow = Arc::new(AtomicBool::new(false));
    let slow = is_slow.clone();
    let store = Arc::new(SlowStore::new(MemoryStore::new(), move |call| {
        if call == Call::Write && slow.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_secs(1));
        }
    }));
    let bed = Bed::with(ApiConfig::default(), |site| site.with_store(store)).await;
    let map = json!({"metadata": {"name": "a", "labels": {"app": "x"}}});
    bed.cloud().post(MAPS, &map).await.unwrap().expect(201);
    for (path, scope) in [(FROM_MIRROR, SCOPE), (OTHER, OTHER_SCOPE)] {
        bed.site.node().get(path).await.unwrap().expect(200);
        bed.site.is_live(scope).await;
    }
    (bed, is_slow)
}

/// Changes the scope in the cloud without an end, and opens watches that ask for a barrier.
async fn write(bed: &Bed, node: &Client) {
    let cloud = bed.cloud();
    let mut watches = Vec::new();
    for number in 0_u64.. {
        let patch = json!({"data": {"n": number.to_string()}});
        let patched = cloud.patch(&format!("{MAPS}/a"), "merge", &patch).await;
        patched.unwrap().expect(200);
        // The cloud's revision moves on beside the scope: the barrier has something to claim.
        let other = json!({"metadata": {"name": format!("s{number}")}});
        let made = cloud
            .post("/api/v1/namespaces/default/secrets", &other)
            .await;
        made.unwrap().expect(201);
        let opened = node.watch(&format!("{MAPS}?watch=1")).await.unwrap();
        if watches.len() < 20 {
            watches.push(opened);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks for this again and again for ten seconds; returns how long the slowest answers took.
async fn slowest(bed: &Bed, client: &Client, path: &str) -> Duration {
    let ends = Instant::now() + Duration::from_secs(10);
    let mut took = Vec::new();
    while Instant::now() < ends {
        let began = Instant::now();
        if path.starts_with("/api") {
            client.get(path).await.unwrap().expect(200);
        } else {
            bed.site.page(path).await;
        }
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    took.sort();
    took[took.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_health_do_not_wait_for_a_disk_that_takes_a_second_for_a_write() {
    let (bed, is_slow) = bed().await;
    let clients: Vec<Client> = (0..5).map(|_| bed.site.node()).collect();
    join_all(clients.iter().map(|client| client.get("/livez"))).await;
    is_slow.store(true, Ordering::SeqCst);
    let selected = format!("{FROM_MIRROR}&labelSelector=app%3Dx");
    let one = format!("{MAPS}/a?resourceVersion=0");
    let paths = [OTHER, FROM_MIRROR, &selected, &one, "/healthz", "/readyz"];
    let asked = paths
        .iter()
        .enumerate()
        .map(|(at, path)| slowest(&bed, &clients[at % 4], path));
    let stays_online = async {
        let ends = Instant::now() + Duration::from_secs(10);
        while Instant::now() < ends {
            let reachable = bed.site.metric("yurthub_cloud_reachable", "").await;
            assert!(reachable > 0.5, "a slow disk is no cut");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::select! {
        (waited, ()) = async { tokio::join!(join_all(asked), stays_online) } => waited,
        () = write(&bed, &clients[4]) => unreachable!("it has no end"),
    };
    let waited: Vec<_> = paths.iter().zip(waited).collect();
    assert!(waited.iter().all(|(_, took)| *took < LIMIT), "{waited:?}");
}
