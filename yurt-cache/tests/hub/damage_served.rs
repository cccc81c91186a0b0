//! Damage to the store: the truth or a refusal, and never an object less.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};
use testbed::api::ApiConfig;
use testbed::client::Client;
use testbed::link::{Cut, Link};
use testbed::pki::Pki;
use tokio::task::JoinSet;
use yurt_cache::store::MemoryStore;
use yurt_core::store::{Batch, Error, ErrorKind, Health, Operation, Result, Store};

use super::cloud::{Cloud, Say, list};
use super::site::{Bed, SOON, Site, eventually, names, revision};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FROM_MIRROR: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=0";
const SCOPE: &str = "v1/configmaps in default";
const RECORD: &[u8] = b"o//v1/configmaps/default/b";

/// Whether a write is the last one of a process.
type Last = fn(&Operation) -> bool;

/// A store whose records a test harms: one that cannot be read, one that is read late, one that is not written.
#[derive(Debug, Default)]
struct Harmed {
    store: MemoryStore,
    /// The record of `b` reads as damaged until it is written again.
    is_damaged: AtomicBool,
    held: Mutex<Held>,
    let_go: Condvar,
    /// After the first batch with such an operation nothing more is written.
    dies_after: Mutex<Option<Last>>,
    is_dead: AtomicBool,
}

/// Reads of the record of `b` that wait for the test.
#[derive(Debug, Default)]
struct Held {
    is_held: bool,
    waiting: usize,
}

impl Harmed {
    fn hold(&self, is_held: bool) {
        self.held.lock().is_held = is_held;
        self.let_go.notify_all();
    }

    /// Returns whether somebody is in the middle of reading the record of `b`.
    fn is_waited_for(&self) -> bool {
        self.held.lock().waiting > 0
    }

    fn wait(&self) {
        let mut held = self.held.lock();
        held.waiting += 1;
        self.let_go.wait_while(&mut held, |held| held.is_held);
        held.waiting -= 1;
    }
}

impl Store for Harmed {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        if key == RECORD {
            self.wait();
            if self.is_damaged.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::Damaged, "the test has damaged it"));
            }
        }
        self.store.get(key)
    }

    fn write(&self, batch: Batch) -> Result<()> {
        if self.is_dead.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Full, "the test's disk is full"));
        }
        let dies_after = *self.dies_after.lock();
        for operation in batch.operations() {
            if matches!(operation, Operation::Put(key, _) if key == RECORD) {
                self.is_damaged.store(false, Ordering::SeqCst);
            }
            if dies_after.is_some_and(|is_last| is_last(operation)) {
                self.is_dead.store(true, Ordering::SeqCst);
            }
        }
        self.store.write(batch)
    }

    fn sync(&self) -> Result<()> {
        self.store.sync()
    }

    fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], usize) -> ControlFlow<()>,
    ) -> Result<()> {
        self.store.keys(prefix, after, visit)
    }

    fn health(&self) -> Health {
        let mut health = self.store.health();
        health.damaged = u64::from(self.is_damaged.load(Ordering::SeqCst));
        health
    }
}

async fn create(client: &Client, name: &str) {
    let map = json!({"metadata": {"name": name, "labels": {"app": "x"}}, "data": {"k": "v"}});
    client.post(MAPS, &map).await.unwrap().expect(201);
}

