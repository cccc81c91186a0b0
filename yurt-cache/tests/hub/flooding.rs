//! Clients that take all they can get: each is bounded by its own share, and the node is served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::json;
use testbed::api::{ApiConfig, User};
use testbed::client::{Client, Watch};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use yurt_cache::hub::Config;

use super::cloud::{Asked, Cloud, End, Say};
use super::site::{Bed, SOON, Site, eventually};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FROM_MIRROR: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=0";
const WATCH: &str = "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0";
const LOG: &str = "/api/v1/namespaces/default/pods/p/log?follow=1";

/// A bed whose pods `a` and `b` have tokens, and a hub with these limits.
async fn bed(adjust: fn(&mut Config)) -> Bed {
    let user = |name: &str| (format!("{name}-token"), User::new(name, &[]));
    let config = ApiConfig {
        tokens: BTreeMap::from(["a", "b"].map(user)),
        ..ApiConfig::default()
    };
    Bed::with(config, |mut site| {
        site.adjust(adjust);
        site
    })
    .await
}

/// Returns a client whose token the hub has seen recognised.
async fn recognised(site: &Site, token: &str) -> Client {
    let client = site.bearer(token);
    client.get("/version").await.unwrap().expect(200);
    client
}

async fn refusals(site: &Site, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    site.metric("yurthub_refused_total", &label).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_too_many_is_refused_until_another_ends_and_nobody_else_is() {
    let bed = bed(|config| config.limits.caller_watches = 2).await;
    let (a, b) = (
        recognised(&bed.site, "a-token").await,
        recognised(&bed.site, "b-token").await,
    );
    let mut held: Vec<Watch> = Vec::new();
    for _ in 0..2 {
        held.push(a.watch(WATCH).await.unwrap());
    }
    let refused = a.get(WATCH).await.unwrap();
    refused.expect_status(429, "TooManyRequests");
    assert_eq!(refused.header("retry-after"), "1");
    assert!(refused.text().contains("watches"), "{}", refused.text());
    assert!(refusals(&bed.site, "watches").await > 0.5);
    a.get(FROM_MIRROR).await.unwrap().expect(200);
    assert_eq!(b.watch(WATCH).await.unwrap().code, 200);
    let node = bed.site.node();
    for _ in 0..10 {
        held.push(node.watch(WATCH).await.unwrap());
    }
    assert!(held.iter().all(|watch| watch.code == 200));
    held.remove(0);
    eventually("the ended watch leaves its place", async || {
        a.watch(WATCH).await.unwrap().code == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_too_many_at_a_time_is_refused() {
    let answer = |asked: &Asked| match asked.path.contains("/slow") {
        true => Say::json(200, "{").ending(End::Silent),
        false => Say::json(200, "{}"),
    };
    let few = |config: &mut Config| config.limits.caller_requests = 3;
    let (_cloud, site) = Cloud::with_adjusted_hub(few, answer).await;
    let a = recognised(&site, "a-token").await;
    let mut under_way = Vec::new();
    for number in 0..3 {
        let path = format!("{MAPS}/slow-{number}");
        under_way.push(a.watch(&path).await.unwrap());
    }
    let other = format!("{MAPS}/fast");
    a.get(&other)
        .await
        .unwrap()
        .expect_status(429, "TooManyRequests");
    site.node().get(&other).await.unwrap().expect(200);
    site.bearer("b-token")
        .get(&other)
        .await
        .unwrap()
        .expect(200);
    drop(under_way);
    eventually("the places are free again", async || {
        a.get(&other).await.unwrap().code == 200
    })
    .await;
}

/// The time of a runtime of one thread stands still: whoever waits for it waits on, and all else is done, however
/// slow the machine is.
struct StoodStill {
    // Time that is paused goes on by itself when nothing else is to be done; not while this one blocks.
    held: std::sync::mpsc::Sender<()>,
    blocked: JoinSet<()>,
}

impl StoodStill {
    fn begin() -> Self {
        tokio::time::pause();
        let (held, until) = std::sync::mpsc::channel();
        let mut blocked = JoinSet::new();
        blocked.spawn_blocking(move || {
            // It ends with the other end.
            _ = until.recv();
        });
        Self { held, blocked }
    }

    async fn end(self) {
        tokio::time::resume();
        drop(self.held);
        self.blocked.join_all().await;
    }
}

/// A refusal waits a second, and so many may wait at once. On one thread, whose clock can be stopped: a slow machine
/// would have sent the first ones away before it has taken the last.
#[tokio::test]
async fn who_goes_on_asking_while_it_is_refused_loses_its_connection() {
    let bed = bed(|config| {
        config.limits.caller_watches = 1;
        config.limits.caller_connections = 100;
    })
    .await;
    let first = recognised(&bed.site, "a-token").await;
    let _held = first.watch(WATCH).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(recognised(&bed.site, "a-token").await);
    }
    let time = StoodStill::begin();
    let mut asking = JoinSet::new();
    for client in clients {
        asking.spawn(async move {
            let asked = (0..30).map(|_| client.get(WATCH));
            join_all(asked).await
        });
    }
    while refusals(&bed.site, "overrun").await < 0.5 {}
    time.end().await;
    let answers: Vec<_> = asking.join_all().await.into_iter().flatten().collect();
    let lost = answers.iter().filter(|answer| answer.is_err()).count();
    assert!(lost > 0, "some are cut off");
    assert!(
        answers.iter().flatten().all(|answer| answer.code == 429),
        "the others are refused"
    );
    bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_keep_nobody_out() {
    let bed = bed(|config| config.limits.anonymous_connections = 8).await;
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(bed.site.raw(None).await.unwrap());
    }
    bed.site.node().get("/version").await.unwrap().expect(200);
    let known = recognised(&bed.site, "a-token").await;
    for _ in 0..30 {
        silent.push(bed.site.raw(None).await.unwrap());
    }
    known.get("/version").await.unwrap().expect(200);
    assert!(refusals(&bed.site, "anonymous").await > 40.0);
    // Long before it would be for its silence.
    let mut first = silent.remove(0);
    let read = tokio::time::timeout(SOON / 3, first.read(&mut [0])).await;
    assert!(!matches!(read, Ok(Ok(1..)) | Err(_)), "it was shown out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_begins_a_request_is_shown_out() {
    let bed = Bed::start().await;
    let said: [&[u8]; 3] = [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI * HT"];
    let mut silent = Vec::new();
    for said in said {
        let mut stream = bed.site.raw(None).await.unwrap();
        stream.write_all(said).await.unwrap();
        silent.push(stream);
    }
    for mut stream in silent {
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
        drop(ended.expect("the hub closes within its ten seconds"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_nobody_knows_share_what_their_address_may_have() {
    let answer = |asked: &Asked| match asked.path.contains("/slow") {
        true => Say::json(401, "{").ending(End::Silent),
        false => Say::json(200, "{}"),
    };
    let few = |config: &mut Config| config.limits.caller_requests = 4;
    let (_cloud, site) = Cloud::with_adjusted_hub(few, answer).await;
    let known = recognised(&site, "a-token").await;
    let slow = format!("{MAPS}/slow");
    let mut under_way = Vec::new();
    for number in 0..4 {
        let stranger = site.bearer(&format!("garbage-{number}"));
        let watch = stranger.watch(&slow).await.unwrap();
        assert_eq!(watch.code, 401);
        under_way.push((stranger, watch));
    }
    let one_more = site.bearer("garbage-too");
    one_more
        .get(&slow)
        .await
        .unwrap()
        .expect_status(429, "TooManyRequests");
    known.get("/version").await.unwrap().expect(200);
    site.node().get("/version").await.unwrap().expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_has_no_more_connections_than_its_share() {
    let bed = bed(|config| config.limits.caller_connections = 2).await;
    let first = recognised(&bed.site, "a-token").await;
    let second = recognised(&bed.site, "a-token").await;
    let third = bed.site.bearer("a-token");
    third
        .get("/version")
        .await
        .unwrap()
        .expect_status(429, "TooManyRequests");
    assert!(refusals(&bed.site, "connections").await > 0.5);
    recognised(&bed.site, "b-token").await;
    drop(first);
    eventually("the closed connection leaves its place", async || {
        let third = bed.site.bearer("a-token");
        third.get("/version").await.unwrap().code == 200
    })
    .await;
    second.get("/version").await.unwrap().expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_longer_than_the_server_takes_is_refused_and_never_held() {
    let bed = bed(|config| config.limits.body_bytes = 100_000).await;
    let map = |size: usize| json!({"metadata": {"name": "m"}, "data": {"k": "x".repeat(size)}});
    let node = bed.site.node();
    node.post(MAPS, &map(90_000)).await.unwrap().expect(201);
    let refused = node.put(&format!("{MAPS}/m"), &map(100_000)).await.unwrap();
    refused.expect_status(413, "RequestEntityTooLarge");
    assert_eq!(bed.api.count("update", "configmaps"), 0, "nobody was asked");
    // The same without a word of how long it is.
    let head = format!("POST {MAPS} HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut stream = bed.site.raw_node().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
    for _ in 0..20 {
        // The hub may have closed already.
        drop(stream.write_all(chunk.as_bytes()).await);
    }
    let mut answer = [0; 12];
    let read = tokio::time::timeout(SOON, stream.read_exact(&mut answer)).await;
    read.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    node.get(MAPS).await.unwrap().expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_hold_up_no_other_caller() {
    let said = Arc::new(AtomicUsize::new(0));
    let saying = said.clone();
    let (_cloud, site) = Cloud::with_hub(move |asked| {
        let saying = saying.clone();
        match asked.path.ends_with("/log") {
            true => Say::json(200, "").ending(End::Endless(Box::new(move || {
                saying.fetch_add(1, Ordering::Relaxed);
                "x".repeat(16_384).into()
            }))),
            false => Say::json(200, "{}"),
        }
    })
    .await;
    let greedy = recognised(&site, "a-token").await;
    let mut unread = Vec::new();
    for _ in 0..60 {
        unread.push(greedy.watch(LOG).await.unwrap());
    }
    // Until nothing more of them fits between here and the cloud, and for a while after.
    let other = site.bearer("b-token");
    let (mut before, mut still) = (0, 0);
    while still < 50 {
        let path = format!("{MAPS}/{still}");
        other.get(&path).await.unwrap().expect(200);
        let now = said.load(Ordering::Relaxed);
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_floods_is_refused_and_the_node_is_served() {
    // The cloud is in this process too, and has what the flood leaves of a busy machine: it is slow, and not gone.
    let bed = bed(|config| {
        config.upstream.keep_alive_timeout = SOON * 4;
        config.limits.caller_requests = 8;
    })
    .await;
    bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    recognised(&bed.site, "a-token").await;
    let floods: Vec<Client> = (0..4).map(|_| bed.site.bearer("a-token")).collect();
    let held = Mutex::new(Vec::new());
    // In waves, and not as many as the machine can make: the node's requests and the cloud's answers need it too.
    let wave = async || {
        let asked = floods
            .iter()
            .flat_map(|client| (0..20).map(|_| client.get(FROM_MIRROR)));
        let opened = floods
            .iter()
            .flat_map(|client| (0..20).map(|_| client.watch(WATCH)));
        let (_, opened) = tokio::join!(join_all(asked), join_all(opened));
        held.lock().extend(opened);
    };
    let node = bed.site.node();
    let mut watch = node.watch(WATCH).await.unwrap();
    assert_eq!(watch.code, 200);
    eventually("the flood is refused", async || {
        let (_, served) = tokio::join!(wave(), node.get(FROM_MIRROR));
        served.unwrap().expect(200);
        refusals(&bed.site, "watches").await > 0.5 && refusals(&bed.site, "requests").await > 0.5
    })
    .await;
    for number in 0..5 {
        let served = async {
            for part in 0..10 {
                let body = json!({"metadata": {"name": format!("m-{}", number * 10 + part)}});
                node.post(MAPS, &body).await.unwrap().expect(201);
                node.get(FROM_MIRROR).await.unwrap().expect(200);
            }
        };
        tokio::join!(wave(), served);
    }
    let seen = super::site::events(&mut watch, 50).await;
    assert_eq!(seen.last().unwrap(), "ADDED m-49");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_whoever_holds_connections_to_the_admin_port() {
    let bed = Bed::start().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(bed.site.admin()).await.unwrap());
    }
    assert_eq!(bed.site.page("/healthz").await.0, 200);
    // Long before it would be for its silence.
    let read = tokio::time::timeout(SOON / 3, silent[0].read(&mut [0])).await;
    assert!(!matches!(read, Ok(Ok(1..)) | Err(_)), "the first made room");
}
