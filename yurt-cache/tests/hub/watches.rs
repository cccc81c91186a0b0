//! Watches: each client at its own place in a mirror's history.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use testbed::api::ApiConfig;
use testbed::client::{Client, Event, Watch};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::site::{Bed, MOMENT, SOON, events, eventually, names, revision};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FROM_MIRROR: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=0";
const SCOPE: &str = "v1/configmaps in default";

fn map(name: &str, app: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": app}}, "data": {"k": "v"}})
}

async fn create(client: &Client, name: &str, app: &str) -> u64 {
    revision(
        &client
            .post(MAPS, &map(name, app))
            .await
            .unwrap()
            .expect(201),
    )
}

async fn label(client: &Client, name: &str, app: &str) -> u64 {
    let patch = json!({"metadata": {"labels": {"app": app}}});
    let path = format!("{MAPS}/{name}");
    revision(
        &client
            .patch(&path, "merge", &patch)
            .await
            .unwrap()
            .expect(200),
    )
}

async fn next(watch: &mut Watch) -> Event {
    watch.next(SOON).await.unwrap().expect("the watch goes on")
}

async fn mirrored(bed: &Bed) -> (Client, u64) {
    let node = bed.site.node();
    let held = node.get(FROM_MIRROR).await.unwrap().expect(200);
    bed.site.is_live(SCOPE).await;
    (node, revision(&held))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_enters_a_narrower_selection_is_added_and_who_leaves_it_is_deleted() {
    let bed = Bed::start().await;
    let cloud = bed.cloud();
    create(&cloud, "a", "x").await;
    let (node, then) = mirrored(&bed).await;
    let from = format!("{MAPS}?watch=1&labelSelector=app%3Dx&resourceVersion={then}");
    // The same as the cloud itself says, event by event.
    let mut both = [
        node.watch(&from).await.unwrap(),
        cloud.watch(&from).await.unwrap(),
    ];
    assert_eq!(both[0].headers["x-yurt-served-from"], "mirror");
    create(&cloud, "b", "y").await;
    let entered = label(&cloud, "b", "x").await;
    let left = label(&cloud, "a", "z").await;
    label(&cloud, "a", "w").await;
    create(&cloud, "c", "x").await;
    cloud
        .delete(&format!("{MAPS}/c"), None)
        .await
        .unwrap()
        .expect(200);
    cloud
        .delete(&format!("{MAPS}/a"), None)
        .await
        .unwrap()
        .expect(200);
    let mut heard: Vec<Vec<Value>> = Vec::new();
    for watch in &mut both {
        let mut one = Vec::new();
        for _ in 0..4 {
            let event = next(watch).await;
            one.push(json!({"type": event.kind, "object": event.object}));
        }
        assert!(watch.is_silent(MOMENT).await.unwrap());
        heard.push(one);
    }
    assert_eq!(heard[0], heard[1]);
    let said = |at: usize| {
        (
            heard[0][at]["type"].as_str().unwrap(),
            revision(&heard[0][at]["object"]),
        )
    };
    assert_eq!(said(0), ("ADDED", entered));
    assert_eq!(said(1), ("DELETED", left));
    assert_eq!(
        heard[0][1]["object"]["metadata"]["labels"]["app"], "x",
        "the state that was selected"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_watch_gets_a_bookmark_before_its_end() {
    let bed = Bed::start().await;
    create(&bed.cloud(), "a", "x").await;
    let (node, then) = mirrored(&bed).await;
    for (query, is_wanted) in [("&allowWatchBookmarks=true", true), ("", false)] {
        let began = Instant::now();
        let path = format!("{MAPS}?watch=1&timeoutSeconds=2&resourceVersion={then}{query}");
        let mut watch = node.watch(&path).await.unwrap();
        let mut kinds = Vec::new();
        while let Some(event) = watch.next(SOON).await.unwrap() {
            assert!(revision(&event.object) >= then);
            kinds.push(event.kind);
        }
        assert!(
            began.elapsed() > Duration::from_millis(1_800),
            "{:?}",
            began.elapsed()
        );
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(
            kinds.iter().any(|kind| kind == "BOOKMARK"),
            is_wanted,
            "{kinds:?}"
        );
        assert!(kinds.iter().all(|kind| kind == "BOOKMARK"), "{kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn initial_events_end_with_their_bookmark_online_and_cut_off() {
    let bed = Bed::start().await;
    let cloud = bed.cloud();
    create(&cloud, "a", "x").await;
    create(&cloud, "b", "x").await;
    let (node, _) = mirrored(&bed).await;
    let path = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=app%3Dx"
    );
    for is_cut in [false, true] {
        if is_cut {
            bed.cut().await;
        }
        let mut watch = node.watch(&path).await.unwrap();
        assert_eq!(watch.headers["x-yurt-served-from"], "mirror");
        assert_eq!(events(&mut watch, 2).await, ["ADDED a", "ADDED b"]);
        let end = next(&mut watch).await;
        assert_eq!(end.kind, "BOOKMARK");
        assert_eq!(
            end.object["metadata"]["annotations"]["k8s.io/initial-events-end"],
            "true"
        );
        assert_eq!(
            (&end.object["kind"], &end.object["apiVersion"]),
            (&json!("ConfigMap"), &json!("v1"))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_of_metadata_has_nothing_else() {
    let bed = Bed::start().await;
    let cloud = bed.cloud();
    create(&cloud, "a", "x").await;
    let (node, then) = mirrored(&bed).await;
    let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let path = format!("{MAPS}?watch=1&resourceVersion={then}");
    let mut watches = [
        node.watch_as(&path, accept).await.unwrap(),
        cloud.watch_as(&path, accept).await.unwrap(),
    ];
    label(&cloud, "a", "y").await;
    cloud
        .delete(&format!("{MAPS}/a"), None)
        .await
        .unwrap()
        .expect(200);
    let mut heard = Vec::new();
    for watch in &mut watches {
        let (changed, deleted) = (next(watch).await, next(watch).await);
        assert_eq!(
            (changed.kind.as_str(), deleted.kind.as_str()),
            ("MODIFIED", "DELETED")
        );
        assert!(changed.object.get("data").is_none(), "{}", changed.object);
        heard.push((changed.object, deleted.object));
    }
    assert_eq!(heard[0], heard[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_delays_nobody_and_is_told_when_it_reads_again() {
    let bed = Bed::with(ApiConfig::default(), |mut site| {
        site.adjust(|config| {
            config.window_events = 64;
            config.window_bytes = 1 << 20;
        });
        site
    })
    .await;
    let cloud = bed.cloud();
    create(&cloud, "a", "x").await;
    let (quick, then) = mirrored(&bed).await;
    let path = format!("{MAPS}?watch=1&resourceVersion={then}");
    let slow = bed.site.node();
    let mut unread = slow.watch(&path).await.unwrap();
    // A dead one: its request is sent, and then nobody is there.
    let mut dead = bed.site.raw_node().await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: hub\r\n\r\n");
    dead.write_all(request.as_bytes()).await.unwrap();
    eventually("all three watch", async || {
        bed.site.metric("yurthub_mirror_watchers", SCOPE).await > 1.5
    })
    .await;
    let mut watch = quick.watch(&path).await.unwrap();
    let value = "x".repeat(100_000);
    for number in 0..400 {
        let patch = json!({"data": {"k": value, "n": number.to_string()}});
        let changed = cloud
            .patch(&format!("{MAPS}/a"), "merge", &patch)
            .await
            .unwrap();
        let wanted = revision(&changed.expect(200));
        let began = Instant::now();
        assert_eq!(revision(&next(&mut watch).await.object), wanted);
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "event {number} waited {:?}",
            began.elapsed()
        );
    }
    let mut count = 0;
    let last = loop {
        let event = next(&mut unread).await;
        if event.kind == "ERROR" {
            break event.object;
        }
        count += 1;
        assert!(count < 400, "it has missed nothing: the case is too small");
    };
    assert_eq!(
        (&last["code"], &last["reason"]),
        (&json!(410), &json!("Expired")),
        "{last}"
    );
    assert!(
        unread.next(SOON).await.unwrap().is_none(),
        "and then it ends"
    );
    drop(dead);
    eventually("only the quick one is left", async || {
        (bed.site.metric("yurthub_mirror_watchers", SCOPE).await - 1.0).abs() < 0.5
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_watchers_hear_everything_once_and_in_order_through_a_cut() {
    let bed = Bed::start().await;
    let cloud = bed.cloud();
    create(&cloud, "a", "x").await;
    let (_, then) = mirrored(&bed).await;
    let clients: Vec<Client> = (0..10).map(|_| bed.site.node()).collect();
    let path = format!("{MAPS}?watch=1&resourceVersion={then}");
    let opened = (0..100).map(|number| clients[number % 10].watch(&path));
    let mut watches: Vec<Watch> = join_all(opened)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let mut wanted = Vec::new();
    for number in 0..40 {
        if number == 20 {
            bed.cut().await;
        }
        wanted.push(create(&cloud, &format!("n{number}"), "x").await);
    }
    bed.mend().await;
    let heard = join_all(watches.iter_mut().map(async |watch| {
        let mut heard = Vec::new();
        while heard.len() < 40 {
            let event = next(watch).await;
            assert_eq!(event.kind, "ADDED");
            heard.push(revision(&event.object));
        }
        heard
    }))
    .await;
    assert!(heard.iter().all(|one| *one == wanted), "{heard:?}");
    let metric = bed.site.metric("yurthub_mirror_watchers", SCOPE).await;
    assert!((metric - 100.0).abs() < 0.5, "{metric}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_without_a_revision_shows_what_was_written_before_it() {
    let bed = Bed::start().await;
    let cloud = bed.cloud();
    mirrored(&bed).await;
    let node = bed.site.node();
    for number in 0..20 {
        let name = format!("n{number}");
        create(&cloud, &name, "x").await;
        let path = format!("{MAPS}?watch=1&fieldSelector=metadata.name%3D{name}");
        let mut watch = node.watch(&path).await.unwrap();
        let began = Instant::now();
        assert_eq!(events(&mut watch, 1).await, [format!("ADDED {name}")]);
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_from_a_revision_to_come_is_sent_to_list_again_and_listing_it_is_refused() {
    let bed = Bed::start().await;
    let cloud = bed.cloud();
    let now = create(&cloud, "a", "x").await;
    let (node, _) = mirrored(&bed).await;
    bed.cut().await;
    let path = format!("{MAPS}?watch=1&resourceVersion={}", now + 1_000);
    let mut watch = node.watch(&path).await.unwrap();
    assert_eq!(watch.code, 200);
    let error = watch.next(SOON).await.unwrap().expect("an answer");
    assert_eq!(
        error.kind, "ERROR",
        "silence would leave it with what it has"
    );
    assert_eq!(
        (&error.object["code"], &error.object["reason"]),
        (&json!(410), &json!("Expired"))
    );
    let list = node
        .get(&format!("{MAPS}?resourceVersion={}", now + 1_000))
        .await
        .unwrap();
    list.expect_status(504, "Timeout");
    let exact = format!(
        "{MAPS}?resourceVersion={}&resourceVersionMatch=Exact",
        now - 1
    );
    node.get(&exact)
        .await
        .unwrap()
        .expect_status(410, "Expired");
    let held = node.get(MAPS).await.unwrap().expect(200);
    let exact = format!(
        "{MAPS}?resourceVersion={}&resourceVersionMatch=Exact",
        revision(&held)
    );
    assert_eq!(names(&node.get(&exact).await.unwrap().expect(200)), ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_initial_events_is_marked_only_for_who_asked_for_it() {
    let bed = Bed::start().await;
    create(&bed.cloud(), "a", "x").await;
    let (node, _) = mirrored(&bed).await;
    for query in ["&resourceVersion=0", ""] {
        let path = format!("{MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=1{query}");
        let mut watch = node.watch(&path).await.unwrap();
        while let Some(event) = watch.next(SOON).await.unwrap() {
            let marks = &event.object["metadata"]["annotations"];
            assert!(marks.get("k8s.io/initial-events-end").is_none(), "{query}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_wants_to_last_for_ever_is_opened_as_any_other() {
    let bed = Bed::start().await;
    let (node, then) = mirrored(&bed).await;
    for seconds in [i64::MAX, i64::MAX / 1_000, 10_000_000_000, -1] {
        let path = format!("{MAPS}?watch=1&resourceVersion={then}&timeoutSeconds={seconds}");
        let mut watch = node.watch(&path).await.unwrap();
        let name = format!("for-{}", seconds.unsigned_abs());
        create(&bed.cloud(), &name, "x").await;
        assert!(
            events(&mut watch, 1).await[0].starts_with("ADDED for-"),
            "{seconds}"
        );
    }
}

const NAMED: &str = "/api/v1/watch/namespaces/default/configmaps/a";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_of_one_object_in_the_old_style_is_a_watch_of_its_name_online_and_cut_off() {
    let bed = Bed::start().await;
    create(&bed.cloud(), "a", "x").await;
    create(&bed.cloud(), "b", "x").await;
    let (node, _) = mirrored(&bed).await;
    let mut watch = node.watch(NAMED).await.unwrap();
    assert_eq!(events(&mut watch, 1).await, ["ADDED a"]);
    label(&bed.cloud(), "b", "y").await;
    label(&bed.cloud(), "a", "y").await;
    assert_eq!(events(&mut watch, 1).await, ["MODIFIED a"]);
    bed.cut().await;
    let mut watch = node.watch(NAMED).await.unwrap();
    assert_eq!(events(&mut watch, 1).await, ["ADDED a"]);
    let other = format!("{NAMED}?fieldSelector=metadata.name%3Db");
    assert_eq!(node.get(&other).await.unwrap().code, 400);
    let status = node.get(&format!("{NAMED}/status")).await.unwrap();
    assert_eq!(status.code, 503, "{}", status.text());
}
