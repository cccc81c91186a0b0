//! What leaves the node, and what never does.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::json;
use testbed::api::{ADMIN_TOKEN, ApiConfig};
use testbed::client::Client;
use yurt_cache::hub::{Budget, Config};
use yurt_cache::store::MemoryStore;
use yurt_core::store::{Batch, Store};

use super::autonomy::{create_pod, furnish, list_all, list_one};
use super::site::{Bed, events, eventually, names};

/// How many seconds ahead the node's clock is.
static LATER: AtomicI64 = AtomicI64::new(0);

fn clock() -> jiff::Timestamp {
    jiff::Timestamp::now() + jiff::SignedDuration::from_secs(LATER.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_age_of_an_answer_counts_from_the_last_contact_also_after_a_restart() {
    let mut bed = bed(|config| config.clock = clock).await;
    create(&bed.cloud(), "a", 10).await;
    bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    bed.site.is_live("v1/configmaps in default").await;
    bed.cut().await;
    bed.site.crash().await;
    LATER.store(3 * 3_600, Ordering::SeqCst);
    bed.site.start();
    bed.site.sees_the_cloud(false).await;
    let list = bed.site.node().get(MAPS).await.unwrap();
    let warning = list.header("warning").to_owned();
    assert!(warning.contains("knew 3h ago"), "{warning}");
    let write = bed
        .site
        .node()
        .post(MAPS, &json!({"metadata": {"name": "b"}}))
        .await;
    let refusal = write.unwrap().text();
    assert!(refusal.contains("not reachable for 3h"), "{refusal}");
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FROM_MIRROR: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=0";

async fn bed(adjust: impl Fn(&mut Config) + Send + Sync + 'static) -> Bed {
    Bed::with(ApiConfig::default(), |mut site| {
        site.adjust(adjust);
        site.on_disk()
    })
    .await
}

async fn create(cloud: &Client, name: &str, bytes: usize) {
    let body = json!({"metadata": {"name": name}, "data": {"k": "x".repeat(bytes)}});
    cloud.post(MAPS, &body).await.unwrap().expect(201);
}

async fn forgotten(bed: &Bed, what: &str) -> f64 {
    let label = format!("what=\"{what}\"");
    bed.site.metric("yurthub_forgotten_total", &label).await
}

async fn remembered(bed: &Bed, what: &str) -> f64 {
    let label = format!("what=\"{what}\"");
    bed.site.metric("yurthub_remembered", &label).await
}

/// Everything leaves soon that is not needed.
fn hasty(config: &mut Config) {
    config.mirror_idle = Duration::from_millis(200);
    config.forget_after = Duration::from_millis(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_restart_needs_stays_when_everything_else_has_gone() {
    let mut bed = bed(hasty).await;
    furnish(&bed.cloud()).await;
    create(&bed.cloud(), "spare", 10).await;
    let node = bed.site.node();
    list_all(&node).await;
    list_one(&node, "configmaps", "settings").await;
    for path in ["secrets/key", "configmaps/spare"] {
        let path = format!("/api/v1/namespaces/default/{path}");
        node.get(&path).await.unwrap().expect(200);
    }
    node.get("/api/v1/namespaces/default/serviceaccounts?resourceVersion=0")
        .await
        .unwrap()
        .expect(200);
    node.get("/version").await.unwrap().expect(200);
    eventually("what nobody needs is gone", async || {
        let left = remembered(&bed, "object").await;
        let mut gone = 0;
        for what in ["mirror", "document", "verdict"] {
            gone += usize::from(forgotten(&bed, what).await > 0.5);
        }
        (left - 1.0).abs() < 0.5 && gone == 3
    })
    .await;
    bed.cut().await;
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    let node = bed.site.node();
    list_all(&node).await;
    list_one(&node, "configmaps", "settings").await;
    let get = async |path: &str| {
        let path = format!("/api/v1/namespaces/default/{path}");
        node.get(&path).await.unwrap().code
    };
    assert_eq!(get("secrets/key").await, 200);
    assert_eq!(get("configmaps/spare").await, 503, "that was spare");
    assert_eq!(get("serviceaccounts?resourceVersion=0").await, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_while_cut_off() {
    let mut bed = bed(|config| {
        config.mirror_idle = Duration::from_millis(200);
        config.forget_after = Duration::from_secs(3);
    })
    .await;
    furnish(&bed.cloud()).await;
    create(&bed.cloud(), "spare", 10).await;
    let node = bed.site.node();
    node.get(&format!("{MAPS}/spare"))
        .await
        .unwrap()
        .expect(200);
    node.get("/version").await.unwrap().expect(200);
    eventually("it is remembered", async || {
        remembered(&bed, "object").await > 0.5
    })
    .await;
    bed.cut().await;
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    // Longer than the age, and many sweeps: that is what the test measures.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let node = bed.site.node();
    node.get(&format!("{MAPS}/spare"))
        .await
        .unwrap()
        .expect(200);
    node.get("/version").await.unwrap().expect(200);
    assert!(forgotten(&bed, "object").await < 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_recently_read_object_makes_room_and_what_pods_refer_to_does_not() {
    let bed = bed(|config| {
        config.objects_by_name = Budget::new(4, 1 << 20);
        config.verdicts = 30;
    })
    .await;
    furnish(&bed.cloud()).await;
    let node = bed.site.node();
    list_all(&node).await;
    let secret = "/api/v1/namespaces/default/secrets/key";
    node.get(secret).await.unwrap().expect(200);
    let other = bed.site.bearer(ADMIN_TOKEN);
    let seen = async || remembered(&bed, "object").await + forgotten(&bed, "object").await;
    eventually("the secret is remembered", async || seen().await > 0.5).await;
    let before = seen().await;
    for number in 0..12 {
        create(&bed.cloud(), &format!("m{number}"), 10).await;
        let path = format!("{MAPS}/m{number}");
        other.get(&path).await.unwrap().expect(200);
        eventually("it is remembered, and there is room", async || {
            let is_seen = seen().await > before + f64::from(number) + 0.5;
            is_seen && remembered(&bed, "object").await < 4.5
        })
        .await;
    }
    assert!(forgotten(&bed, "object").await > 5.5);
    let verdicts = remembered(&bed, "verdict").await;
    assert!(verdicts < 30.5, "{verdicts} verdicts are left");
    bed.cut().await;
    node.get(secret).await.unwrap().expect(200);
    let map = async |number: u8| {
        let path = format!("{MAPS}/m{number}");
        other.get(&path).await.unwrap().code
    };
    assert_eq!(map(11).await, 200);
    assert_eq!(map(0).await, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_make_room_for_each_other() {
    let bed = bed(|config| config.documents = Budget::new(3, 1 << 20)).await;
    let node = bed.site.node();
    node.get("/version").await.unwrap().expect(200);
    for path in ["/api", "/apis", "/api/v1", "/apis/apps", "/openapi/v3"] {
        node.get(path).await.unwrap().expect(200);
        eventually("it is remembered", async || {
            remembered(&bed, "document").await < 3.5
        })
        .await;
    }
    eventually("three are left", async || {
        (remembered(&bed, "document").await - 3.0).abs() < 0.5
    })
    .await;
    bed.cut().await;
    assert_eq!(node.get("/version").await.unwrap().code, 503, "the oldest");
    node.get("/openapi/v3?x=5").await.unwrap().expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_that_is_too_large_is_forwarded_and_listed_once() {
    let bed = bed(|config| {
        let small = Budget::new(usize::MAX, 600_000);
        config.kinds.insert("configmaps".to_owned(), small);
    })
    .await;
    for name in ["a", "b", "c", "d", "e"] {
        create(&bed.cloud(), name, 300_000).await;
    }
    let node = bed.site.node();
    for _ in 0..3 {
        let list = node.get(FROM_MIRROR).await.unwrap();
        assert_eq!(list.header("x-yurt-served-from"), "cloud");
        assert_eq!(names(&list.expect(200)).len(), 5);
    }
    let lists = bed
        .site
        .metric("yurthub_mirror_upstream_lists_total", "configmaps")
        .await;
    assert!(
        lists < 1.5,
        "{lists} lists for a mirror that there cannot be"
    );
    let held = async || bed.site.metric("yurthub_kind_bytes", "configmaps").await;
    eventually("what was listed is released", async || held().await < 1.0).await;
    let mut watch = node
        .watch("/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0")
        .await
        .unwrap();
    assert_eq!(
        events(&mut watch, 5).await.len(),
        5,
        "a watch is forwarded too"
    );
    let secrets = "/api/v1/namespaces/default/secrets?resourceVersion=0";
    let list = node.get(secrets).await.unwrap();
    assert_eq!(
        list.header("x-yurt-served-from"),
        "mirror",
        "other kinds are as ever"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pods_object_is_kept_beyond_the_budget_of_its_kind() {
    let mut bed = bed(|config| {
        config
            .kinds
            .insert("configmaps".to_owned(), Budget::new(1, 100));
        config.mirror_idle = Duration::from_millis(500);
    })
    .await;
    furnish(&bed.cloud()).await;
    create(&bed.cloud(), "more", 1_000).await;
    let volumes = json!([{"name": "m", "configMap": {"name": "more"}}]);
    create_pod(&bed.cloud(), "db", &volumes).await;
    let node = bed.site.node();
    list_all(&node).await;
    list_one(&node, "configmaps", "settings").await;
    list_one(&node, "configmaps", "more").await;
    // Several sweeps: that the budget has no say here is what the test shows.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    bed.cut().await;
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    let node = bed.site.node();
    list_one(&node, "configmaps", "settings").await;
    list_one(&node, "configmaps", "more").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_no_scope_leads_to_are_deleted() {
    let store = Arc::new(MemoryStore::new());
    let mut bed = Bed::with(ApiConfig::default(), |mut site| {
        site.adjust(hasty);
        site.with_store(store.clone())
    })
    .await;
    create(&bed.cloud(), "a", 10).await;
    bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    bed.site.crash().await;
    let keys = |prefix: &[u8]| {
        let mut keys = Vec::new();
        let collect = &mut |key: &[u8], _: usize| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        };
        store.keys(prefix, None, collect).unwrap();
        keys
    };
    assert!(!keys(b"o/").is_empty());
    // As when the scope's own record was damaged.
    let mut batch = Batch::new();
    for key in keys(b"s/") {
        batch.delete(key);
    }
    store.write(batch).unwrap();
    bed.site.start();
    eventually("they are deleted", async || keys(b"o/").is_empty()).await;
}
