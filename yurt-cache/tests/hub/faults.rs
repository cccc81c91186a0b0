//! Stores that fail: reads go on, requests go to the cloud, and what was missed is caught up.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::json;
use testbed::api::ApiConfig;
use testbed::client::Client;
use testbed::link::{Cut, Link};
use testbed::pki::Pki;
use tokio::time::Instant;
use yurt_cache::store::MemoryStore;
use yurt_core::store::{Batch, Error, ErrorKind, Health, Operation, Result, Store};
use yurt_core::testing::fault::{Call, FaultyStore, ReadOnly, SlowStore};

use super::cloud::{Cloud, Say};
use super::site::{Bed, SOON, Site, events, eventually, names, revision};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FROM_MIRROR: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=0";
const SCOPE: &str = "v1/configmaps in default";

/// A store in memory whose disk is full when a test says so, or after so many writes more.
#[derive(Debug, Default)]
struct Filling {
    store: MemoryStore,
    is_full: AtomicBool,
    /// Writes that still go through once it counts; negative: it does not count.
    left: AtomicI64,
    /// It has no room for what a later list puts in place.
    has_no_place: AtomicBool,
}

impl Filling {
    fn new() -> Arc<Self> {
        let filling = Self::default();
        filling.left.store(-1, Ordering::SeqCst);
        Arc::new(filling)
    }
}

impl Store for Filling {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.store.get(key)
    }

    fn write(&self, batch: Batch) -> Result<()> {
        let is_over = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                (left > 0).then(|| left - 1)
            })
            == Err(0);
        // A list is put in place by the record of its scope.
        let places = batch
            .operations()
            .iter()
            .any(|operation| matches!(operation, Operation::Put(key, _) if key.starts_with(b"s/")));
        let has_no_place = places && self.has_no_place.load(Ordering::SeqCst);
        if is_over || has_no_place || self.is_full.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Full, "the test's disk is full"));
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
        self.store.health()
    }
}

