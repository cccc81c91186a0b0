//! Mirrors: one upstream list and watch each, visible as a whole, through cuts, restarts and expiry.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use testbed::api::{ApiConfig, ApiServer};
use testbed::client::Client;

use super::cloud::{Cloud, End, Say, event, list};
use super::site::{Bed, SOON, events, eventually, names, revision};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FROM_MIRROR: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=0";
const SCOPE: &str = "v1/configmaps in default";

fn map(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": value}})
}

async fn create(client: &Client, names: &[&str]) {
    for name in names {
        client
            .post(MAPS, &map(name, "1"))
            .await
            .unwrap()
            .expect(201);
    }
}

async fn change(client: &Client, name: &str) -> u64 {
    let patch = json!({"data": {"changed": "yes"}});
    let path = format!("{MAPS}/{name}");
    revision(
        &client
            .patch(&path, "merge", &patch)
            .await
            .unwrap()
            .expect(200),
    )
}

async fn delete(client: &Client, name: &str) {
    let path = format!("{MAPS}/{name}");
    client.delete(&path, None).await.unwrap().expect(200);
}

/// Starts a bed with a live mirror of the ConfigMaps.
async fn mirrored(names: &[&str]) -> (Bed, Client, u64) {
    let bed = Bed::with(ApiConfig::default(), super::site::Site::on_disk).await;
    let cloud = bed.cloud();
    create(&cloud, names).await;
    let held = bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    bed.site.is_live(SCOPE).await;
    (bed, cloud, revision(&held))
}

