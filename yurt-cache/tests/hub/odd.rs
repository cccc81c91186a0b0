//! One odd object, deep or large or escaped, costs itself at most: it is served as the cloud serves it, online and
//! cut off, and so are its neighbours.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use testbed::client::{Answer, Client, Watch};
use tokio::sync::watch;

use super::cloud::{Asked, Cloud, Say, event, list};
use super::site::{SOON, Site, events, names};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAPS_SCOPE: &str = "v1/configmaps in default";
const DEEPS: &str = "/apis/try.test/v1/namespaces/default/deeps";
const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/deeps.try.test";
const DEEPS_SCOPE: &str = "try.test/v1/deeps in default";

/// A ConfigMap's value of 900,000 `<`, as Go's encoder writes them: 5.4 MB.
fn escaped() -> String {
    r"\u003c".repeat(900_000)
}

/// Gives the named ConfigMap in a list or an event that value.
fn enlarged(text: String, revision: u64) -> String {
    let plain = format!(r#""k":"{revision}""#);
    assert!(text.contains(&plain));
    text.replace(&plain, &format!(r#""k":"{}""#, escaped()))
}

/// Lists from the mirror: what could not be mirrored was waited for, and forwarded after longer than a client waits.
async fn mirrored_list(client: &Client, path: &str) -> Answer {
    let list = client.get(&format!("{path}?resourceVersion=0")).await;
    let list = list.unwrap();
    assert_eq!(list.code, 200, "{}", list.text());
    assert_eq!(list.header("x-yurt-served-from"), "mirror");
    list
}

/// Takes the cloud away, and lists what is left.
async fn list_offline(cloud: Cloud, site: &Site, path: &str) -> Answer {
    drop(cloud);
    site.sees_the_cloud(false).await;
    mirrored_list(&site.node(), path).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_escaped_object_is_listed_with_its_kind_at_once_and_offline_too() {
    let (cloud, site) = Cloud::with_hub(|asked| match (asked.path.as_str(), asked.is_watch()) {
        (MAPS, true) => Say::silence(),
        (MAPS, false) => Say::json(200, enlarged(list(5, &[("big", 3), ("small", 4)]), 3)),
        _ => Say::json(404, "{}"),
    })
    .await;
    let online = mirrored_list(&site.node(), MAPS).await;
    assert_eq!(names(&online.json()), ["big", "small"]);
    assert!(
        online.text().contains(&escaped()),
        "as the server escaped it"
    );
    site.is_live(MAPS_SCOPE).await;
    let offline = list_offline(cloud, &site, MAPS).await;
    assert_eq!(offline.text(), online.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_object_that_comes_later_reaches_every_watch_and_so_does_what_follows() {
    let (comes, when) = watch::channel(false);
    let (cloud, site) =
        Cloud::with_hub(
            move |asked| match (asked.path.as_str(), asked.is_watch(), asked.before) {
                (MAPS, true, 0) => {
                    let big = enlarged(event("ADDED", "big", 6), 6);
                    Say::silence().then(when.clone(), big + &event("ADDED", "after", 7))
                }
                (MAPS, true, _) => Say::silence(),
                (MAPS, false, _) if asked.is_barrier() => {
                    Say::list(if *when.borrow() { 7 } else { 5 }, &[])
                }
                (MAPS, false, 0) => Say::list(5, &[("small", 4)]),
                (MAPS, false, _) => Say::list(7, &[("listed again", 7)]),
                _ => Say::json(404, "{}"),
            },
        )
        .await;
    mirrored_list(&site.node(), MAPS).await;
    let uri = format!("{MAPS}?watch=1&resourceVersion=5");
    let mut watches: Vec<Watch> = Vec::new();
    let clients = [site.node(), site.bearer("someone")];
    for client in &clients {
        watches.push(client.watch(&uri).await.unwrap());
    }
    comes.send_replace(true);
    for watch in &mut watches {
        assert_eq!(events(watch, 2).await, ["ADDED big", "ADDED after"]);
    }
    let offline = list_offline(cloud, &site, MAPS).await;
    assert_eq!(names(&offline.json()), ["after", "big", "small"]);
}

/// An object of a custom resource that is `depth` levels deep.
fn deep(name: &str, revision: u64, depth: usize) -> String {
    let (open, close) = (r#"{"a":"#.repeat(depth - 2), "}".repeat(depth - 2));
    format!(
        r#"{{"apiVersion":"try.test/v1","kind":"Deep","metadata":{{"name":"{name}","namespace":"default","resourceVersion":"{revision}"}},"spec":{open}{{}}{close}}}"#
    )
}

fn say_deep(asked: &Asked, when: &watch::Receiver<bool>, depth: usize) -> Say {
    match (asked.path.as_str(), asked.is_watch()) {
        (DEFINITION, _) => Say::json(
            200,
            r#"{"metadata":{"name":"deeps.try.test","resourceVersion":"2"},"spec":{"versions":[{"name":"v1"}]}}"#,
        ),
        (DEEPS, true) => {
            let line = |object: String| format!("{{\"type\":\"ADDED\",\"object\":{object}}}\n");
            let lines = line(deep("later", 6, depth)) + &line(deep("next", 7, 2));
            Say::silence().then(when.clone(), lines)
        }
        (DEEPS, false) => Say::json(
            200,
            format!(
                r#"{{"apiVersion":"try.test/v1","items":[{},{}],"kind":"DeepList","metadata":{{"resourceVersion":"5"}}}}"#,
                deep("deep", 3, depth),
                deep("flat", 4, 2)
            ),
        ),
        _ => Say::json(404, "{}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deep_object_is_listed_and_watched_with_its_kind_and_offline_too() {
    for depth in [140, 9_999] {
        let (comes, when) = watch::channel(false);
        let (cloud, site) = Cloud::with_hub(move |asked| say_deep(asked, &when, depth)).await;
        let list = mirrored_list(&site.node(), DEEPS).await;
        for object in [deep("deep", 3, depth), deep("flat", 4, 2)] {
            assert!(list.text().contains(&object), "{depth}");
        }
        site.is_live(DEEPS_SCOPE).await;
        let uri = format!("{DEEPS}?watch=1&resourceVersion=5");
        let node = site.node();
        let mut watch = node.watch(&uri).await.unwrap();
        comes.send_replace(true);
        for object in [deep("later", 6, depth), deep("next", 7, 2)] {
            let line = watch.next_line(SOON).await.unwrap().unwrap();
            let expected = format!(r#"{{"type":"ADDED","object":{object}}}"#);
            assert!(line == expected.as_bytes(), "{depth}");
        }
        let offline = list_offline(cloud, &site, DEEPS).await;
        assert!(offline.text().contains(&deep("later", 6, depth)), "{depth}");
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let table = site.node().get_as(DEEPS, accept).await.unwrap().json();
        assert_eq!(table["rows"].as_array().map(Vec::len), Some(4), "{depth}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_with_an_object_beyond_the_limit_is_forwarded_at_once_and_mirrored_when_that_is_gone()
 {
    let (shrinks, has_shrunk) = watch::channel(false);
    let (cloud, site) = Cloud::with_adjusted_hub(
        |config| config.object_limit = 64 << 10,
        move |asked| match (asked.path.as_str(), asked.is_watch(), *has_shrunk.borrow()) {
            (MAPS, true, _) => Say::silence(),
            (MAPS, false, false) => {
                Say::json(200, enlarged(list(5, &[("big", 3), ("small", 4)]), 3))
            }
            (MAPS, false, true) => Say::list(6, &[("small", 4)]),
            _ => Say::json(404, "{}"),
        },
    )
    .await;
    let node = site.node();
    let answer = node
        .get(&format!("{MAPS}?resourceVersion=0"))
        .await
        .unwrap();
    assert_eq!(answer.header("x-yurt-served-from"), "cloud");
    assert_eq!(names(&answer.json()), ["big", "small"]);
    shrinks.send_replace(true);
    site.is_live(MAPS_SCOPE).await;
    mirrored_list(&node, MAPS).await;
    let offline = list_offline(cloud, &site, MAPS).await;
    assert_eq!(names(&offline.json()), ["small"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_a_balancer_compresses_is_followed() {
    let (_cloud, site) = Cloud::with_hub(|asked| match (asked.is_watch(), asked.before) {
        (true, 0) => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder
                .write_all(event("ADDED", "b", 6).as_bytes())
                .unwrap();
            // A balancer flushes where the server does.
            encoder.flush().unwrap();
            Say::lines([encoder.get_ref().clone()]).with("content-encoding", "gzip")
        }
        (true, _) => Say::silence(),
        (false, 0) => Say::list(5, &[("a", 4)]),
        (false, _) => Say::list(9, &[("listed again", 9)]),
    })
    .await;
    mirrored_list(&site.node(), MAPS).await;
    let uri = format!("{MAPS}?watch=1&resourceVersion=5");
    let node = site.node();
    let mut watch = node.watch(&uri).await.unwrap();
    assert_eq!(events(&mut watch, 1).await, ["ADDED b"]);
}
