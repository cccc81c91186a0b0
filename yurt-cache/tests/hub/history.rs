//! A mirror's history: every step reaches every watcher once and in order, and what was told counts for ever.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use serde_json::json;
use testbed::client::{Client, Watch};
use testbed::link::{Cut, Link};
use testbed::pki::Pki;
use yurt_cache::store::MemoryStore;
use yurt_core::store::{self, Batch, Health, Operation, Store};

use super::cloud::{Asked, Cloud, Say, event, list};
use super::site::{NODE, SOON, Site, events, eventually, names, revision};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FROM_MIRROR: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=0";
const SCOPE: &str = "v1/configmaps in default";

type Switch = tokio::sync::watch::Sender<bool>;

/// Starts a hub whose mirror of the ConfigMaps is live, with the store that it writes.
async fn mirrored(
    answer: impl Fn(&Asked) -> Say + Send + Sync + 'static,
) -> (Cloud, Site, Arc<MemoryStore>) {
    let pki = Arc::new(Pki::new());
    let cloud = Cloud::start(&pki, answer).await;
    let store = Arc::new(MemoryStore::new());
    let mut site = Site::new(pki, vec![cloud.addr]).with_store(store.clone());
    site.start();
    site.sees_the_cloud(true).await;
    site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    site.is_live(SCOPE).await;
    (cloud, site, store)
}

/// Starts a hub whose cloud lists nothing at 5, and says `chunk` in the first watch when the switch is on.
/// It is at `barrier` before, and at `end` after it.
async fn hearing(barrier: u64, chunk: String, end: u64) -> (Cloud, Site, Switch) {
    let (go, went) = tokio::sync::watch::channel(false);
    let (cloud, site, _) =
        mirrored(
            move |asked| match (asked.is_barrier(), asked.is_watch(), asked.before) {
                (true, ..) if *went.borrow() => Say::list(end, &[]),
                (true, ..) => Say::list(barrier, &[]),
                (_, true, 0) => Say::silence().then(went.clone(), chunk.clone()),
                (_, true, _) => Say::silence(),
                _ => Say::list(5, &[]),
            },
        )
        .await;
    (cloud, site, go)
}

/// Returns when the mirror tells at least this revision.
async fn reaches(site: &Site, wanted: u64) {
    let wanted = f64::from(u32::try_from(wanted).unwrap());
    eventually("the mirror has come so far", async || {
        site.metric("yurthub_mirror_revision", SCOPE).await >= wanted
    })
    .await;
}

/// Opens a watch; it ends with its client.
async fn watch(site: &Site, query: &str) -> (Client, Watch) {
    let node = site.node();
    let watch = node.watch(&format!("{MAPS}?watch=1{query}")).await.unwrap();
    (node, watch)
}

