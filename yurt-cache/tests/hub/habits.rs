//! What clients and servers are used to: a request that works at kube-apiserver works at the hub.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use testbed::api::{ApiConfig, User};
use testbed::client::Client;
use testbed::pki::Pki;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::cloud::{Cloud, Say, list};
use super::site::{Bed, SOON};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn bed() -> Bed {
    let config = ApiConfig {
        tokens: BTreeMap::from([("reader-token".to_owned(), User::new("reader", &[]))]),
        ..ApiConfig::default()
    };
    Bed::with(config, |site| site).await
}

/// Says something raw, without a certificate or with one, and returns the head of the answer.
async fn head(bed: &Bed, identity: Option<(String, String)>, request: &str) -> String {
    let mut stream = bed.site.raw(identity).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(SOON, reading).await.unwrap();
    String::from_utf8(head).unwrap().to_lowercase()
}

// === Certificates ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_authority_is_no_identity_and_a_token_beside_it_counts() {
    let bed = bed().await;
    let other = || Some(Pki::new().client("system:node:n1", &["system:nodes"]));
    for (token, expected) in [
        ("", "http/1.1 401"),
        ("Authorization: Bearer garbage\r\n", "http/1.1 401"),
        ("Authorization: Bearer reader-token\r\n", "http/1.1 200"),
    ] {
        let request = format!("GET {MAPS} HTTP/1.1\r\nHost: hub\r\n{token}\r\n");
        let head = head(&bed, other(), &request).await;
        assert!(head.starts_with(expected), "{token}: {head}");
    }
}