async fn create(client: &Client, name: &str) {
    let map = json!({"metadata": {"name": name}});
    client.post(MAPS, &map).await.unwrap().expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_and_is_caught_up_when_there_is_room() {
    let store = Filling::new();
    let bed = Bed::with(ApiConfig::default(), |site| site.with_store(store.clone())).await;
    let cloud = bed.cloud();
    create(&cloud, "a").await;
    let node = bed.site.node();
    let held = node.get(FROM_MIRROR).await.unwrap().expect(200);
    bed.site.is_live(SCOPE).await;
    let path = format!("{MAPS}?watch=1&resourceVersion={}", revision(&held));
    let mut watch = node.watch(&path).await.unwrap();
    store.is_full.store(true, Ordering::SeqCst);
    create(&cloud, "b").await;
    // What the disk cannot take the cloud answers: unset is read from there, and another scope too.
    assert_eq!(
        names(&node.get(MAPS).await.unwrap().expect(200)),
        ["a", "b"]
    );
    let other = "/api/v1/namespaces/default/services?resourceVersion=0";
    assert_eq!(
        node.get(other).await.unwrap().header("x-yurt-served-from"),
        "cloud"
    );
    node.post(MAPS, &json!({"metadata": {"name": "c"}}))
        .await
        .unwrap()
        .expect(201);
    node.get(&format!("{MAPS}/c")).await.unwrap().expect(200);
    bed.cut().await;
    assert_eq!(
        names(&node.get(FROM_MIRROR).await.unwrap().expect(200)),
        ["a"]
    );
    node.get(&format!("{MAPS}/a")).await.unwrap().expect(200);
    bed.mend().await;
    store.is_full.store(false, Ordering::SeqCst);
    assert_eq!(events(&mut watch, 2).await, ["ADDED b", "ADDED c"]);
    assert_eq!(
        names(&node.get(FROM_MIRROR).await.unwrap().expect(200)),
        ["a", "b", "c"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_no_writes_leaves_a_proxy() {
    let store = Arc::new(FaultyStore::new(MemoryStore::new(), ReadOnly));
    let bed = Bed::with(ApiConfig::default(), |site| site.with_store(store)).await;
    let node = bed.site.node();
    create(&bed.cloud(), "a").await;
    for path in [FROM_MIRROR, MAPS] {
        assert_eq!(names(&node.get(path).await.unwrap().expect(200)), ["a"]);
    }
    node.get(&format!("{MAPS}/a")).await.unwrap().expect(200);
    node.get("/version").await.unwrap().expect(200);
    let mut watch = node.watch(&format!("{MAPS}?watch=1")).await.unwrap();
    assert_eq!(events(&mut watch, 1).await, ["ADDED a"]);
    bed.cut().await;
    node.get(MAPS)
        .await
        .unwrap()
        .expect_status(503, "ServiceUnavailable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_readable_once_goes_on_answering_when_it_takes_no_writes() {
    let store = Filling::new();
    let mut bed = Bed::with(ApiConfig::default(), |site| site.with_store(store.clone())).await;
    create(&bed.cloud(), "a").await;
    bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    bed.site.is_live(SCOPE).await;
    bed.cut().await;
    store.is_full.store(true, Ordering::SeqCst);
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    let list = bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    assert_eq!(names(&list), ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_the_disk_has_no_room_for_changes_nothing_and_is_fetched_again_after_a_crash() {
    let store = Filling::new();
    let pki = Arc::new(Pki::new());
    let (breaks, broken) = tokio::sync::watch::channel(false);
    let cloud = Cloud::start(&pki, move |asked| match (asked.is_watch(), asked.before) {
        (true, 0) => Say::silence().then(broken.clone(), "garbage\n"),
        // What happened since is lost, so it is listed again.
        (true, 1) => Say::lines(["garbage\n"]),
        (true, _) => Say::silence(),
        (false, 0) => Say::list(5, &[("a", 1), ("b", 2)]),
        (false, _) => Say::list(9, &[("c", 8)]),
    })
    .await;
    let link = Link::start(cloud.addr).unwrap();
    let mut site = Site::new(pki, vec![link.addr()]).with_store(store.clone());
    site.start();
    site.sees_the_cloud(true).await;
    let first = site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    assert_eq!(names(&first), ["a", "b"]);
    site.is_live(SCOPE).await;
    store.has_no_place.store(true, Ordering::SeqCst);
    breaks.send_replace(true);
    eventually("the list is fetched and not put in place", async || {
        cloud.count(MAPS, false) >= 2 && site.metric("yurthub_mirror_live", SCOPE).await < 0.5
    })
    .await;
    site.crash().await;
    link.cut(Cut::Refuse).await;
    site.start();
    site.sees_the_cloud(false).await;
    assert_eq!(site.page("/healthz").await.0, 200, "it has started");
    let before = site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    assert_eq!(
        names(&before),
        ["a", "b"],
        "nothing of the list is in place"
    );
    store.has_no_place.store(false, Ordering::SeqCst);
    link.mend().await.unwrap();
    site.sees_the_cloud(true).await;
    eventually("the list is put in place when there is room", async || {
        let list = site.node().get(FROM_MIRROR).await.unwrap();
        list.header("x-yurt-served-from") == "mirror" && names(&list.expect(200)) == ["c"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_delays_nobody_who_does_not_need_it() {
    let is_slow = Arc::new(AtomicBool::new(false));
    let slow = is_slow.clone();
    let store = Arc::new(SlowStore::new(MemoryStore::new(), move |call| {
        if call == Call::Write && slow.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1_500));
        }
    }));
    let bed = Bed::with(ApiConfig::default(), |site| site.with_store(store)).await;
    let cloud = bed.cloud();
    create(&cloud, "a").await;
    let node = bed.site.node();
    let held = node.get(FROM_MIRROR).await.unwrap().expect(200);
    bed.site.is_live(SCOPE).await;
    let path = format!("{MAPS}?watch=1&resourceVersion={}", revision(&held));
    let mut watch = node.watch(&path).await.unwrap();
    is_slow.store(true, Ordering::SeqCst);
    create(&cloud, "b").await;
    // Each of these begins a mirror, which is a write.
    let clients: Vec<Client> = (0..4).map(|_| bed.site.node()).collect();
    join_all(clients.iter().map(|client| client.get("/livez"))).await;
    let paths: Vec<String> = (0..4)
        .map(|number| format!("/api/v1/services?labelSelector=n%3D{number}&resourceVersion=0"))
        .collect();
    let starting = join_all(
        clients
            .iter()
            .zip(&paths)
            .map(|(client, path)| client.get(path)),
    );
    let others = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let began = Instant::now();
            bed.site.page("/readyz").await;
            node.get("/livez").await.unwrap();
            slowest = slowest.max(began.elapsed());
            tokio::task::yield_now().await;
        }
        slowest
    };
    let (started, slowest) = tokio::join!(starting, others);
    assert!(started.iter().all(|one| one.as_ref().unwrap().code == 200));
    assert!(
        slowest < Duration::from_millis(700),
        "somebody waited {slowest:?}"
    );
    assert_eq!(events(&mut watch, 1).await, ["ADDED b"]);
}

/// A cloud with a list of objects that are 300 kB each, then, after the watch broke, another one.
async fn relisting(store: Arc<dyn Store>) -> (Cloud, Site, tokio::sync::watch::Sender<bool>) {
    let (breaks, broken) = tokio::sync::watch::channel(false);
    let pki = Arc::new(Pki::new());
    let list = |revision: u64, items: &[(String, u64)]| {
        let pairs: Vec<(&str, u64)> = items
            .iter()
            .map(|(name, at)| (name.as_str(), *at))
            .collect();
        super::cloud::list(revision, &pairs)
            .replace("\"k\":\"", &format!("\"k\":\"{}", "x".repeat(300_000)))
    };
    let cloud = Cloud::start(&pki, move |asked| match (asked.is_watch(), asked.before) {
        (true, 0) => Say::silence().then(broken.clone(), "garbage\n"),
        (true, _) if asked.query.contains("resourceVersion=20&") => {
            Say::json(410, r#"{"kind":"Status","code":410}"#)
        }
        (true, _) => Say::silence(),
        (false, 0) => {
            let items: Vec<_> = (0..12_u64).map(|n| (format!("old{n:02}"), n + 1)).collect();
            Say::json(200, list(20, &items))
        }
        (false, _) => {
            // Half of the old ones are gone, the others are changed, and there are new ones.
            let kept = (6..12_u64).map(|n| (format!("old{n:02}"), n + 40));
            let new = (0..6_u64).map(|n| (format!("new{n:02}"), n + 30));
            let items: Vec<_> = new.chain(kept).collect();
            Say::json(200, list(60, &items))
        }
    })
    .await;
    let mut site = Site::new(pki, vec![cloud.addr]).with_store(store);
    site.start();
    site.sees_the_cloud(true).await;
    (cloud, site, breaks)
}

fn after() -> Vec<String> {
    let new = (0..6).map(|n| format!("new{n:02}"));
    new.chain((6..12).map(|n| format!("old{n:02}"))).collect()
}

/// Lets the relist fail at its `nth` write and returns whether it failed at all.
async fn relist_failing_at(nth: i64, is_crash: bool) -> bool {
    let store = Filling::new();
    let (_cloud, mut site, breaks) = relisting(store.clone()).await;
    let node = site.node();
    node.get(FROM_MIRROR).await.unwrap().expect(200);
    site.is_live(SCOPE).await;
    let path = format!("{MAPS}?watch=1&resourceVersion=20");
    let mut watch = node.watch(&path).await.unwrap();
    // Verdicts are written beside; wait until they are, so that the count is the relist's own.
    eventually("the verdicts are known", async || {
        let mut count = 0;
        store
            .store
            .keys(b"a/", None, &mut |_, _| {
                count += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        count >= 3
    })
    .await;
    store.left.store(nth, Ordering::SeqCst);
    breaks.send_replace(true);
    let is_listed = async || {
        let list = node.get(&format!("{MAPS}?resourceVersion=60")).await;
        list.is_ok_and(|list| list.code == 200 && list.header("x-yurt-served-from") == "mirror")
    };
    let failed = async {
        eventually("it fails or ends", async || {
            store.left.load(Ordering::SeqCst) == 0
                || site.metric("yurthub_mirror_revision", SCOPE).await > 59.0
        })
        .await;
        site.metric("yurthub_mirror_revision", SCOPE).await < 59.0
    }
    .await;
    if is_crash {
        drop(watch);
        drop(node);
        site.crash().await;
        store.left.store(-1, Ordering::SeqCst);
        site.start();
        site.sees_the_cloud(true).await;
        let node = site.node();
        let mut watch = node.watch(&path).await.unwrap();
        check(&mut watch, nth).await;
        let list = node
            .get(&format!("{MAPS}?resourceVersion=60"))
            .await
            .unwrap()
            .expect(200);
        assert_eq!(names(&list), after(), "write {nth}");
    } else {
        store.left.store(-1, Ordering::SeqCst);
        check(&mut watch, nth).await;
        eventually("the list is whole", is_listed).await;
        let list = node
            .get(&format!("{MAPS}?resourceVersion=60"))
            .await
            .unwrap()
            .expect(200);
        assert_eq!(names(&list), after(), "write {nth}");
    }
    failed
}

/// Each change of the relist comes once.
async fn check(watch: &mut testbed::client::Watch, nth: i64) {
    let mut seen = Vec::new();
    while seen.len() < 18 {
        let event = match watch.next(SOON).await {
            Ok(Some(event)) => event,
            ended => panic!("write {nth}: {ended:?} after {seen:?}, {:?}", watch.headers),
        };
        assert_ne!(event.kind, "ERROR", "write {nth}: {}", event.object);
        if event.kind == "BOOKMARK" {
            continue;
        }
        seen.push(format!(
            "{} {}",
            event.kind,
            event.object["metadata"]["name"].as_str().unwrap()
        ));
    }
    seen.sort();
    let mut wanted: Vec<String> = (0..6)
        .flat_map(|n| {
            [
                format!("ADDED new{n:02}"),
                format!("DELETED old{n:02}"),
                format!("MODIFIED old{:02}", n + 6),
            ]
        })
        .collect();
    wanted.sort();
    assert_eq!(seen, wanted, "write {nth}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relist_that_fails_at_any_write_is_finished_when_there_is_room() {
    let mut nth = 0;
    while relist_failing_at(nth, false).await {
        nth += 1;
    }
    assert!(nth >= 8, "the relist took only {nth} writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relist_that_crashes_at_any_write_is_finished_or_begun_again_at_the_next_start() {
    let mut nth = 0;
    while relist_failing_at(nth, true).await {
        nth += 1;
    }
    assert!(nth >= 8, "the relist took only {nth} writes");
}
