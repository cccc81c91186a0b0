//! How mirrors follow the cloud: nothing is claimed that is not proven, and what cannot be followed is not.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use testbed::client::Client;
use testbed::link::Cut;
use testbed::pki::Pki;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use yurt_cache::store::MemoryStore;
use yurt_core::store::Store;

use super::cloud::{Cloud, Say, event, list};
use super::site::{Bed, MOMENT, SOON, Site, events, eventually, names, revision};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FROM_MIRROR: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=0";
const SCOPE: &str = "v1/configmaps in default";

const NO_WATCH: &str =
    r#"{"kind":"Status","status":"Failure","reason":"MethodNotAllowed","code":405}"#;
const NO_RESOURCE: &str = r#"{"kind":"Status","status":"Failure","reason":"NotFound","code":404}"#;

/// A cloud whose watch brings `b` only when it is told to, and whose lists have it at once.
async fn lagging() -> (Cloud, Site, watch::Sender<bool>) {
    let (go, gone) = watch::channel(false);
    let (cloud, site) = Cloud::with_hub(move |asked| match (asked.is_watch(), asked.before) {
        (true, 0) => Say::silence().then(gone.clone(), event("ADDED", "b", 9)),
        (true, _) => Say::silence(),
        (false, 0) if !asked.is_barrier() => Say::list(5, &[("a", 1)]),
        (false, _) => Say::list(10, &[("a", 1), ("b", 9)]),
    })
    .await;
    site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    site.is_live(SCOPE).await;
    (cloud, site, go)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_without_a_revision_is_the_clouds_own_as_long_as_the_watch_lags_behind() {
    let (_cloud, site, _go) = lagging().await;
    let list = site.node().get(MAPS).await.unwrap();
    assert_eq!(list.header("x-yurt-served-from"), "cloud");
    assert_eq!(names(&list.expect(200)), ["a", "b"]);
    let held = site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    assert_eq!((names(&held), revision(&held)), (vec!["a"], 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_without_a_revision_waits_for_what_is_on_its_way_in_the_watch() {
    let (cloud, site, go) = lagging().await;
    let node = site.node();
    let listing = node.get(MAPS);
    let going = async {
        eventually("the hub has asked for the proof", async || {
            cloud.asked().iter().any(super::cloud::Asked::is_proof)
        })
        .await;
        go.send_replace(true);
    };
    let (list, ()) = tokio::join!(listing, going);
    let list = list.unwrap();
    assert_eq!(list.header("x-yurt-served-from"), "mirror", "{list:?}");
    let list = list.expect(200);
    assert_eq!(names(&list), ["a", "b"]);
    assert!(revision(&list) >= 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_shows_what_its_reopened_upstream_watch_has_not_brought_yet() {
    let (_cloud, site, _go) = lagging().await;
    let path = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let node = site.node();
    let mut watch = node.watch(&path).await.unwrap();
    // The cloud's own answer: its second watch, which is silent here.
    assert!(
        watch.is_silent(MOMENT).await.unwrap(),
        "nothing older is shown"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_proven_costs_neither_objects_nor_a_wait() {
    let (cloud, site) = Cloud::with_hub(|asked| match asked.is_watch() {
        true => Say::silence(),
        false if asked.is_barrier() => Say::list(70, &[("a", 1)]),
        false => Say::list(5, &[("a", 1)]),
    })
    .await;
    let node = site.node();
    node.get(FROM_MIRROR).await.unwrap().expect(200);
    site.is_live(SCOPE).await;
    let began = Instant::now();
    let list = node.get(MAPS).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(700));
    assert_eq!(list.header("x-yurt-served-from"), "mirror");
    assert_eq!(revision(&list.expect(200)), 70, "where the cloud is");
    assert_eq!(cloud.count(MAPS, false), 1);
}

async fn create(client: &Client, name: &str) {
    let map = json!({"metadata": {"name": name}});
    client.post(MAPS, &map).await.unwrap().expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_reflectors_that_list_in_pages_cost_one_list_and_one_watch() {
    let bed = Bed::start().await;
    let cloud = bed.cloud();
    for name in ["a", "b", "c"] {
        create(&cloud, name).await;
    }
    bed.api.forget_requests();
    let path = format!("{MAPS}?limit=2");
    let clients: Vec<Client> = (0..10).map(|_| bed.site.node()).collect();
    let first = join_all(clients.iter().map(|client| client.get(&path))).await;
    for (client, page) in clients.iter().zip(first) {
        let page = page.unwrap();
        assert_eq!(page.header("x-yurt-served-from"), "mirror");
        let page = page.expect(200);
        let token = page["metadata"]["continue"].as_str().unwrap();
        let rest = client.get(&format!("{path}&continue={token}")).await;
        let rest = rest.unwrap().expect(200);
        assert_eq!(names(&page).len() + names(&rest).len(), 3);
        let since = revision(&rest);
        let watch = format!("{MAPS}?watch=1&resourceVersion={since}");
        assert_eq!(client.watch(&watch).await.unwrap().code, 200);
    }
    let asked = bed.api.requests();
    let count = |verb: &str| {
        let of_objects = asked.iter().filter(|one| {
            one.verb == verb && one.resource == "configmaps" && !one.query.contains("limit=1&")
        });
        // Names and revisions alone, by which a mirror is proven.
        let of_objects = of_objects.filter(|one| !one.query.contains("limit=1000"));
        of_objects
            .filter(|one| !one.query.ends_with("limit=1"))
            .count()
    };
    assert_eq!((count("list"), count("watch")), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_page_is_as_old_as_the_first_although_the_mirror_has_moved_on() {
    let bed = Bed::start().await;
    let cloud = bed.cloud();
    for name in ["a", "b", "d"] {
        create(&cloud, name).await;
    }
    let node = bed.site.node();
    let path = format!("{MAPS}?limit=2");
    let first = node.get(&path).await.unwrap();
    assert_eq!(first.header("x-yurt-served-from"), "mirror");
    let first = first.expect(200);
    let mut watch = node
        .watch(&format!(
            "{MAPS}?watch=1&resourceVersion={}",
            revision(&first)
        ))
        .await
        .unwrap();
    create(&cloud, "c").await;
    assert_eq!(events(&mut watch, 1).await, ["ADDED c"]);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = node.get(&format!("{path}&continue={token}")).await.unwrap();
    let rest = rest.expect(200);
    assert_eq!(names(&rest).last(), Some(&"d"));
    assert!(!names(&rest).contains(&"c"));
    assert_eq!(revision(&rest), revision(&first));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_that_was_restored_from_a_backup_is_noticed_although_its_watch_is_silent() {
    let (restored, is_restored) = watch::channel(false);
    let (breaks, broken) = watch::channel(false);
    let (_cloud, site) = Cloud::with_hub(move |asked| {
        let is_restored = *is_restored.borrow();
        match (asked.is_watch(), asked.before) {
            (true, 0) => Say::silence().breaking(broken.clone()),
            (true, _) => Say::silence(),
            (false, _) if is_restored => Say::list(90, &[("b", 80)]),
            (false, _) => Say::list(500, &[("a", 400)]),
        }
    })
    .await;
    let node = site.node();
    node.get(FROM_MIRROR).await.unwrap().expect(200);
    site.is_live(SCOPE).await;
    let path = format!("{MAPS}?watch=1&resourceVersion=500");
    let mut watch = node.watch(&path).await.unwrap();
    restored.send_replace(true);
    breaks.send_replace(true);
    let error = watch.next(SOON).await.unwrap().unwrap();
    assert_eq!(
        (error.kind.as_str(), &error.object["code"]),
        ("ERROR", &json!(410))
    );
    eventually("what the cloud has now is shown", async || {
        let held = node.get(FROM_MIRROR).await.unwrap().expect(200);
        // No number that was told is told again of something else.
        names(&held) == ["b"] && revision(&held) > 500
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_that_stands_before_the_mirror_proves_nothing_of_it() {
    let (_cloud, site) = Cloud::with_hub(|asked| match (asked.is_watch(), asked.before) {
        (true, _) => Say::silence(),
        (false, 0) if !asked.is_barrier() => Say::list(500, &[("a", 400)]),
        (false, _) if asked.is_revision() => Say::list(500, &[]),
        (false, _) => Say::list(90, &[("b", 80)]),
    })
    .await;
    site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    site.is_live(SCOPE).await;
    let list = site.node().get(MAPS).await.unwrap();
    assert_eq!(list.header("x-yurt-served-from"), "cloud");
    assert_eq!(names(&list.expect(200)), ["b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_whose_revisions_are_no_numbers_is_forwarded_and_not_asked_in_a_loop() {
    let (cloud, site) = Cloud::with_hub(|asked| match asked.is_watch() {
        true => Say::silence(),
        false => {
            let text = list(5, &[("a", 7)]).replace(r#""7""#, r#""7/1""#);
            Say::json(
                200,
                text.replace(r#""resourceVersion":"5""#, r#""resourceVersion":"5/1""#),
            )
        }
    })
    .await;
    let node = site.node();
    for path in [FROM_MIRROR, MAPS, FROM_MIRROR] {
        let list = node.get(path).await.unwrap();
        assert_eq!(list.header("x-yurt-served-from"), "cloud", "{path}");
        assert_eq!(list.expect(200)["metadata"]["resourceVersion"], "5/1");
    }
    assert_eq!(
        cloud.count(MAPS, false),
        4,
        "the hub itself has listed once"
    );
    assert_eq!(cloud.count(MAPS, true), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_cannot_be_watched_is_listed_as_fast_as_directly_each_time() {
    let (cloud, site) = Cloud::with_hub(|asked| match asked.is_watch() {
        true => Say::json(405, NO_WATCH),
        false => Say::list(5, &[("a", 1)]),
    })
    .await;
    let node = site.node();
    for path in [MAPS, FROM_MIRROR, MAPS] {
        let began = Instant::now();
        let list = node.get(path).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(1), "{path}");
        assert_eq!(list.header("x-yurt-served-from"), "cloud", "{path}");
        assert_eq!(names(&list.expect(200)), ["a"]);
    }
    assert_eq!(cloud.count(MAPS, true), 1, "it is not tried again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_know_a_resource_yet_ends_no_mirror() {
    let (breaks, broken) = watch::channel(false);
    let (_cloud, site) = Cloud::with_hub(move |asked| match (asked.is_watch(), asked.before) {
        (true, 0) => Say::silence().breaking(broken.clone()),
        (true, 1..3) => Say::json(404, NO_RESOURCE),
        (true, _) => Say::lines([event("ADDED", "b", 9)]),
        (false, _) => Say::list(5, &[("a", 1)]),
    })
    .await;
    let node = site.node();
    node.get(FROM_MIRROR).await.unwrap().expect(200);
    site.is_live(SCOPE).await;
    let path = format!("{MAPS}?watch=1&resourceVersion=5");
    let mut watch = node.watch(&path).await.unwrap();
    breaks.send_replace(true);
    assert_eq!(events(&mut watch, 1).await, ["ADDED b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_selector_of_many_kilobytes_is_answered_and_not_mirrored() {
    let bed = Bed::start().await;
    create(&bed.cloud(), "a").await;
    let values: Vec<String> = (0..700).map(|number| format!("v{number:05}")).collect();
    let selector = format!("app%20notin%20({})", values.join("%2C"));
    let path = format!("{FROM_MIRROR}&labelSelector={selector}");
    let list = bed.site.node().get(&path).await.unwrap();
    assert_eq!(list.header("x-yurt-served-from"), "cloud");
    assert_eq!(names(&list.expect(200)), ["a"]);
    assert!(bed.site.metric("yurthub_mirrors", "").await < 0.5);
}

/// A bed on a store that the test sees, with a mirror of one ConfigMap.
async fn remembering() -> (Bed, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new());
    let of_hub = store.clone();
    let bed = Bed::with(testbed::api::ApiConfig::default(), |site| {
        site.with_store(of_hub)
    })
    .await;
    create(&bed.cloud(), "a").await;
    bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    bed.site.is_live(SCOPE).await;
    (bed, store)
}

fn contact(store: &MemoryStore) -> String {
    let record = store.get(b"i/contact").unwrap().unwrap_or_default();
    String::from_utf8_lossy(&record).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_was_cut_off_when_it_stopped_answers_at_once_although_nobody_has_told_it_again()
{
    let (mut bed, store) = remembering().await;
    bed.cut().await;
    eventually("the cut is noted", async || {
        contact(&store).ends_with(" cut")
    })
    .await;
    bed.site.crash().await;
    bed.link.cut(Cut::Silent).await;
    bed.site.start();
    let began = Instant::now();
    let node = bed.site.node();
    for path in [FROM_MIRROR, MAPS] {
        let list = node.get(path).await.unwrap();
        assert_eq!(list.header("x-yurt-served-from"), "mirror");
        assert_eq!(names(&list.expect(200)), ["a"]);
    }
    assert!(
        began.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        began.elapsed()
    );
    assert!(bed.site.metric("yurthub_cloud_reachable", "").await < 0.5);
}

/// A link on which it takes a while until a connection is there.
async fn relay(link: TcpListener, target: std::net::SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        let (mut near, _) = link.accept().await.unwrap();
        connections.spawn(async move {
            tokio::time::sleep(MOMENT).await;
            let mut far = TcpStream::connect(target).await.unwrap();
            let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_was_online_when_it_stopped_shows_nothing_that_the_cloud_has_deleted_meanwhile()
{
    let pki = Arc::new(Pki::new());
    let (deletes, deleted) = watch::channel(false);
    let cloud = Cloud::start(&pki, move |asked| {
        let is_deleted = *deleted.borrow();
        match asked.is_watch() {
            true if is_deleted => Say::lines([event("DELETED", "a", 9)]),
            true => Say::silence(),
            false if is_deleted => Say::list(9, &[]),
            false => Say::list(5, &[("a", 1)]),
        }
    })
    .await;
    let link = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut site = Site::new(pki, vec![link.local_addr().unwrap()]);
    let mut relaying = JoinSet::new();
    relaying.spawn(relay(link, cloud.addr));
    site.start();
    site.sees_the_cloud(true).await;
    let list = site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    assert_eq!(names(&list), ["a"]);
    site.is_live(SCOPE).await;
    site.crash().await;
    deletes.send_replace(true);
    site.start();
    let node = site.node();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        let list = node.get(FROM_MIRROR).await.unwrap().expect(200);
        assert!(names(&list).is_empty(), "after {:?}", began.elapsed());
    }
}
