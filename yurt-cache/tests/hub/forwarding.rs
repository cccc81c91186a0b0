//! What only the cloud can answer: streamed both ways, as the caller, and nothing smuggled.

use bytes::Bytes;
use http_body_util::{BodyExt, Channel, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::cloud::{Cloud, Say};
use super::site::{Bed, NODE, SOON, eventually};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const POD: &str = "/api/v1/namespaces/default/pods/p";

async fn pod(bed: &Bed) {
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let path = "/api/v1/namespaces/default/pods";
    bed.cloud().post(path, &pod).await.unwrap().expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_never_ends_begins_at_once() {
    let bed = Bed::start().await;
    pod(&bed).await;
    let mut stream = bed.site.raw_node().await;
    let request = format!("GET {POD}/log?follow=1 HTTP/1.1\r\nHost: hub\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let read = async {
        while !text.contains("third line") {
            let mut buffer = [0; 4_096];
            let length = stream.read(&mut buffer).await.unwrap();
            assert!(length > 0, "it goes on: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    };
    tokio::time::timeout(SOON, read)
        .await
        .expect("the first lines come");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_comes_slowly_reaches_the_cloud_as_it_comes() {
    let bed = Bed::start().await;
    let stream = bed.site.raw_node().await;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let (mut body, incoming) = Channel::<Bytes>::new(1);
    let request = http::Request::post(MAPS)
        .header("host", "hub")
        .header("content-type", "application/json")
        .body(incoming)
        .unwrap();
    let up = bed.link.bytes_up();
    let response = sender.send_request(request);
    let send = async {
        body.send_data(r#"{"metadata":{"name":"big"},"data":{"k":""#.into())
            .await
            .unwrap();
        for sent in 1..=8_u64 {
            body.send_data("x".repeat(50_000).into()).await.unwrap();
            // The rest is not sent before this has arrived.
            eventually("it passes the link", async || {
                bed.link.bytes_up() - up > sent * 50_000
            })
            .await;
        }
        body.send_data(r#""}}"#.into()).await.unwrap();
        drop(body);
    };
    let (response, ()) = tokio::join!(response, send);
    assert_eq!(response.unwrap().status(), 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_body_of_a_get_reaches_the_backend_behind_a_service() {
    const SEARCH: &str = "/api/v1/namespaces/default/services/http:echo:80/proxy/_search";
    let (_cloud, site) = Cloud::with_hub(|asked| Say::json(200, asked.body.clone())).await;
    let stream = site.raw_node().await;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    for (method, text) in [("GET", r#"{"query":{}}"#), ("POST", "2"), ("GET", "")] {
        let request = http::Request::builder()
            .method(method)
            .uri(SEARCH)
            .header("host", "hub")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(text.as_bytes())))
            .unwrap();
        sender.ready().await.unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let echoed = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(echoed, text.as_bytes(), "{method}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_echoed_and_ends_half_by_half() {
    let bed = Bed::start().await;
    pod(&bed).await;
    for (method, subresource, protocol) in [
        ("POST", "exec", "SPDY/3.1"),
        ("GET", "attach", "websocket"),
        ("POST", "portforward", "SPDY/3.1"),
    ] {
        let mut stream = bed.site.raw_node().await;
        let request = format!(
            "{method} {POD}/{subresource}?stdin=1 HTTP/1.1\r\nHost: hub\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {protocol}\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        assert!(
            head.contains(&format!("upgrade: {}", protocol.to_lowercase())),
            "{head}"
        );
        assert!(
            head.contains("x-stream-protocol-version: v4.channel.k8s.io"),
            "{head}"
        );
        let sent = vec![b'y'; 300_000];
        let (mut read, mut write) = tokio::io::split(stream);
        let sending = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut heard = Vec::new();
        let hearing = tokio::time::timeout(SOON, read.read_to_end(&mut heard));
        let ((), heard_all) = tokio::join!(sending, hearing);
        heard_all.expect("in time").unwrap();
        assert!(
            heard.ends_with(b"yend\n"),
            "the farewell comes after our half has ended"
        );
        assert_eq!(heard.len(), sent.len() + 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_upgrade_is_the_clouds_own_answer() {
    let bed = Bed::start().await;
    let answer = bed
        .site
        .say(&format!(
            "POST {POD}/exec HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade, close\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(answer.contains("\"reason\":\"NotFound\""), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_write_passes() {
    let bed = Bed::start().await;
    let node = bed.site.node();
    let body = json!({"metadata": {"name": "a"}, "data": {"k": "1"}});
    node.post(MAPS, &body).await.unwrap().expect(201);
    let path = format!("{MAPS}/a");
    let add = json!([{"op": "add", "path": "/data/json", "value": "1"}]);
    node.patch(&path, "json", &add).await.unwrap().expect(200);
    for kind in ["merge", "strategic-merge"] {
        let patch = json!({"data": {kind: "1"}});
        node.patch(&path, kind, &patch).await.unwrap().expect(200);
    }
    let apply = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"apply": "1"}});
    let applied = format!("{path}?fieldManager=test&force=true");
    node.patch(&applied, "apply", &apply)
        .await
        .unwrap()
        .expect(200);
    let dry = json!({"data": {"dry": "1"}});
    let path_dry = format!("{path}?dryRun=All");
    let shown = node
        .patch(&path_dry, "merge", &dry)
        .await
        .unwrap()
        .expect(200);
    assert_eq!(shown["data"]["dry"], "1");
    let held = bed.cloud().get(&path).await.unwrap().expect(200);
    assert_eq!(
        held["data"],
        json!({"k": "1", "json": "1", "merge": "1", "strategic-merge": "1", "apply": "1"})
    );
    node.put(&path, &body).await.unwrap().expect(200);
    let options =
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "another"}});
    node.delete(&path, Some(&options))
        .await
        .unwrap()
        .expect_status(409, "Conflict");
    node.delete(&path, None).await.unwrap().expect(200);
    bed.cut().await;
    for refused in [
        node.post(MAPS, &body).await,
        node.put(&path, &body).await,
        node.patch(&path, "merge", &dry).await,
        node.delete(&path, None).await,
    ] {
        let refused = refused.unwrap();
        refused.expect_status(503, "ServiceUnavailable");
        assert!(!refused.header("retry-after").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_of_one_connection_and_of_who_stands_in_front_do_not_pass() {
    let (cloud, site) = Cloud::with_hub(|_| {
        Say::json(201, "{}")
            .with("x-kept", "1")
            .with("x-yurt-served-from", "elsewhere")
    })
    .await;
    let body = r#"{"a":"b"}"#;
    let answer = site
        .say(&format!(
            "POST {MAPS} HTTP/1.1\r\nHost: evil\r\nConnection: close, X-Named\r\nX-Named: 1\r\nKeep-Alive: 5\r\nTE: gzip\r\nProxy-Authorization: x\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Uri: /evil\r\nX-Real-Ip: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Remote-User: admin\r\nX-Remote-Group: system:masters\r\nX-Remote-Extra-Scopes: all\r\nX-Kept: 1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(
        answer.contains("x-kept: 1") && answer.contains("x-yurt-served-from: cloud"),
        "{answer}"
    );
    assert!(!answer.contains("elsewhere"), "{answer}");
    let asked = cloud.asked();
    let got = asked
        .iter()
        .find(|one| one.method == http::Method::POST)
        .unwrap();
    assert_eq!(got.body, body);
    assert_eq!(got.headers["x-kept"], "1");
    let names: Vec<&str> = got.headers.keys().map(http::HeaderName::as_str).collect();
    for gone in [
        "connection",
        "x-named",
        "keep-alive",
        "te",
        "proxy-authorization",
        "authorization",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-uri",
        "x-real-ip",
        "x-remote-user",
        "x-remote-group",
        "x-remote-extra-scopes",
    ] {
        assert!(!names.contains(&gone), "{gone} has passed: {names:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_can_be_read_in_two_ways_is_refused_or_read_in_one() {
    let (cloud, site) = Cloud::with_hub(|_| Say::json(201, "{}")).await;
    let post = |headers: &str, body: &str| {
        format!("POST {MAPS} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{headers}\r\n\r\n{body}")
    };
    let inner = "GET /api/v1/secrets HTTP/1.1\r\nHost: hub\r\n\r\n";
    let chunked = format!("0\r\n\r\n{inner}");
    for request in [
        post("Content-Length: 4\r\nContent-Length: 60", inner),
        post("Content-Length: 4, 60", inner),
        post("Content-Length: 4\r\nTransfer-Encoding: chunked", &chunked),
        post("Transfer-Encoding: chunked\r\nContent-Length: 4", &chunked),
        post("Transfer-Encoding: chunked, identity", &chunked),
        post(
            "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
            &chunked,
        ),
        post("Content-Length: -4", inner),
        post("Content-Length : 4", inner),
        post("Content-Length: 0\r\n Transfer-Encoding: chunked", &chunked),
    ] {
        let answer = site.say(&request).await;
        assert!(
            answer.matches("HTTP/1.1").count() <= 1,
            "{request}\n{answer}"
        );
        let is_fine = answer.is_empty()
            || answer.starts_with("HTTP/1.1 400")
            || answer.starts_with("HTTP/1.1 201");
        assert!(is_fine, "{request}\n{answer}");
    }
    assert!(
        cloud
            .asked()
            .iter()
            .all(|one| !one.path.contains("secrets")),
        "smuggled"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_with_a_body_is_a_read() {
    let bed = Bed::start().await;
    bed.cloud()
        .post(MAPS, &json!({"metadata": {"name": "a"}}))
        .await
        .unwrap()
        .expect(201);
    let answer = bed
        .site
        .say(&format!(
            "GET {MAPS}/a HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("x-yurt-served-from: cloud"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_heads_are_refused_and_cost_nobody_else_anything() {
    let bed = Bed::start().await;
    let head = |rest: &str| {
        format!("GET /version HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{rest}\r\n")
    };
    let long = head(&format!("X-Long: {}\r\n", "x".repeat(1 << 20)));
    let many: String = (0..20_000)
        .map(|number| format!("X-{number}: 1\r\n"))
        .collect();
    let path = format!("GET /{} HTTP/1.1\r\nHost: hub\r\n\r\n", "x".repeat(1 << 20));
    for request in [long, head(&many), path] {
        let mut stream = bed.site.raw_node().await;
        // The hub may answer and close before it has read everything.
        drop(stream.write_all(request.as_bytes()).await);
        let mut answer = Vec::new();
        let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
        drop(read.expect("the hub closes"));
        let answer = String::from_utf8_lossy(&answer);
        let is_refused = answer.is_empty()
            || answer.starts_with("HTTP/1.1 431")
            || answer.starts_with("HTTP/1.1 414")
            || answer.starts_with("HTTP/1.1 400");
        assert!(is_refused, "{answer}");
    }
    bed.site.node().get("/version").await.unwrap().expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_finishes_a_head_is_shown_the_door() {
    let bed = Bed::start().await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = bed.site.raw_node().await;
        stream
            .write_all(b"GET /version HTTP/1.1\r\nX-")
            .await
            .unwrap();
        slow.push(stream);
    }
    bed.site.node().get("/version").await.unwrap().expect(200);
    for mut stream in slow {
        let mut answer = Vec::new();
        let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
        drop(read.expect("the hub closes within its ten seconds"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_path_leads_where_its_words_do_not() {
    let (cloud, site) = Cloud::with_hub(|asked| {
        if asked.is_watch() {
            return Say::silence();
        }
        Say::list(5, &[("a", 1)])
    })
    .await;
    let node = site.node();
    for path in [
        "/api/v1/namespaces/default/../kube-system/secrets",
        "/api/v1/namespaces/default/configmaps/../secrets?resourceVersion=0",
        "/api/v1/namespaces/default/configmaps/..%2f..%2fsecrets?resourceVersion=0",
        "/api/v1/namespaces/default%2fconfigmaps?resourceVersion=0",
        "//api/v1/configmaps?resourceVersion=0",
        "/api//v1/configmaps?resourceVersion=0",
        "/api/v1/namespaces/default/configmaps/%00?resourceVersion=0",
        "/api/v1/namespaces/default/configmaps%0a?resourceVersion=0",
        "/api/v1/namespaces/./configmaps?resourceVersion=0",
        "/apis/%2e%2e/v1/configmaps?resourceVersion=0",
    ] {
        let answer = node.get(path).await.unwrap();
        assert_eq!(answer.header("x-yurt-served-from"), "cloud", "{path}");
        let asked = cloud.asked();
        let last = asked.last().unwrap();
        assert_eq!(
            last.path,
            path.split('?').next().unwrap(),
            "it is the cloud's to judge"
        );
    }
    assert!(site.metric("yurthub_mirrors", "").await < 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_breaks_for_the_caller_too() {
    let (breaks, told) = tokio::sync::watch::channel(false);
    let (_cloud, site) =
        Cloud::with_hub(move |_| Say::json(200, "a line\n{}\n").breaking(told.clone())).await;
    let node = site.node();
    let mut log = node.watch(&format!("{POD}/log?follow=1")).await.unwrap();
    assert_eq!(log.code, 200);
    breaks.send_replace(true);
    // The line is no event, which is an error of its own; then the break is.
    while !matches!(
        log.next(SOON).await,
        Err(testbed::client::Error::Exchange { .. })
    ) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cloud_sees_the_callers_own_identity() {
    let bed = Bed::start().await;
    bed.site
        .node()
        .get(&format!("{MAPS}/x"))
        .await
        .unwrap()
        .expect(404);
    let admin = bed.site.bearer(testbed::api::ADMIN_TOKEN);
    admin.get(&format!("{MAPS}/y")).await.unwrap().expect(404);
    let asked = bed.api.requests();
    let user = |name: &str| {
        let one = asked.iter().find(|one| one.name == name).unwrap();
        one.user.clone()
    };
    assert_eq!(user("x"), format!("system:node:{NODE}"));
    assert_eq!(user("y"), "admin");
}