// === Heads ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_as_long_as_at_kube_apiserver() {
    let bed = bed().await;
    let stream = bed.site.raw_node().await;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { connection.await.map_err(drop) });
    let stream = TokioIo::new(bed.site.raw_http2_node().await);
    let handshake = http2::handshake(TokioExecutor::new(), stream);
    let (streams, connection) = handshake.await.unwrap();
    tasks.spawn(async move { connection.await.map_err(drop) });
    let long = "a".repeat(53_000);
    let selector = format!("{MAPS}?labelSelector=app+in+({long})");
    let with = |headers: &[(String, String)]| {
        let mut request = Request::get(MAPS);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request
    };
    let lines: Vec<_> = (0..5_000)
        .map(|number| (format!("x-line-{number}"), "y".to_owned()))
        .collect();
    let header = |length: usize| vec![("x-long".to_owned(), "y".repeat(length))];
    let requests = || {
        [
            ("a selector of 53 KB", Request::get(&selector)),
            ("150 lines", with(&lines[..150])),
            ("5,000 lines", with(&lines)),
            ("a header of 20 KiB", with(&header(20 << 10))),
            ("a header of 70 KiB", with(&header(70 << 10))),
            ("a header of 900 KiB", with(&header(900 << 10))),
        ]
    };
    for (what, request) in requests() {
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answer = streams.clone().send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{what} over HTTP/2");
    }
    for (what, request) in requests() {
        let request = request
            .header("host", "hub")
            .body(Empty::<Bytes>::new())
            .unwrap();
        if sender.ready().await.is_err() {
            // The hub has closed the connection of a large head.
            let stream = bed.site.raw_node().await;
            let (anew, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tasks.spawn(async move { connection.await.map_err(drop) });
            sender = anew;
        }
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{what} over HTTP/1.1");
        answer.into_body().collect().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_beyond_the_limit_is_refused_and_large_ones_have_a_number_of_places() {
    let bed = bed().await;
    let long = |length: usize| {
        let value = "y".repeat(length);
        format!("GET {MAPS} HTTP/1.1\r\nHost: hub\r\nX-Long: {value}\r\n")
    };
    let mut held = Vec::new();
    for _ in 0..16 {
        // The end of the head is kept back.
        let mut stream = bed.site.raw(None).await.unwrap();
        stream.write_all(long(100 << 10).as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        held.push(stream);
    }
    super::site::eventually("no more of them are taken", async || {
        let mut stream = bed.site.raw_node().await;
        let said = format!("{}\r\n", long(100 << 10));
        let _broken = stream.write_all(said.as_bytes()).await;
        let mut answer = Vec::new();
        let _ended = stream.read_to_end(&mut answer).await;
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 429")
    })
    .await;
    // What is no large one does not notice.
    bed.site.node().get(MAPS).await.unwrap().expect(200);
    drop(held);
    super::site::eventually("the places are free again", async || {
        let mut stream = bed.site.raw_node().await;
        let said = format!("{}Connection: close\r\n\r\n", long(100 << 10));
        let _broken = stream.write_all(said.as_bytes()).await;
        let mut answer = Vec::new();
        let _ended = stream.read_to_end(&mut answer).await;
        answer.starts_with(b"HTTP/1.1 200")
    })
    .await;
}

// === Websockets ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_among_the_subprotocols_of_a_websocket_is_taken() {
    let bed = bed().await;
    let pod = serde_json::json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pods = "/api/v1/namespaces/default/pods";
    bed.cloud().post(pods, &pod).await.unwrap().expect(201);
    // "reader-token" and "garbage".
    for (token, expected) in [("cmVhZGVyLXRva2Vu", "101"), ("Z2FyYmFnZQ", "401")] {
        let request = format!(
            "GET {pods}/p/exec?stdin=1 HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: \
             base64url.bearer.authorization.k8s.io.{token}, v5.channel.k8s.io\r\n\r\n"
        );
        let head = head(&bed, None, &request).await;
        assert!(head.starts_with(&format!("http/1.1 {expected}")), "{head}");
        let chosen = head.contains("sec-websocket-protocol: v5.channel.k8s.io\r\n");
        assert_eq!(chosen, expected == "101", "{head}");
    }
}

// === Without credentials ===

const VERSION: &str = r#"{"major":"1","minor":"34"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_cloud_tells_everybody_the_hub_tells_everybody() {
    let pki = std::sync::Arc::new(Pki::new());
    let cloud = Cloud::start(&pki, |asked| {
        match (
            asked.path.as_str(),
            asked.headers.contains_key("authorization"),
        ) {
            ("/version", false) => Say::json(200, VERSION),
            ("/livez", false) => Say::json(200, "ok"),
            ("/healthz", false) => Say::json(403, r#"{"kind":"Status","code":403}"#),
            _ => Say::json(200, list(5, &[])),
        }
    })
    .await;
    let link = testbed::link::Link::start(cloud.addr).unwrap();
    let mut site = super::site::Site::new(pki, vec![link.addr()]);
    site.start();
    site.sees_the_cloud(true).await;
    let nobody = Client::anonymous(&site.endpoint()).unwrap();
    for (path, code) in [
        ("/version", 200),
        ("/livez", 200),
        ("/readyz", 200),
        ("/healthz", 403),
        ("/api", 401),
        (MAPS, 401),
        ("/livez/ping", 401),
    ] {
        assert_eq!(nobody.get(path).await.unwrap().code, code, "{path}");
    }
    let foreign = site.certified("admin", &["system:masters"]);
    assert_eq!(foreign.get("/version").await.unwrap().body, VERSION);
    for _ in 0..20 {
        nobody.get("/livez").await.unwrap().expect(200);
    }
    assert_eq!(cloud.count("/livez", false), 1, "one answer serves many");

    link.cut(testbed::link::Cut::Refuse).await;
    site.sees_the_cloud(false).await;
    for (path, code) in [
        ("/version", 200),
        ("/livez", 200),
        ("/readyz", 503),
        ("/healthz", 403),
        ("/api", 401),
    ] {
        let answer = nobody.get(path).await.unwrap();
        assert_eq!(answer.code, code, "{path} while cut off");
    }
}