/// A bed with a live mirror of the ConfigMaps a, b and c.
async fn bed() -> (Bed, Arc<Harmed>) {
    let store = Arc::new(Harmed::default());
    let bed = Bed::with(ApiConfig::default(), |site| site.with_store(store.clone())).await;
    for name in ["a", "b", "c"] {
        create(&bed.cloud(), name).await;
    }
    bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    bed.site.is_live(SCOPE).await;
    (bed, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_starts_on_damage_while_cut_off_refuses_and_shows_no_object_less() {
    let (mut bed, store) = bed().await;
    let node = bed.site.node();
    let services = "/api/v1/namespaces/default/services";
    let other = format!("{services}?resourceVersion=0");
    node.get(&other).await.unwrap().expect(200);
    node.get(&format!("{MAPS}/a")).await.unwrap().expect(200);
    bed.cut().await;
    store.is_damaged.store(true, Ordering::SeqCst);
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    let node = bed.site.node();
    for path in [
        FROM_MIRROR.to_owned(),
        format!("{MAPS}?labelSelector=app%3Dx"),
        format!("{MAPS}?watch=1&resourceVersion=0"),
        format!("{MAPS}/b"),
    ] {
        let refused = node.get(&path).await.unwrap();
        refused.expect_status(503, "ServiceUnavailable");
    }
    node.get(&format!("{MAPS}/a")).await.unwrap().expect(200);
    assert_eq!(
        node.get(&other).await.unwrap().code,
        200,
        "another scope is whole"
    );
    bed.mend().await;
    eventually("the cloud has healed it", async || {
        let list = bed.site.node().get(FROM_MIRROR).await.unwrap();
        list.header("x-yurt-served-from") == "mirror" && names(&list.json()) == ["a", "b", "c"]
    })
    .await;
    bed.cut().await;
    let list = bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    assert_eq!(names(&list), ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_found_damaged_online_is_fetched_again() {
    let (bed, store) = bed().await;
    store.is_damaged.store(true, Ordering::SeqCst);
    let node = bed.site.node();
    // The first answer may break off; it has no object less.
    if let Ok(list) = node
        .get(&format!("{FROM_MIRROR}&labelSelector=app%3Dx"))
        .await
        && list.code == 200
    {
        assert_eq!(names(&list.json()), ["a", "b", "c"]);
    }
    eventually("it is healed", async || {
        let list = node.get(FROM_MIRROR).await;
        list.is_ok_and(|list| list.code == 200 && list.header("x-yurt-served-from") == "mirror")
    })
    .await;
    bed.cut().await;
    let list = node.get(FROM_MIRROR).await.unwrap().expect(200);
    assert_eq!(names(&list), ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_found_damaged_while_cut_off_is_refused_until_the_cloud_is_back() {
    let (bed, store) = bed().await;
    let node = bed.site.node();
    let one = format!("{MAPS}/b");
    for known in [&one, &format!("{MAPS}/a")] {
        node.get(known).await.unwrap().expect(200);
    }
    bed.cut().await;
    store.is_damaged.store(true, Ordering::SeqCst);
    node.get(&one)
        .await
        .unwrap()
        .expect_status(503, "ServiceUnavailable");
    let list = node.get(FROM_MIRROR).await.unwrap();
    list.expect_status(503, "ServiceUnavailable");
    node.get(&format!("{MAPS}/a")).await.unwrap().expect(200);
    bed.mend().await;
    eventually("it is healed", async || {
        let list = node.get(FROM_MIRROR).await;
        list.is_ok_and(|list| list.code == 200 && list.header("x-yurt-served-from") == "mirror")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_an_object_whose_record_is_damaged_is_told_whole_or_the_client_lists_again() {
    let (bed, store) = bed().await;
    let node = bed.site.node();
    let from = revision(&node.get(FROM_MIRROR).await.unwrap().expect(200));
    bed.cut().await;
    store.is_damaged.store(true, Ordering::SeqCst);
    let one = format!("{FROM_MIRROR}&labelSelector=app%3Dx");
    // It may break off.
    drop(node.get(&one).await);
    let refused = node.get(FROM_MIRROR).await.unwrap();
    refused.expect_status(503, "ServiceUnavailable");
    let gone = bed.cloud().delete(&format!("{MAPS}/b"), None).await;
    gone.unwrap().expect(200);
    bed.mend().await;
    eventually("it is listed again", async || {
        let list = node.get(FROM_MIRROR).await.unwrap();
        list.header("x-yurt-served-from") == "mirror" && names(&list.json()) == ["a", "c"]
    })
    .await;
    let watch = format!("{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={from}");
    let watched = node.get(&watch).await.unwrap();
    let text = watched.text().trim().to_owned();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("{error} in {line:?}");
        });
        let is_whole = event["object"]["metadata"]["name"] == "b";
        assert!(is_whole || event["object"]["code"] == 410, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_selects_hears_that_an_object_leaves_also_if_what_it_was_is_damaged() {
    let (bed, store) = bed().await;
    let node = bed.site.node();
    let from = revision(&node.get(FROM_MIRROR).await.unwrap().expect(200));
    let watch = format!("{MAPS}?watch=1&labelSelector=app%3Dx&resourceVersion={from}");
    let mut watch = node.watch(&watch).await.unwrap();
    store.is_damaged.store(true, Ordering::SeqCst);
    let patch = json!({"metadata": {"labels": {"app": "y"}}});
    let patched = bed
        .cloud()
        .patch(&format!("{MAPS}/b"), "merge", &patch)
        .await;
    patched.unwrap().expect(200);
    create(&bed.cloud(), "d").await;
    let event = watch.next(SOON).await.unwrap().expect("it goes on");
    let is_told = event.kind == "DELETED" && event.object["metadata"]["name"] == "b";
    assert!(is_told || event.object["code"] == 410, "{}", event.object);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_by_selector_is_whole_or_fails_when_versions_are_replaced_meanwhile() {
    let (bed, store) = bed().await;
    let cloud = bed.cloud();
    store.hold(true);
    let node = bed.site.node();
    let selected = format!("{FROM_MIRROR}&labelSelector=app%3Dx");
    let mut listing = JoinSet::new();
    listing.spawn(async move { node.get(&selected).await });
    eventually("the list is being read", async || store.is_waited_for()).await;
    // More than is kept of replaced versions, and then the last one of the list.
    for round in 0..10 {
        let value: Value = json!({"data": {"k": format!("{round}{}", "x".repeat(2_000_000))}});
        let patched = cloud
            .patch(&format!("{MAPS}/a"), "merge", &value)
            .await
            .unwrap();
        let wanted = f64::from(u32::try_from(revision(&patched.expect(200))).unwrap());
        eventually("it is taken", async || {
            bed.site.metric("yurthub_mirror_revision", SCOPE).await >= wanted
        })
        .await;
    }
    let changed = json!({"data": {"k": "changed"}});
    let patched = cloud
        .patch(&format!("{MAPS}/c"), "merge", &changed)
        .await
        .unwrap();
    let wanted = f64::from(u32::try_from(revision(&patched.expect(200))).unwrap());
    eventually("it is taken", async || {
        bed.site.metric("yurthub_mirror_revision", SCOPE).await >= wanted
    })
    .await;
    store.hold(false);
    let list = listing.join_next().await.unwrap().unwrap().unwrap();
    match list.code {
        200 => assert_eq!(names(&list.json()), ["a", "b", "c"]),
        code => assert!(code >= 500, "{code}: {}", list.text()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_ended_half_way_leaves_nothing_to_the_next_one() {
    let store = Arc::new(Harmed::default());
    let mut bed = Bed::with(ApiConfig::default(), |mut site| {
        site.adjust(|config| config.mirror_idle = std::time::Duration::from_secs(2));
        site.with_store(store.clone())
    })
    .await;
    create(&bed.cloud(), "a").await;
    let node = bed.site.node();
    let selected = format!("{MAPS}?labelSelector=app%3Dx&resourceVersion=0");
    node.get(&selected).await.unwrap().expect(200);
    let _kept = node.watch(&format!("{selected}&watch=1")).await.unwrap();
    *store.dies_after.lock() = Some(
        |operation| matches!(operation, Operation::Delete(key) if key.starts_with(b"s/00000002")),
    );
    let everywhere = "/api/v1/configmaps?resourceVersion=0";
    node.get(everywhere).await.unwrap().expect(200);
    eventually("it ends half-way", async || {
        store.is_dead.load(Ordering::SeqCst)
    })
    .await;
    bed.site.crash().await;
    *store.dies_after.lock() = None;
    store.is_dead.store(false, Ordering::SeqCst);
    bed.site.adjust(|_| {});
    bed.site.start();
    bed.site.sees_the_cloud(true).await;
    let other = format!("{MAPS}?labelSelector=app%3Dy&resourceVersion=0");
    let list = bed.site.node().get(&other).await.unwrap().expect(200);
    assert_eq!(names(&list), [""; 0]);
    bed.site
        .is_live("v1/configmaps in default with app=y")
        .await;
    bed.restart().await;
    bed.site.sees_the_cloud(true).await;
    let list = bed.site.node().get(&other).await.unwrap().expect(200);
    assert_eq!(
        names(&list),
        [""; 0],
        "what another mirror held is not its own"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_half_written_is_not_served_while_cut_off() {
    let store = Arc::new(Harmed::default());
    let pki = Arc::new(Pki::new());
    let (breaks, broken) = tokio::sync::watch::channel(false);
    let big = |revision: u64, items: &[(&str, u64)]| {
        list(revision, items).replace("\"k\":\"", &format!("\"k\":\"{}", "x".repeat(800_000)))
    };
    let cloud = Cloud::start(&pki, move |asked| match (asked.is_watch(), asked.before) {
        (true, 0) => Say::silence().then(broken.clone(), "garbage\n"),
        (true, _) => Say::silence(),
        (false, 0) => Say::json(200, big(5, &[("a", 1), ("b", 2), ("c", 3)])),
        (false, _) => Say::json(200, big(9, &[("a", 6), ("b", 7), ("c", 8)])),
    })
    .await;
    let link = Link::start(cloud.addr).unwrap();
    let mut site = Site::new(pki, vec![link.addr()]).with_store(store.clone());
    site.start();
    site.sees_the_cloud(true).await;
    let node = site.node();
    node.get(FROM_MIRROR).await.unwrap().expect(200);
    site.is_live(SCOPE).await;
    *store.dies_after.lock() =
        Some(|operation| matches!(operation, Operation::Put(key, _) if key.starts_with(b"o/")));
    breaks.send_replace(true);
    eventually("the disk is full half-way", async || {
        store.is_dead.load(Ordering::SeqCst)
    })
    .await;
    link.cut(Cut::Refuse).await;
    site.sees_the_cloud(false).await;
    for round in 0..2 {
        let list = site.node().get(FROM_MIRROR).await.unwrap().expect(200);
        let values = list["items"].as_array().unwrap().iter().map(revision);
        let values: Vec<u64> = values.collect();
        assert_eq!(
            (values, revision(&list)),
            (vec![1, 2, 3], 5),
            "round {round}"
        );
        site.crash().await;
        site.start();
        site.sees_the_cloud(false).await;
    }
}