async fn restart(site: &mut Site) {
    site.crash().await;
    site.start();
    site.sees_the_cloud(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_of_a_chunk_reaches_who_was_told_a_later_revision() {
    let late = event("ADDED", "a", 9) + &event("ADDED", "b", 10) + &event("ADDED", "c", 11);
    let (_cloud, mut site, go) = hearing(10, late, 11).await;
    let (_node, mut open) = watch(&site, "").await;
    reaches(&site, 10).await;
    go.send_replace(true);
    assert_eq!(
        events(&mut open, 3).await,
        ["ADDED a", "ADDED b", "ADDED c"]
    );
    let told = revision(&site.node().get(FROM_MIRROR).await.unwrap().expect(200));
    restart(&mut site).await;
    // Who was told a revision between them misses nothing after a restart either.
    for from in 10..told {
        let (_node, mut resumed) = watch(&site, &format!("&resourceVersion={from}")).await;
        let next = resumed.next(SOON).await;
        let next = next.unwrap().expect("an event or an error");
        assert!(
            matches!(next.kind.as_str(), "ADDED" | "ERROR"),
            "{from}: {}",
            next.object
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_added_and_deleted_in_one_chunk_is_deleted_for_who_resumes_between() {
    let both = event("ADDED", "x", 7) + &event("DELETED", "x", 9);
    let (_cloud, mut site, go) = hearing(5, both, 9).await;
    let (_node, mut open) = watch(&site, "&resourceVersion=5").await;
    go.send_replace(true);
    assert_eq!(events(&mut open, 2).await, ["ADDED x", "DELETED x"]);
    restart(&mut site).await;
    let (_node, mut resumed) = watch(&site, "&resourceVersion=7").await;
    assert_eq!(events(&mut resumed, 1).await, ["DELETED x"]);
}

/// Starts a hub that lists these at 20, and at `barrier` when it wants a proof, and nothing at 60 when the switch
/// is on.
async fn relisting(count: usize, barrier: u64) -> (Cloud, Site, Arc<MemoryStore>, Switch) {
    let (breaks, broken) = tokio::sync::watch::channel(false);
    let items: Vec<String> = (0..count).map(|number| format!("m{number:04}")).collect();
    let (cloud, site, store) =
        mirrored(
            move |asked| match (asked.is_barrier(), asked.is_watch(), asked.before) {
                (_, true, 0) => Say::silence().then(broken.clone(), "garbage\n"),
                (_, true, _) => Say::silence(),
                (is_barrier, _, before) if is_barrier || before == 0 => {
                    let items: Vec<_> = items.iter().map(|name| (name.as_str(), 3)).collect();
                    Say::json(200, list(if is_barrier { barrier } else { 20 }, &items))
                }
                _ => Say::list(60, &[]),
            },
        )
        .await;
    (cloud, site, store, breaks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_deletion_of_a_relist_is_told_at_a_revision_of_its_own_even_if_none_is_left() {
    let (_cloud, mut site, _, breaks) = relisting(3, 60).await;
    let (mut _node, mut open) = watch(&site, "").await;
    events(&mut open, 3).await;
    reaches(&site, 60).await;
    breaks.send_replace(true);
    for round in 0..2 {
        let mut reached = 60;
        let mut gone = Vec::new();
        while gone.len() < 3 {
            let event = open.next(SOON).await.unwrap().unwrap();
            if event.kind == "BOOKMARK" {
                continue;
            }
            assert_eq!(event.kind, "DELETED", "{}", event.object);
            assert!(revision(&event.object) > reached, "{}", event.object);
            reached = revision(&event.object);
            gone.push(
                event.object["metadata"]["name"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
            );
        }
        gone.sort();
        assert_eq!(gone, ["m0000", "m0001", "m0002"], "round {round}");
        restart(&mut site).await;
        (_node, open) = watch(&site, "&resourceVersion=60").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_was_told_is_told_again_after_a_crash() {
    let chunk = event("ADDED", "a", 7) + &event("BOOKMARK", "", 20);
    let (_cloud, mut site, go) = hearing(20, chunk, 20).await;
    go.send_replace(true);
    let node = site.node();
    eventually("the bookmark's revision is told", async || {
        let list = node.get(MAPS).await.unwrap();
        list.header("x-yurt-served-from") == "mirror" && names(&list.expect(200)) == ["a"]
    })
    .await;
    reaches(&site, 20).await;
    drop(node);
    restart(&mut site).await;
    let list = site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    assert_eq!(names(&list), ["a"]);
    assert!(revision(&list) >= 20, "{list}");
}

/// Counts the writes of scopes.
#[derive(Debug, Default)]
struct Counting {
    store: MemoryStore,
    scopes: AtomicUsize,
}

impl Store for Counting {
    fn get(&self, key: &[u8]) -> store::Result<Option<Bytes>> {
        self.store.get(key)
    }

    fn write(&self, batch: Batch) -> store::Result<()> {
        let is_scope =
            |one: &Operation| matches!(one, Operation::Put(key, _) if key.starts_with(b"s/"));
        let is_of_scope = batch.operations().iter().any(is_scope);
        self.scopes
            .fetch_add(usize::from(is_of_scope), Ordering::SeqCst);
        self.store.write(batch)
    }

    fn sync(&self) -> store::Result<()> {
        self.store.sync()
    }

    fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], usize) -> ControlFlow<()>,
    ) -> store::Result<()> {
        self.store.keys(prefix, after, visit)
    }

    fn health(&self) -> Health {
        self.store.health()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookmarks_of_a_quiet_scope_are_not_written_one_by_one() {
    let pki = Arc::new(Pki::new());
    let cloud = Cloud::start(&pki, |asked| match asked.is_watch() {
        false => Say::list(5, &[]),
        true if asked.before > 0 => Say::silence(),
        true => {
            let equal = (0..20).map(|_| event("BOOKMARK", "", 5));
            let later = (6..26).map(|at| event("BOOKMARK", "", at));
            Say::lines(equal.chain(later).chain([event("ADDED", "a", 30)]))
        }
    })
    .await;
    let store = Arc::new(Counting::default());
    let mut site = Site::new(pki, vec![cloud.addr]).with_store(store.clone());
    site.start();
    site.sees_the_cloud(true).await;
    site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    reaches(&site, 30).await;
    let written = store.scopes.load(Ordering::SeqCst);
    // When it begins and when it is synced; how far it has come since is written for all scopes together.
    assert_eq!(written, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relist_remembers_no_more_deletions_than_a_watch_does() {
    let (_cloud, site, store, breaks) = relisting(1_500, 20).await;
    breaks.send_replace(true);
    reaches(&site, 60).await;
    let mut stones = 0;
    let mut count = |_: &[u8], _| {
        stones += 1;
        ControlFlow::Continue(())
    };
    store.keys(b"t/", None, &mut count).unwrap();
    assert!(stones <= 1_000, "{stones}");
    // Who would not be told of all of them has to list again.
    let (_node, mut resumed) = watch(&site, "&resourceVersion=20").await;
    assert_eq!(resumed.next(SOON).await.unwrap().unwrap().kind, "ERROR");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_a_revision_that_the_cloud_has_reached_is_placed_after_a_barrier() {
    let (_cloud, site, go) = hearing(40, event("ADDED", "a", 41), 41).await;
    let (_node, mut open) = watch(&site, "&resourceVersion=40").await;
    assert_eq!(open.headers["x-yurt-served-from"], "mirror");
    reaches(&site, 40).await;
    go.send_replace(true);
    assert_eq!(events(&mut open, 1).await, ["ADDED a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_a_revision_that_the_cloud_has_not_reached_is_sent_to_list_again() {
    let (_cloud, site, _go) = hearing(40, String::new(), 40).await;
    let (_node, mut open) = watch(&site, "&resourceVersion=1000").await;
    let error = open.next(SOON).await.unwrap().unwrap();
    assert_eq!(
        (error.kind.as_str(), error.object["code"].as_u64()),
        ("ERROR", Some(410))
    );
}

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(at: u64) -> String {
    format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"till","namespace":"default","uid":"u","resourceVersion":"{at}"}},"spec":{{"nodeName":"{NODE}"}},"status":{{}}}}"#
    )
}

/// A cloud with one pod, which says an event and a bookmark in one chunk.
fn pods(asked: &Asked) -> Say {
    if asked.path != PODS || !asked.is_watch() {
        let (at, pod) = if asked.before == 0 && !asked.is_barrier() {
            (5, pod(5))
        } else {
            (20, pod(7))
        };
        let list = list(at, &[]).replace("ConfigMap", "Pod");
        return Say::json(200, list.replace("[]", &format!("[{pod}]")));
    }
    match asked.before {
        0 => Say::lines(
            [format!("{{\"type\":\"MODIFIED\",\"object\":{}}}\n", pod(7))
                + &event("BOOKMARK", "", 20).replace("ConfigMap", "Pod")],
        ),
        _ => Say::silence(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_was_told_is_never_told_again_with_another_content() {
    let pki = Arc::new(Pki::new());
    let cloud = Cloud::start(&pki, pods).await;
    let link = Link::start(cloud.addr).unwrap();
    let mut site = Site::new(pki, vec![link.addr()]);
    site.start();
    site.sees_the_cloud(true).await;
    let from_mirror = format!("{PODS}?resourceVersion=0");
    site.node().get(&from_mirror).await.unwrap().expect(200);
    eventually("the bookmark's revision is told", async || {
        let list = site.node().get(PODS).await.unwrap();
        list.header("x-yurt-served-from") == "mirror" && revision(&list.expect(200)) >= 20
    })
    .await;
    link.cut(Cut::Refuse).await;
    site.sees_the_cloud(false).await;
    let mut told = vec![20];
    for round in 0..3 {
        site.crash().await;
        site.start();
        site.sees_the_cloud(false).await;
        let node = site.node();
        for step in 0..2 {
            let before = *told.iter().max().unwrap();
            let status = json!({"status": {"podIP": format!("10.0.{round}.{step}")}});
            let patched = node
                .patch(&format!("{PODS}/till/status"), "merge", &status)
                .await;
            let patched = revision(&patched.unwrap().expect(200));
            assert!(
                patched > before,
                "{patched} was told, or one behind it: {told:?}"
            );
            // Who resumes at anything that was told sees it.
            for from in &told {
                let path = format!("{PODS}?watch=1&resourceVersion={from}");
                let mut resumed = node.watch(&path).await.unwrap();
                let next = resumed.next(SOON).await.unwrap().unwrap();
                let is_seen = next.kind == "ERROR" || revision(&next.object) > *from;
                assert!(is_seen, "from {from}: {} {}", next.kind, next.object);
            }
            let list = node.get(&from_mirror).await.unwrap().expect(200);
            told.extend([patched, revision(&list)]);
        }
    }
}