fn lists_and_watches(api: &ApiServer) -> (usize, usize) {
    let asked = api.requests();
    let count = |verb: &str| {
        asked
            .iter()
            .filter(|one| {
                one.verb == verb
                    && one.resource == "configmaps"
                    && !one.query.contains("limit=1&")
                    && !one.query.ends_with("limit=1")
                    // Names and revisions alone, by which a mirror is proven.
                    && !one.query.contains("limit=1000")
            })
            .count()
    };
    (count("list"), count("watch"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_clients_of_a_scope_are_one_list_and_one_watch() {
    let bed = Bed::start().await;
    let cloud = bed.cloud();
    create(&cloud, &["a", "b"]).await;
    bed.api.forget_requests();
    let clients: Vec<Client> = (0..10).map(|_| bed.site.node()).collect();
    let lists = join_all(clients.iter().map(|client| client.get(FROM_MIRROR))).await;
    for list in &lists {
        assert_eq!(names(&list.as_ref().unwrap().expect(200)), ["a", "b"]);
    }
    let path = format!("{MAPS}?watch=1");
    let mut watches = join_all(clients.iter().map(|client| client.watch(&path))).await;
    create(&cloud, &["c"]).await;
    for watch in &mut watches {
        let seen = events(watch.as_mut().unwrap(), 3).await;
        assert_eq!(seen, ["ADDED a", "ADDED b", "ADDED c"]);
    }
    assert_eq!(lists_and_watches(&bed.api), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_list_that_breaks_in_its_second_page_shows_nothing() {
    let pages = |asked: &super::cloud::Asked| {
        if asked.is_watch() {
            return Say::silence();
        }
        let page = list(9, &[("a", 1)]).replacen(r#""9""#, r#""9","continue":"more""#, 1);
        match asked.query.contains("continue") {
            false => Say::json(200, page),
            true => Say::json(200, page[..page.len() - 20].to_owned()).ending(End::Broken),
        }
    };
    let (cloud, site) = Cloud::with_hub(move |asked| pages(asked)).await;
    let node = site.node();
    let mut listing = std::pin::pin!(node.get(FROM_MIRROR));
    tokio::select! {
        // It is answered by the mirror when that is whole, and it never is.
        answered = &mut listing => panic!("{}", answered.unwrap().text()),
        () = eventually("the list was tried again and again", async || cloud.count(MAPS, false) >= 6) => {}
    }
    assert!(site.metric("yurthub_mirror_objects", SCOPE).await <= 1.0);
    assert!(site.metric("yurthub_mirror_live", SCOPE).await < 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relist_that_breaks_leaves_the_old_state() {
    let (breaks, broken) = tokio::sync::watch::channel(false);
    let (cloud, site) = Cloud::with_hub(move |asked| match (asked.is_watch(), asked.before) {
        (true, 0) => Say::silence().then(broken.clone(), "garbage\n"),
        (true, _) => Say::silence(),
        (false, 0) => Say::list(5, &[("a", 1), ("b", 2)]),
        (false, 1..4) => {
            let page = list(9, &[("c", 8)]).replacen(r#""9""#, r#""9","continue":"more""#, 1);
            if asked.query.contains("continue") {
                Say::json(200, r#"{"kind":"ConfigMapList","items":[{"met"#).ending(End::Broken)
            } else {
                Say::json(200, page)
            }
        }
        (false, _) => Say::list(9, &[("c", 8)]),
    })
    .await;
    let node = site.node();
    let first = node.get(FROM_MIRROR).await.unwrap().expect(200);
    assert_eq!(names(&first), ["a", "b"]);
    let mut watch = node
        .watch(&format!("{MAPS}?watch=1&resourceVersion=5"))
        .await
        .unwrap();
    breaks.send_replace(true);
    assert_eq!(events(&mut watch, 3).await.len(), 3, "a and b go, c comes");
    assert!(cloud.count(MAPS, false) >= 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_resume_is_resolved_by_the_difference_once_and_in_order() {
    let (bed, cloud, then) = mirrored(&["a", "b", "c"]).await;
    let node = bed.site.node();
    let path = format!("{MAPS}?watch=1&resourceVersion={then}");
    let mut watch = node.watch(&path).await.unwrap();
    bed.cut().await;
    let changed = change(&cloud, "a").await;
    delete(&cloud, "b").await;
    create(&cloud, &["d"]).await;
    bed.api.compact();
    bed.mend().await;
    let mut seen = Vec::new();
    let mut reached = then;
    for _ in 0..3 {
        let event = watch.next(SOON).await.unwrap().unwrap();
        let at = revision(&event.object);
        assert!(at > reached, "{at} comes after {reached}");
        reached = at;
        if event.kind == "DELETED" {
            assert_eq!(event.object["data"]["k"], "1", "the last state");
        }
        if event.kind == "MODIFIED" {
            assert_eq!(at, changed);
        }
        seen.push(format!(
            "{} {}",
            event.kind, event.object["metadata"]["name"]
        ));
    }
    seen.sort();
    assert_eq!(seen, [r#"ADDED "d""#, r#"DELETED "b""#, r#"MODIFIED "a""#]);
    create(&cloud, &["e"]).await;
    assert_eq!(
        events(&mut watch, 1).await,
        ["ADDED e"],
        "nothing comes twice"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_restarts_while_cut_off_answers_at_once_and_lets_clients_resume() {
    let (mut bed, cloud, then) = mirrored(&["a", "b", "c"]).await;
    delete(&cloud, "b").await;
    let last = change(&cloud, "c").await;
    let node = bed.site.node();
    let mut watch = node
        .watch(&format!("{MAPS}?watch=1&resourceVersion={then}"))
        .await
        .unwrap();
    assert_eq!(events(&mut watch, 2).await, ["DELETED b", "MODIFIED c"]);
    drop((watch, node));
    bed.cut().await;
    bed.restart().await;
    let node = bed.site.node();
    let list = node.get(MAPS).await.unwrap();
    assert!(list.header("warning").contains("not reachable"), "{list:?}");
    let list = list.expect(200);
    assert_eq!(names(&list), ["a", "c"]);
    assert!(revision(&list) >= last);
    let mut watch = node
        .watch(&format!("{MAPS}?watch=1&resourceVersion={then}"))
        .await
        .unwrap();
    assert_eq!(events(&mut watch, 2).await, ["DELETED b", "MODIFIED c"]);
    let before = then - 1;
    let mut old = node
        .watch(&format!("{MAPS}?watch=1&resourceVersion={before}"))
        .await
        .unwrap();
    let error = old.next(SOON).await.unwrap().unwrap();
    assert_eq!(
        (error.kind.as_str(), &error.object["code"]),
        ("ERROR", &json!(410))
    );
    // Back in the cloud the same watch goes on.
    create(&cloud, &["d"]).await;
    bed.mend().await;
    assert_eq!(events(&mut watch, 1).await, ["ADDED d"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_was_read_by_name_and_then_deleted_is_gone_while_cut_off() {
    let bed = Bed::start().await;
    let cloud = bed.cloud();
    create(&cloud, &["a", "b"]).await;
    let node = bed.site.node();
    node.get(&format!("{MAPS}/a")).await.unwrap().expect(200);
    eventually("it is remembered", async || {
        bed.site.metric("yurthub_store_records", "").await > 0.5
    })
    .await;
    let held = node.get(FROM_MIRROR).await.unwrap().expect(200);
    bed.site.is_live(SCOPE).await;
    let mut watch = node
        .watch(&format!(
            "{MAPS}?watch=1&resourceVersion={}",
            revision(&held)
        ))
        .await
        .unwrap();
    delete(&cloud, "a").await;
    assert_eq!(events(&mut watch, 1).await, ["DELETED a"]);
    bed.cut().await;
    node.get(&format!("{MAPS}/a"))
        .await
        .unwrap()
        .expect_status(404, "NotFound");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_was_read_by_name_and_is_in_no_later_list_is_gone_while_cut_off() {
    let bed = Bed::start().await;
    let cloud = bed.cloud();
    create(&cloud, &["a", "b"]).await;
    let node = bed.site.node();
    node.get(&format!("{MAPS}/a")).await.unwrap().expect(200);
    eventually("it is remembered", async || {
        bed.site.metric("yurthub_store_records", "").await > 0.5
    })
    .await;
    delete(&cloud, "a").await;
    node.get(FROM_MIRROR).await.unwrap().expect(200);
    bed.cut().await;
    node.get(&format!("{MAPS}/a"))
        .await
        .unwrap()
        .expect_status(404, "NotFound");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_expire_are_followed_by_a_list_as_a_watch() {
    let (cloud, site) = Cloud::with_hub(|asked| {
        if asked.query.contains("sendInitialEvents") {
            let end = event("BOOKMARK", "", 9).replacen(
                r#""name":"","#,
                r#""annotations":{"k8s.io/initial-events-end":"true"},"#,
                1,
            );
            return Say::lines([event("ADDED", "a", 3), event("ADDED", "b", 4), end]);
        }
        match asked.is_watch() {
            true => Say::silence(),
            false if asked.query.contains("continue") => Say::json(
                410,
                r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410}"#,
            ),
            false => Say::json(
                200,
                list(9, &[("a", 3)]).replacen(r#""9""#, r#""9","continue":"more""#, 1),
            ),
        }
    })
    .await;
    let list = site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    assert_eq!((names(&list), revision(&list)), (vec!["a", "b"], 9));
    assert!(cloud.count(MAPS, true) >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_know_lists_as_watches_is_listed_in_pages_again() {
    let (_cloud, site) = Cloud::with_hub(|asked| {
        if asked.query.contains("sendInitialEvents") {
            return Say::json(
                400,
                r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"BadRequest","code":400}"#,
            );
        }
        match (asked.is_watch(), asked.query.contains("continue"), asked.before) {
            (true, ..) => Say::silence(),
            (false, true, 0..4) => Say::json(
                410,
                r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410}"#,
            ),
            (false, true, _) => Say::list(9, &[("b", 4)]),
            (false, false, _) => Say::json(
                200,
                list(9, &[("a", 3)]).replacen(r#""9""#, r#""9","continue":"more""#, 1),
            ),
        }
    })
    .await;
    let list = site.node().get(FROM_MIRROR).await.unwrap();
    assert_eq!(list.header("x-yurt-served-from"), "mirror", "{list:?}");
    assert_eq!(names(&list.expect(200)), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_mirror_goes_while_the_cloud_is_there_and_never_while_it_is_not() {
    let bed = Bed::with(ApiConfig::default(), |mut site| {
        site.adjust(|config| config.mirror_idle = Duration::from_millis(300));
        site
    })
    .await;
    create(&bed.cloud(), &["a"]).await;
    bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    eventually("the idle mirror is gone", async || {
        bed.site.metric("yurthub_mirrors", "").await < 0.5
    })
    .await;
    bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    bed.cut().await;
    // Several sweeps' time: the idle time is what the test measures.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let list = bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    assert_eq!(names(&list), ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_scopes_hold_an_object_once_and_both_are_right() {
    let (bed, cloud, _) = mirrored(&["a", "b"]).await;
    let mut big = map("big", "1");
    big["data"]["k"] = "x".repeat(200_000).into();
    cloud.post(MAPS, &big).await.unwrap().expect(201);
    let bytes = async || bed.site.metric("yurthub_store_live_bytes", "").await;
    eventually("the big one is held", async || bytes().await > 200_000.0).await;
    let node = bed.site.node();
    let all = "/api/v1/configmaps?resourceVersion=0";
    let held = node.get(all).await.unwrap().expect(200);
    assert_eq!(names(&held), ["a", "b", "big"]);
    bed.site.is_live("v1/configmaps").await;
    assert!(bytes().await < 250_000.0, "the big one is there once");
    let mut both = Vec::new();
    for path in [MAPS, "/api/v1/configmaps"] {
        both.push(
            node.watch(&format!(
                "{path}?watch=1&resourceVersion={}",
                revision(&held)
            ))
            .await
            .unwrap(),
        );
    }
    change(&cloud, "a").await;
    delete(&cloud, "b").await;
    for watch in &mut both {
        assert_eq!(events(watch, 2).await, ["MODIFIED a", "DELETED b"]);
    }
    bed.cut().await;
    for path in [MAPS, "/api/v1/configmaps"] {
        let held = node.get(path).await.unwrap().expect(200);
        assert_eq!(names(&held), ["a", "big"]);
    }
}
