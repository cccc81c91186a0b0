//! A cloud that lies: counted, listed again, never a panic, never a stall, and no other mirror suffers.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::cloud::{Asked, Cloud, End, Say, event, list};
use super::site::{SOON, Site, events, eventually, names};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SCOPE: &str = "v1/configmaps in default";
const OTHER: &str = "/api/v1/namespaces/default/services";

/// Answers for the mirror that nothing is wrong with.
fn other(asked: &Asked) -> Option<Say> {
    (asked.path == OTHER).then(|| match asked.is_watch() {
        true => Say::silence(),
        false => Say::json(200, list(5, &[("s", 4)]).replace("ConfigMap", "Service")),
    })
}

async fn get(site: &Site, path: &str) -> serde_json::Value {
    let path = format!("{path}?resourceVersion=0");
    site.node().get(&path).await.unwrap().expect(200)
}

/// Runs a cloud whose first watch says `lie`, and which is honest afterwards.
async fn survives_an_event(what: &str, lie: impl Into<Bytes>) {
    let lie: Bytes = lie.into();
    let (lies, told) = tokio::sync::watch::channel(false);
    let (cloud, site) = Cloud::with_hub(move |asked| {
        other(asked).unwrap_or_else(|| match (asked.is_watch(), asked.before) {
            (true, 0) => Say::silence().then(told.clone(), lie.clone()),
            (true, _) => Say::silence(),
            (false, 0) => Say::list(5, &[("a", 1)]),
            (false, _) => Say::list(9, &[("a", 1), ("b", 8)]),
        })
    })
    .await;
    assert_eq!(names(&get(&site, MAPS).await), ["a"], "{what}");
    get(&site, OTHER).await;
    let node = site.node();
    let mut watch = node
        .watch(&format!("{MAPS}?watch=1&resourceVersion=5"))
        .await
        .unwrap();
    lies.send_replace(true);
    assert_eq!(events(&mut watch, 1).await, ["ADDED b"], "{what}");
    let malformed = site.metric("yurthub_mirror_malformed_total", SCOPE).await;
    assert!(malformed > 0.5, "{what} is counted: {malformed}");
    assert_eq!(cloud.count(MAPS, false), 2, "{what}: listed again, once");
    assert_eq!(names(&get(&site, OTHER).await), ["s"], "{what}");
    assert_eq!(
        (cloud.count(OTHER, false), cloud.count(OTHER, true)),
        (1, 1),
        "{what}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_event_of_the_scope_is_counted_and_listed_again() {
    let good = event("ADDED", "x", 7);
    let deep = format!(
        "{{\"type\":\"ADDED\",\"object\":{}{}}}\n",
        "{\"a\":".repeat(10_001),
        "}".repeat(10_001)
    );
    let secret = good.replace("ConfigMap", "Secret");
    let huge = good.replace("\"k\":\"7\"", &format!("\"k\":{:?}", "x".repeat(12 << 20)));
    assert!(huge.len() > 12 << 20);
    let mut latin = good.clone().into_bytes();
    let place = latin.len() - 6;
    latin[place] = 0xff;
    let garbage: Vec<(&str, Bytes)> = vec![
        ("garbage", "garbage\n".into()),
        ("half an event", good[..good.len() / 2].to_owned().into()),
        ("deep nesting", deep.into()),
        ("another kind", secret.into()),
        ("an object over the limit", huge.into()),
        ("a line without end", "x".repeat(8 << 20).into()),
        ("no UTF-8", latin.into()),
        ("a step back", event("ADDED", "x", 3).into()),
        ("no name", good.replace("\"name\":\"x\",", "").into()),
        (
            "another namespace",
            good.replace("\"default\"", "\"other\"").into(),
        ),
        (
            "a name of two lines",
            good.replace("\"x\"", "\"x\\ny\"").into(),
        ),
        ("no revision", good.replace("\"7\"", "\"seven\"").into()),
        (
            "a revision at the end of all numbers",
            event("ADDED", "x", u64::MAX).into(),
        ),
        ("an unknown type", good.replace("ADDED", "RENAMED").into()),
    ];
    for (what, lie) in garbage {
        survives_an_event(what, lie).await;
    }
}

fn gzipped(text: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap().into()
}

/// Runs a cloud whose first lists are `lie`, and which is honest afterwards.
async fn survives_a_list(what: &str, lie: impl Fn() -> Say + Send + Sync + 'static) {
    let (cloud, site) = Cloud::with_hub(move |asked| {
        other(asked).unwrap_or_else(|| match (asked.is_watch(), asked.before) {
            (true, _) => Say::silence(),
            (false, 0..2) => lie(),
            (false, _) => Say::list(9, &[("a", 1), ("b", 8)]),
        })
    })
    .await;
    get(&site, OTHER).await;
    let listed = tokio::time::timeout(SOON, get(&site, MAPS));
    assert_eq!(names(&listed.await.expect(what)), ["a", "b"], "{what}");
    let malformed = site.metric("yurthub_mirror_malformed_total", SCOPE).await;
    assert!(malformed > 0.5, "{what} is counted");
    assert_eq!(cloud.count(MAPS, false), 3, "{what}");
    assert_eq!(names(&get(&site, OTHER).await), ["s"], "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_list_is_counted_and_listed_again() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_head = list(9, &[]).replace("\"9\"", &deep);
    let deep_item = list(9, &[("a", 1)]).replace("\"k\":\"1\"", &format!("\"k\":{deep}"));
    let cases: Vec<(&str, Bytes, bool)> = vec![
        (
            "no list",
            r#"{"kind":"Status","status":"Success"}"#.into(),
            false,
        ),
        (
            "a page of a portal",
            "<html>sign in, please</html>".into(),
            false,
        ),
        ("nothing", "".into(), false),
        ("an empty object", "{}".into(), false),
        (
            "half a list",
            list(9, &[("a", 1)])[..80].to_owned().into(),
            false,
        ),
        ("a deep head", deep_head.into(), false),
        ("a deep item", deep_item.into(), false),
        ("gzip that is none", "garbage".into(), true),
        (
            "half of gzip",
            gzipped(list(9, &[("a", 1)]).as_bytes()).slice(..60),
            true,
        ),
    ];
    for (what, text, is_gzip) in cases {
        survives_a_list(what, move || {
            let say = Say::json(200, text.clone());
            if is_gzip {
                say.with("content-encoding", "gzip")
            } else {
                say
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gzip_bomb_is_counted_and_costs_its_own_mirror_alone() {
    let long = format!("\"k\":{:?}", "x".repeat(64 << 20));
    let bomb = gzipped(
        list(9, &[("a", 1)])
            .replace("\"k\":\"1\"", &long)
            .as_bytes(),
    );
    let (_cloud, site) = Cloud::with_hub(move |asked| {
        let bomb = || Say::json(200, bomb.clone()).with("content-encoding", "gzip");
        other(asked).unwrap_or_else(bomb)
    })
    .await;
    get(&site, OTHER).await;
    let node = site.node();
    let bombed = async {
        // What the caller makes of it is its own affair.
        let _bomb = node.get(&format!("{MAPS}?resourceVersion=0")).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = bombed => {}
        () = eventually("it is counted", async || {
            site.metric("yurthub_mirror_malformed_total", SCOPE).await > 0.5
        }) => {}
    }
    assert_eq!(names(&get(&site, OTHER).await), ["s"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_never_ends_stalls_nobody_else() {
    let (cloud, site) = Cloud::with_hub(|asked| {
        other(asked).unwrap_or_else(|| {
            let mut number = 0;
            let begin = list(9, &[("first", 1)]);
            let begin = begin[..begin.len() - 2].to_owned();
            Say::json(200, begin).ending(End::Endless(Box::new(move || {
                number += 1;
                let item = list(9, &[(&format!("n{}", number % 1_000), 1)]);
                let start = item.find("[").unwrap() + 1;
                format!(",{}", &item[start..item.len() - 2]).into()
            })))
        })
    })
    .await;
    let node = site.node();
    let listing = node.get("/api/v1/namespaces/default/configmaps?resourceVersion=0");
    let mut listing = std::pin::pin!(listing);
    tokio::select! {
        answered = &mut listing => panic!("{}", answered.unwrap().text()),
        () = eventually("much of it has come", async || {
            site.metric("yurthub_mirror_upstream_bytes_total", SCOPE).await > 2e6
        }) => {}
    }
    assert_eq!(names(&get(&site, OTHER).await), ["s"]);
    assert_eq!(cloud.count(MAPS, false), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_name_themselves_for_ever_are_given_up() {
    let (cloud, site) = Cloud::with_hub(|asked| match asked.is_watch() {
        true => Say::silence(),
        false => Say::json(
            200,
            list(9, &[("a", 1)]).replacen(r#""9""#, r#""9","continue":"again""#, 1),
        ),
    })
    .await;
    let node = site.node();
    let path = format!("{MAPS}?resourceVersion=0");
    let mut listing = std::pin::pin!(node.get(&path));
    tokio::select! {
        answered = &mut listing => panic!("{}", answered.unwrap().text()),
        () = eventually("it is given up some times", async || {
            site.metric("yurthub_mirror_malformed_total", SCOPE).await > 2.5
        }) => {}
    }
    assert!(cloud.count(MAPS, false) < 20);
}

/// Counts the requests for the scope within a second of a cloud that never behaves.
async fn asked_in_a_second(answer: impl Fn(&Asked) -> Say + Send + Sync + 'static) -> usize {
    let (cloud, site) = Cloud::with_hub(answer).await;
    let node = site.node();
    let path = format!("{MAPS}?resourceVersion=0");
    let listing = node.get(&path);
    let second = tokio::time::sleep(Duration::from_secs(1));
    tokio::select! {
        () = async { drop(listing.await); std::future::pending().await } => {}
        () = second => {}
    }
    cloud.asked().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_that_never_behaves_is_not_asked_in_a_loop() {
    let list = || Say::list(5, &[("a", 1)]);
    let expired = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#;
    let ends = asked_in_a_second(move |asked| match asked.is_watch() {
        true => Say::json(200, ""),
        false => list(),
    });
    let malformed = asked_in_a_second(move |asked| match asked.is_watch() {
        true => Say::json(200, "garbage\n"),
        false => list(),
    });
    let expires = asked_in_a_second(move |asked| match asked.is_watch() {
        true => Say::json(200, format!("{expired}\n")),
        false => list(),
    });
    let gone = asked_in_a_second(move |asked| match asked.is_watch() {
        true => Say::json(410, r#"{"kind":"Status","code":410}"#),
        false => list(),
    });
    let all_gone = asked_in_a_second(|_| Say::json(410, r#"{"kind":"Status","code":410}"#));
    let fails = asked_in_a_second(|_| Say::json(500, r#"{"kind":"Status","code":500}"#));
    let breaks = asked_in_a_second(move |asked| match asked.is_watch() {
        true => Say::json(200, "").ending(End::Broken),
        false => list(),
    });
    let counts = tokio::join!(ends, malformed, expires, gone, all_gone, fails, breaks);
    let (a, b, c, d, e, f, g) = counts;
    assert!(
        [a, b, c, d, e, f, g].iter().all(|count| *count < 60),
        "{counts:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_that_fails_for_a_while_is_mirrored_afterwards() {
    let (_cloud, site) = Cloud::with_hub(|asked| match (asked.is_watch(), asked.before) {
        (false, 0..6) => Say::json(500, r#"{"kind":"Status","status":"Failure","code":500}"#),
        (false, _) => Say::list(5, &[("a", 1)]),
        (true, _) => Say::silence(),
    })
    .await;
    let refused = site
        .node()
        .get(&format!("{MAPS}?resourceVersion=0"))
        .await
        .unwrap();
    assert_eq!(refused.code, 500, "the cloud's own word, and soon");
    site.is_live(SCOPE).await;
    assert_eq!(names(&get(&site, MAPS).await), ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_that_goes_back_in_time_ends_the_watches() {
    let (lies, told) = tokio::sync::watch::channel(false);
    let (_cloud, site) = Cloud::with_hub(move |asked| match (asked.is_watch(), asked.before) {
        (true, 0) => Say::silence().then(told.clone(), "garbage\n"),
        (true, _) => Say::silence(),
        (false, 0) => Say::list(500, &[("a", 400)]),
        (false, _) => Say::list(90, &[("b", 80)]),
    })
    .await;
    get(&site, MAPS).await;
    let node = site.node();
    let mut watch = node
        .watch(&format!("{MAPS}?watch=1&resourceVersion=500"))
        .await
        .unwrap();
    lies.send_replace(true);
    let event = watch.next(SOON).await.unwrap().unwrap();
    assert_eq!(
        (event.kind.as_str(), &event.object["code"]),
        ("ERROR", &410.into())
    );
    eventually("the older list is there", async || {
        names(&get(&site, MAPS).await) == ["b"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_reaches_a_client_whose_body_nobody_reads() {
    let (_cloud, site) = Cloud::with_hub(|_| Say::list(5, &[])).await;
    let body = vec![b'['; 1 << 20];
    let head = format!(
        "POST /api/v1/namespaces/default/pods HTTP/1.1\r\nHost: hub\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    for _ in 0..10 {
        let mut stream = site.raw(None).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
}
