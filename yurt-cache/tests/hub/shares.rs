//! What a client takes is its own share: of mirrors, streams to the cloud, verdicts, documents, connections and memory.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use testbed::api::{ApiConfig, Authorizer, User};
use testbed::client::{Answer, Client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use yurt_cache::hub::{Budget, Config};

use super::cloud::{Asked, Cloud, Say};
use super::site::{Bed, SOON, Site, eventually, names};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FROM_MIRROR: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=0";

/// A bed whose pods `a`, `b` and `c` have tokens; `a` may not read Secrets.
async fn bed(adjust: impl Fn(&mut Config) + Send + Sync + 'static) -> Bed {
    let user = |name: &str| (format!("{name}-token"), User::new(name, &[]));
    let config = ApiConfig {
        tokens: BTreeMap::from(["a", "b", "c"].map(user)),
        authorizer: Authorizer::new(|user, asked| user.name != "a" || asked.resource != "secrets"),
        ..ApiConfig::default()
    };
    let bed = Bed::with(config, |mut site| {
        site.adjust(adjust);
        site
    })
    .await;
    for name in ["one", "two"] {
        let body = json!({"metadata": {"name": name, "labels": {"name": name}}});
        bed.cloud().post(MAPS, &body).await.unwrap().expect(201);
    }
    bed
}

fn selected(number: usize) -> String {
    format!("{FROM_MIRROR}&labelSelector=x!%3D{number}")
}

fn served_from(answer: &Answer) -> &str {
    answer.header("x-yurt-served-from")
}

async fn budget(site: &Site, name: &str) -> f64 {
    let label = format!("budget=\"{name}\"");
    site.metric("yurthub_budget_used", &label).await
}

// === Mirrors ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_over_its_callers_share_is_forwarded_and_others_have_their_mirrors() {
    let bed = bed(|config| config.limits.caller_mirrors = 3).await;
    let a = bed.site.bearer("a-token");
    for number in 0..6 {
        let listed = a.get(&selected(number)).await.unwrap();
        let expected = if number < 3 { "mirror" } else { "cloud" };
        assert_eq!(served_from(&listed), expected, "{number}");
        assert_eq!(names(&listed.expect(200)).len(), 2);
    }
    let watch = format!("{MAPS}?watch=1&labelSelector=x!%3D7");
    assert_eq!(a.watch(&watch).await.unwrap().code, 200);
    for client in [bed.site.bearer("b-token"), bed.site.node()] {
        let listed = client.get(FROM_MIRROR).await.unwrap();
        assert_eq!(served_from(&listed), "mirror");
    }
    // A wider scope is held now: what it answers takes no mirror.
    let mirrors = budget(&bed.site, "mirrors").await;
    for number in 10..15 {
        let listed = a.get(&selected(number)).await.unwrap();
        assert_eq!(served_from(&listed), "mirror");
    }
    assert!((budget(&bed.site, "mirrors").await - mirrors).abs() < 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_room_the_greediest_loses_a_mirror_and_the_node_none() {
    let mut bed = bed(|config| config.limits.mirrors = 12).await;
    let (node, b) = (bed.site.node(), bed.site.bearer("b-token"));
    let of_b = format!("{FROM_MIRROR}&labelSelector=name%3Done");
    b.get(&of_b).await.unwrap().expect(200);
    let a = bed.site.bearer("a-token");
    for number in 0..30 {
        a.get(&selected(number)).await.unwrap().expect(200);
    }
    let named = |number: usize| format!("{FROM_MIRROR}&fieldSelector=metadata.name%3Dn{number}");
    for number in 0..6 {
        let listed = node.get(&named(number)).await.unwrap();
        assert_eq!(served_from(&listed), "mirror", "{number}");
    }
    let other = format!("{FROM_MIRROR}&labelSelector=name%3Dtwo");
    assert_eq!(served_from(&b.get(&other).await.unwrap()), "mirror");
    assert!(budget(&bed.site, "mirrors").await < 12.5);
    bed.cut().await;
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    let (node, b) = (bed.site.node(), bed.site.bearer("b-token"));
    for number in 0..6 {
        node.get(&named(number)).await.unwrap().expect(200);
    }
    assert_eq!(names(&b.get(&of_b).await.unwrap().expect(200)), ["one"]);
    assert_eq!(names(&b.get(&other).await.unwrap().expect(200)), ["two"]);
}

// === Streams ===

fn many_lists(asked: &Asked) -> Say {
    match (asked.is_watch(), asked.path.ends_with("/configmaps")) {
        (true, _) => Say::silence(),
        (false, true) => Say::list(5, &[("one", 1)]),
        (false, false) => Say::json(200, "{}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_of_mirrors_leave_room_for_everybodys_requests() {
    // Of 160 streams.
    let (_cloud, site) = Cloud::with_streams(
        5,
        |config| {
            config.limits.caller_mirrors = usize::MAX;
            config.upstream.connect_timeout = Duration::from_secs(1);
        },
        many_lists,
    )
    .await;
    let a = site.bearer("a-token");
    for number in 0..200 {
        drop(a.get(&selected(number)).await);
    }
    let one = format!("{MAPS}/one");
    let b = site.bearer("b-token");
    for client in [&site.node(), &b] {
        for _ in 0..10 {
            client.get(&one).await.unwrap().expect(200);
        }
        let scope = format!("{FROM_MIRROR}&fieldSelector=metadata.name%3Done");
        assert_eq!(served_from(&client.get(&scope).await.unwrap()), "mirror");
    }
    assert!(budget(&site, "node_streams").await > 10.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarded_watches_beyond_their_callers_share_of_streams_are_refused_in_words() {
    let few = |config: &mut Config| config.limits.caller_mirrors = 0;
    let (_cloud, site) = Cloud::with_streams(5, few, many_lists).await;
    let a = site.bearer("a-token");
    // Until the cloud has vouched for a token it has connections apart.
    a.get(&format!("{MAPS}/one")).await.unwrap().expect(200);
    let mut watches = Vec::new();
    let refused = loop {
        let number = watches.len();
        let path = format!("{MAPS}?watch=1&labelSelector=x!%3D{number}");
        let watch = a.watch(&path).await.unwrap();
        match watch.code {
            200 => watches.push(watch),
            _ => break a.get(&path).await.unwrap(),
        }
    };
    assert_eq!(watches.len(), 32, "a quarter of the streams");
    refused.expect_status(429, "TooManyRequests");
    assert!(refused.text().contains("streams"), "{}", refused.text());
    a.get(&format!("{MAPS}/one")).await.unwrap().expect(200);
    let b = site.bearer("b-token");
    let path = format!("{MAPS}?watch=1&labelSelector=x!%3D0");
    assert_eq!(b.watch(&path).await.unwrap().code, 200);
    watches.pop();
    eventually("the ended watch leaves its place", async || {
        a.watch(&path).await.unwrap().code == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_watches_of_one_token_are_open_by_default() {
    let (_cloud, site) = Cloud::with_hub(many_lists).await;
    let a = site.bearer("a-token");
    let mut watches = Vec::new();
    for number in 0..300 {
        let path = format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Dn{number}");
        let watch = a.watch(&path).await.unwrap();
        assert_eq!(watch.code, 200, "{number}");
        watches.push(watch);
    }
    a.get(&format!("{MAPS}/one")).await.unwrap().expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_as_somebody_else_take_the_share_of_watches() {
    let few = |config: &mut Config| config.limits.caller_requests = 2;
    let (_cloud, site) = Cloud::with_adjusted_hub(few, |asked| {
        match asked.is_watch() || asked.path.ends_with("/log") {
            true => Say::silence(),
            false => Say::json(200, "{}"),
        }
    })
    .await;
    let a = site.bearer("a-token");
    a.get("/version").await.unwrap().expect(200);
    let mut open = Vec::new();
    for number in 0..8 {
        let path = match number % 2 {
            0 => format!("{MAPS}?watch=1"),
            _ => "/api/v1/namespaces/default/pods/p/log?follow=1".to_owned(),
        };
        let mut stream = site.raw(None).await.unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer a-token\r\nImpersonate-User: jane\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        let read = tokio::time::timeout(SOON, stream.read_exact(&mut answer)).await;
        read.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200", "{number}");
        open.push(stream);
    }
    a.get(&format!("{MAPS}/one")).await.unwrap().expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_too_many_watches_is_told_which_option_bounds_them() {
    let bed = bed(|config| config.limits.caller_watches = 1).await;
    let a = bed.site.bearer("a-token");
    a.get("/version").await.unwrap().expect(200);
    let path = format!("{MAPS}?watch=1");
    let _held = a.watch(&path).await.unwrap();
    let refused = a.get(&path).await.unwrap();
    refused.expect_status(429, "TooManyRequests");
    assert!(
        refused.text().contains("callerWatches"),
        "{}",
        refused.text()
    );
}

// === What the cloud said ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_one_caller_cost_no_other_its_rights() {
    let mut bed = bed(|config| config.verdicts = 30).await;
    let b = bed.site.bearer("b-token");
    b.get(FROM_MIRROR).await.unwrap().expect(200);
    let a = bed.site.bearer("a-token");
    a.get(FROM_MIRROR).await.unwrap().expect(200);
    for number in 0..60 {
        let secret = format!("/api/v1/namespaces/default/secrets/s{number}");
        a.get(&secret)
            .await
            .unwrap()
            .expect_status(403, "Forbidden");
    }
    bed.cut().await;
    for _ in 0..2 {
        for token in ["a-token", "b-token"] {
            let listed = bed.site.bearer(token).get(FROM_MIRROR).await.unwrap();
            assert_eq!(listed.code, 200, "{token} {}", listed.text());
        }
        bed.restart().await;
        bed.site.sees_the_cloud(false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_of_one_caller_cost_no_other_its_own() {
    let bed = bed(|config| config.verdicts = 30).await;
    let b = bed.site.bearer("b-token");
    b.get(FROM_MIRROR).await.unwrap().expect(200);
    let a = bed.site.bearer("a-token");
    for number in 0..30 {
        a.get(&selected(number)).await.unwrap().expect(200);
    }
    assert!(budget(&bed.site, "verdicts").await < 30.5);
    bed.cut().await;
    b.get(FROM_MIRROR).await.unwrap().expect(200);
}

const DISCOVERY: [&str; 6] = [
    "/api",
    "/apis",
    "/api/v1",
    "/version",
    "/apis/apps/v1",
    "/openapi/v3",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_up_urls_cost_nobody_discovery() {
    let bed = bed(|config| config.documents = Budget::new(12, 1 << 20)).await;
    let node = bed.site.node();
    for path in DISCOVERY {
        node.get(path).await.unwrap().expect(200);
    }
    let a = bed.site.bearer("a-token");
    for number in 0..30 {
        let path = format!("/version?x={number}");
        a.get(&path).await.unwrap().expect(200);
        let accept = format!("application/json;q=0.{number},application/x{number}");
        a.get_as("/openapi/v3", &accept).await.unwrap().expect(200);
        a.get("/apis/apps/v1/").await.unwrap().expect(200);
    }
    bed.cut().await;
    for path in DISCOVERY {
        let kept = node.get(path).await.unwrap();
        assert_eq!(kept.code, 200, "{path}");
        // However it is asked for.
        let asked = format!("{path}?x=1000&timeout=1s");
        let accept = "application/x;q=0.9,*/*;q=0.1";
        let again = node.get_as(&asked, accept).await.unwrap();
        assert_eq!(again.text(), kept.text());
    }
}

// === Connections ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_connections_run_out_the_caller_with_the_most_loses_its_oldest() {
    let bed = bed(|config| {
        config.limits.connections = 4;
        config.limits.caller_connections = 3;
    })
    .await;
    let open = async |token: &str| {
        let client = bed.site.bearer(token);
        client.get("/version").await.unwrap().expect(200);
        client
    };
    let mut held = Vec::new();
    for token in ["a-token", "a-token", "a-token", "b-token"] {
        held.push(open(token).await);
    }
    let c = open("c-token").await;
    for client in [&held[1], &held[2], &held[3], &c] {
        client.get("/version").await.unwrap().expect(200);
    }
    bed.site.node().get("/version").await.unwrap().expect(200);
}

// === Answers that nobody reads ===

/// Asks over HTTP/2 without any room for the answer's body.
async fn ask_deaf(
    site: &Site,
    token: &str,
    paths: &[String],
) -> (Vec<Response<Incoming>>, JoinSet<()>) {
    let stream = site.raw(None).await.unwrap();
    let connecting = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake(TokioIo::new(stream));
    let (mut requests, connection) = connecting.await.unwrap();
    let mut driving = JoinSet::new();
    driving.spawn(async move {
        let _ended = connection.await;
    });
    let mut answers = Vec::new();
    for path in paths {
        let request = Request::get(format!("https://hub{path}"))
            .header("authorization", format!("Bearer {token}"))
            .body(Empty::<Bytes>::new())
            .unwrap();
        answers.push(requests.send_request(request).await.unwrap());
    }
    (answers, driving)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_reads_is_ended_and_leaves_nothing_behind() {
    let bed = bed(|config| config.limits.unread = Duration::from_millis(500)).await;
    // More than is read at a time.
    for number in 0..30 {
        let body =
            json!({"metadata": {"name": format!("m{number}")}, "data": {"k": "x".repeat(10_000)}});
        bed.cloud().post(MAPS, &body).await.unwrap().expect(201);
    }
    let a = bed.site.bearer("a-token");
    a.get(FROM_MIRROR).await.unwrap().expect(200);
    let paths = vec![
        FROM_MIRROR.to_owned(),
        format!("{MAPS}?watch=1&resourceVersion=0"),
    ];
    let (answers, driving) = ask_deaf(&bed.site, "a-token", &paths).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    let mut watch = a
        .watch(&format!("{MAPS}?watch=1&resourceVersion=0"))
        .await
        .unwrap();
    let seen = super::site::events(&mut watch, 32).await;
    assert_eq!(seen.len(), 32);
    eventually("nothing is held for those who do not read", async || {
        budget(&bed.site, "answer_bytes").await < 0.5
    })
    .await;
    // Who waits for what comes is no such client.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let body = json!({"metadata": {"name": "late"}});
    bed.cloud().post(MAPS, &body).await.unwrap().expect(201);
    assert_eq!(super::site::events(&mut watch, 1).await, ["ADDED late"]);
    drop((answers, driving));
}

// === Windows ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_events_of_all_mirrors_together_have_one_budget() {
    let bed = bed(|config| config.window_bytes = 1 << 20).await;
    let a = bed.site.bearer("a-token");
    for number in 0..20 {
        a.get(&selected(number)).await.unwrap().expect(200);
    }
    let name = |number: usize| format!("m{number}");
    for number in 0..20 {
        let body = json!({"metadata": {"name": name(number)}, "data": {"k": "x".repeat(10_000)}});
        bed.cloud().post(MAPS, &body).await.unwrap().expect(201);
    }
    eventually("every mirror has seen the last", async || {
        let listed = join_all((0..20).map(|number| {
            let path = selected(number);
            let a = &a;
            async move { a.get(&path).await.unwrap().expect(200) }
        }));
        listed.await.iter().all(|list| names(list).len() == 22)
    })
    .await;
    eventually("the windows keep to their budget", async || {
        budget(&bed.site, "window_bytes").await < f64::from(1 << 20)
    })
    .await;
}

// === Floods, then a cut and a restart ===

/// Whatever a well-behaved client of the node asks for.
async fn answers(client: &Client) -> Vec<(String, u16, String)> {
    let one = format!("{FROM_MIRROR}&labelSelector=name%3Done");
    let named = format!("{FROM_MIRROR}&fieldSelector=metadata.name%3Dtwo");
    let services = "/api/v1/services?resourceVersion=0".to_owned();
    let scopes = [FROM_MIRROR.to_owned(), one, named, services];
    let mut seen = Vec::new();
    for path in scopes {
        let answer = client.get(&path).await.unwrap();
        let told = match answer.code {
            200 => answer.json()["items"].to_string(),
            _ => answer.text(),
        };
        seen.push((path, answer.code, told));
    }
    for path in DISCOVERY {
        let answer = client.get(path).await.unwrap();
        seen.push((path.to_owned(), answer.code, answer.text()));
    }
    seen
}

fn small(config: &mut Config) {
    config.verdicts = 60;
    config.documents = Budget::new(16, 1 << 20);
    config.window_bytes = 1 << 20;
    let limits = &mut config.limits;
    limits.mirrors = 40;
    limits.connections = 12;
    limits.caller_connections = 6;
    limits.anonymous_connections = 16;
    limits.unread = Duration::from_millis(500);
}

/// Lets the pod `a` flood the hub; the node and the pod `b` are served meanwhile, and as before after a cut and a restart.
async fn is_borne(flood: impl AsyncFn(&Bed)) {
    let mut bed = bed(small).await;
    let (node, b) = (bed.site.node(), bed.site.bearer("b-token"));
    let before = [answers(&node).await, answers(&b).await];
    for (path, code, text) in before.iter().flatten() {
        assert_eq!(*code, 200, "{path} {text}");
    }
    let serving = Box::pin(async {
        for _ in 0..20 {
            assert_eq!(answers(&node).await, before[0]);
            assert_eq!(answers(&b).await, before[1]);
        }
    });
    tokio::join!(Box::pin(flood(&bed)), serving);
    // Once more, while they ask for nothing.
    Box::pin(flood(&bed)).await;
    // What they ask for after the flood is remembered as well.
    let later = "/api/v1/namespaces/default/serviceaccounts?resourceVersion=0";
    for client in [&node, &b] {
        client.get(later).await.unwrap().expect(200);
    }
    bed.cut().await;
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    let (node, b) = (bed.site.node(), bed.site.bearer("b-token"));
    for (client, before) in [(&node, &before[0]), (&b, &before[1])] {
        assert_eq!(Box::pin(answers(client)).await, *before);
    }
    for client in [&node, &b] {
        client.get(later).await.unwrap().expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_selectors_is_borne() {
    is_borne(async |bed| {
        let a = bed.site.bearer("a-token");
        for number in 0..100 {
            // Of a kind that nobody else lists whole.
            let path = format!(
                "/api/v1/namespaces/default/pods?resourceVersion=0&labelSelector=x!%3D{number}"
            );
            a.get(&path).await.unwrap().expect(200);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_urls_is_borne() {
    is_borne(async |bed| {
        let a = bed.site.bearer("a-token");
        for number in 0..60 {
            let path = format!("/version?x={number}");
            a.get(&path).await.unwrap().expect(200);
            let accept = format!("*/*;q=0.{number}");
            a.get_as("/openapi/v2", &accept).await.unwrap().expect(200);
            let group = ["apps", "batch", "policy", "storage.k8s.io"][number % 4];
            let path = format!("/apis/{group}/v1?{number}");
            a.get(&path).await.unwrap().expect(200);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_refusals_is_borne() {
    is_borne(async |bed| {
        let a = bed.site.bearer("a-token");
        for number in 0..150 {
            let secret = format!("/api/v1/namespaces/default/secrets/s{number}");
            let refused = a.get(&secret).await.unwrap();
            refused.expect_status(403, "Forbidden");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_unread_answers_is_borne() {
    is_borne(async |bed| {
        let (_, first) = ask_deaf(&bed.site, "a-token", &["/version".to_owned()]).await;
        let watch = format!("{MAPS}?watch=1&resourceVersion=0");
        let list = FROM_MIRROR.to_owned();
        let mut held = vec![first];
        for _ in 0..4 {
            let paths: Vec<String> = (0..30)
                .map(|number| {
                    if number % 2 == 0 {
                        watch.clone()
                    } else {
                        list.clone()
                    }
                })
                .collect();
            let (_answers, driving) = ask_deaf(&bed.site, "a-token", &paths).await;
            held.push(driving);
        }
        drop(held);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_tokens_that_nobody_knows_is_borne() {
    is_borne(async |bed| {
        for number in 0..100 {
            let stranger = bed.site.bearer(&format!("garbage-{number}"));
            // It may be shown out for others like it.
            if let Ok(answer) = stranger.get(&selected(number)).await {
                assert!(matches!(answer.code, 401 | 429), "{}", answer.text());
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_cancelled_streams_is_borne() {
    is_borne(async |bed| {
        let a = bed.site.bearer("a-token");
        a.get("/version").await.unwrap().expect(200);
        for number in 0..300 {
            let path = selected(number);
            let (mut asked, mut moment) = (
                std::pin::pin!(a.get(&path)),
                std::pin::pin!(tokio::task::yield_now()),
            );
            tokio::select! {
                biased;
                _ = &mut asked => {}
                () = &mut moment => {}
            }
        }
        eventually("it is served again", async || {
            a.get("/version")
                .await
                .is_ok_and(|answer| answer.code == 200)
        })
        .await;
    })
    .await;
}
