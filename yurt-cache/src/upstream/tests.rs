//! Against an API server and a link that breaks, on real sockets.

mod cloud;
mod ending;
mod http1;
mod proxied;
mod refused;
mod relay;
mod strangers;

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::cloud::{ApiServer, Authority};
use self::relay::{Link, Relay};
use super::{Credential, Need, Order, Reach, SendError, Upstream, UpstreamConfig, UpstreamError};
use crate::body::{self, Body};

/// Ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// An upstream at work.
struct Running {
    upstream: Upstream,
    shutdown: CancellationToken,
    task: JoinSet<()>,
}

impl Running {
    fn start(config: UpstreamConfig) -> Self {
        let upstream = Upstream::new(config, Need::Required).unwrap();
        let shutdown = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(upstream.clone().run(shutdown.clone()));
        Self {
            upstream,
            shutdown,
            task,
        }
    }

    async fn reaches(&self, wanted: impl Fn(Reach) -> bool) {
        let mut reach = self.upstream.reach();
        let waited = timeout(PATIENCE, reach.wait_for(|reach| wanted(*reach))).await;
        waited.expect("the verdict comes in time").unwrap();
    }

    async fn online(&self) {
        self.reaches(|reach| reach == Reach::Online).await;
    }

    async fn cut_off(&self) {
        self.reaches(|reach| matches!(reach, Reach::CutOff { .. }))
            .await;
    }

    async fn all_up(&self) {
        let mut reach = self.upstream.reach();
        let all = async {
            while !self.upstream.servers().iter().all(|server| server.is_up) {
                // Not every change of a server changes the verdict.
                let _ = timeout(Duration::from_millis(10), reach.changed()).await;
            }
        };
        timeout(PATIENCE, all).await.expect("every server comes up");
    }

    /// Breaks every connection and waits for a new one.
    async fn redial(&self, relay: &Relay) {
        relay.set(Link::Refused);
        self.cut_off().await;
        relay.set(Link::Whole);
        self.online().await;
    }

    async fn get(&self, path: &str) -> Result<String, SendError> {
        let response = self.upstream.send(Credential::Node, get(path)).await?;
        Ok(text(response.into_body()).await)
    }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(body::empty()).unwrap()
}

async fn text(body: Body) -> String {
    let bytes = body.collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Everything short, for the node's certificate of `authority`.
fn config(authority: &Authority, servers: &[std::net::SocketAddr]) -> UpstreamConfig {
    if !authority.path("node.pem").exists() {
        authority.issue("node", "system:node:n1");
    }
    let url = |addr: &std::net::SocketAddr| format!("https://{addr}").parse().unwrap();
    UpstreamConfig {
        servers: servers.iter().map(url).collect(),
        ca_file: authority.path("ca.pem"),
        client_certificate: Some(authority.path("node.pem")),
        client_key: Some(authority.path("node.key")),
        keep_alive_interval: Duration::from_millis(300),
        keep_alive_timeout: Duration::from_millis(200),
        probe_interval: Duration::from_millis(50),
        ..UpstreamConfig::default()
    }
}

#[tokio::test]
async fn requests_share_one_connection_per_credential() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    let running = Running::start(config(&authority, &[server.addr]));
    for _ in 0..20 {
        assert_eq!(running.get("/whoami").await.unwrap(), "system:node:n1");
    }
    assert_eq!(server.seen.connections.load(Ordering::Relaxed), 1);
    for _ in 0..20 {
        let response = running
            .upstream
            .send(Credential::Bearer, get("/whoami"))
            .await;
        assert_eq!(text(response.unwrap().into_body()).await, "nobody");
    }
    assert_eq!(server.seen.connections.load(Ordering::Relaxed), 2);
    let report = running.upstream.servers();
    assert_eq!((report[0].requests, report[0].failures), (40, 0));
    assert!(report[0].is_up);
}

#[tokio::test]
async fn a_server_that_ends_anonymous_connections_is_not_asked_again_and_again() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    // As kube-apiserver: the connection of an anonymous request is ended in order.
    server.seen.ends_anonymous.store(true, Ordering::Relaxed);
    let config = UpstreamConfig {
        client_certificate: None,
        client_key: None,
        ..config(&authority, &[server.addr])
    };
    let running = Running::start(config);
    running.online().await;
    let closing = server.seen.connections.load(Ordering::Relaxed);
    // Ten pauses between probes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = server.seen.connections.load(Ordering::Relaxed) - closing;
    assert!(asked <= 11, "{asked} connections in ten probe intervals");
    running.online().await;
}

#[tokio::test]
async fn three_hundred_watches_take_several_connections_and_block_nobody() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    let running = Running::start(config(&authority, &[server.addr]));
    let mut opening = JoinSet::new();
    for _ in 0..300 {
        let upstream = running.upstream.clone();
        opening.spawn(async move {
            let response = upstream.send(Credential::Node, get("/watch")).await;
            let mut body = response.unwrap().into_body();
            let event = body.frame().await.unwrap().unwrap();
            assert_eq!(event.into_data().unwrap(), "event\n");
            body
        });
    }
    let watches = timeout(PATIENCE, opening.join_all()).await.unwrap();
    assert_eq!(watches.len(), 300);
    assert_eq!(server.seen.connections.load(Ordering::Relaxed), 4);
    running.get("/whoami").await.unwrap();

    drop(watches);
    // What the watches held is free again: no further connection.
    for _ in 0..100 {
        running.get("/whoami").await.unwrap();
    }
    assert_eq!(server.seen.connections.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_peer_that_allows_fewer_streams_gets_more_connections() {
    let authority = Authority::new();
    let server = ApiServer::with_streams(&authority, 10).await;
    let running = Running::start(config(&authority, &[server.addr]));
    running.get("/whoami").await.unwrap();
    let mut watches = Vec::new();
    for _ in 0..25 {
        let sent = running.upstream.send(Credential::Node, get("/watch"));
        watches.push(timeout(PATIENCE, sent).await.unwrap().unwrap());
    }
    assert_eq!(server.seen.connections.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_refused_server_is_cut_off_within_a_second_and_back_soon_after() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    let relay = Relay::to(server.addr).await;
    let running = Running::start(config(&authority, &[relay.addr]));
    running.online().await;

    relay.set(Link::Refused);
    timeout(Duration::from_secs(1), running.cut_off())
        .await
        .unwrap();
    let begun = Instant::now();
    let refused = running.get("/whoami").await;
    assert!(matches!(refused, Err(SendError::CutOff)), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_millis(50));
    assert!(!running.upstream.servers()[0].is_up);

    relay.set(Link::Whole);
    timeout(Duration::from_secs(1), running.online())
        .await
        .unwrap();
    assert_eq!(running.get("/whoami").await.unwrap(), "system:node:n1");
}

#[tokio::test]
async fn a_silent_cut_ends_what_is_in_flight_and_is_noticed() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    let relay = Relay::to(server.addr).await;
    let running = Running::start(config(&authority, &[relay.addr]));
    let watch = running.upstream.send(Credential::Node, get("/watch")).await;
    let mut watch = watch.unwrap().into_body();
    watch.frame().await.unwrap().unwrap();
    let upstream = running.upstream.clone();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { upstream.send(Credential::Node, get("/silence")).await });

    relay.set(Link::Silent);
    let begun = Instant::now();
    // Interval, timeout, and what it takes to confirm.
    let limit = Duration::from_millis(300 + 200 + 500 + 200);
    let broken = timeout(limit, watch.frame()).await.unwrap();
    assert!(matches!(broken, Some(Err(_))), "{broken:?}");
    timeout(limit - begun.elapsed(), running.cut_off())
        .await
        .unwrap();
    let answer = timeout(limit, waiting.join_next()).await.unwrap();
    assert!(answer.unwrap().unwrap().is_err());

    relay.set(Link::Whole);
    timeout(Duration::from_secs(1), running.online())
        .await
        .unwrap();
    assert_eq!(running.get("/whoami").await.unwrap(), "system:node:n1");
}

#[tokio::test]
async fn a_silent_cut_is_noticed_while_nobody_asks() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    let relay = Relay::to(server.addr).await;
    let running = Running::start(config(&authority, &[relay.addr]));
    running.online().await;
    relay.set(Link::Silent);
    let limit = Duration::from_millis(300 + 200 + 500 + 200);
    timeout(limit, running.cut_off()).await.unwrap();
}

#[tokio::test]
async fn at_the_start_a_request_waits_for_the_first_verdict() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    let relay = Relay::to(server.addr).await;
    relay.set(Link::Silent);
    let short = UpstreamConfig {
        connect_timeout: Duration::from_millis(200),
        ..config(&authority, &[relay.addr])
    };
    let running = Running::start(short);
    assert_eq!(*running.upstream.reach().borrow(), Reach::Unknown);
    let refused = timeout(PATIENCE, running.get("/whoami")).await.unwrap();
    assert!(matches!(refused, Err(SendError::CutOff)), "{refused:?}");
}

#[tokio::test]
async fn a_server_that_is_not_ready_is_down_and_one_that_will_not_say_is_up() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    server.seen.readyz.store(500, Ordering::Relaxed);
    let running = Running::start(config(&authority, &[server.addr]));
    running.cut_off().await;
    server.seen.readyz.store(403, Ordering::Relaxed);
    running.online().await;
}

#[tokio::test]
async fn a_read_goes_to_the_next_server_when_its_connection_breaks() {
    let authority = Authority::new();
    let servers = [
        ApiServer::start(&authority).await,
        ApiServer::start(&authority).await,
    ];
    let relay = Relay::to(servers[0].addr).await;
    let priority = UpstreamConfig {
        order: Order::Priority,
        ..config(&authority, &[relay.addr, servers[1].addr])
    };
    let running = Running::start(priority);
    running.all_up().await;

    relay.set(Link::Silent);
    assert_eq!(running.get("/whoami").await.unwrap(), "system:node:n1");
    let report = running.upstream.servers();
    assert_eq!((report[0].requests, report[0].failures), (1, 1));
    assert_eq!((report[1].requests, report[1].failures), (1, 0));

    relay.set(Link::Whole);
    running.all_up().await;
    running.get("/whoami").await.unwrap();
    assert_eq!(
        running.upstream.servers()[0].requests,
        2,
        "the first is back"
    );
}

#[tokio::test]
async fn a_write_is_never_sent_twice() {
    let authority = Authority::new();
    let servers = [
        ApiServer::start(&authority).await,
        ApiServer::start(&authority).await,
    ];
    let relay = Relay::to(servers[0].addr).await;
    let priority = UpstreamConfig {
        order: Order::Priority,
        ..config(&authority, &[relay.addr, servers[1].addr])
    };
    let running = Running::start(priority);
    running.all_up().await;

    relay.set(Link::Silent);
    let write = Request::post("/echo").body(body::full("once")).unwrap();
    let broken = running.upstream.send(Credential::Node, write).await;
    assert!(
        matches!(broken, Err(SendError::Connection { .. })),
        "{broken:?}"
    );
    assert_eq!(servers[1].seen.requests.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_write_that_never_left_goes_to_the_next_server() {
    let authority = Authority::new();
    let servers = [
        ApiServer::start(&authority).await,
        ApiServer::start(&authority).await,
    ];
    let relay = Relay::to(servers[0].addr).await;
    let priority = UpstreamConfig {
        order: Order::Priority,
        // Nobody notices the cut before the caller does.
        keep_alive_interval: PATIENCE,
        connect_timeout: Duration::from_millis(200),
        ..config(&authority, &[relay.addr, servers[1].addr])
    };
    let running = Running::start(priority);
    running.all_up().await;

    relay.set(Link::Silent);
    let write = Request::post("/echo").body(body::full("once")).unwrap();
    let sent = running
        .upstream
        .send(Credential::Bearer, write)
        .await
        .unwrap();
    assert_eq!(text(sent.into_body()).await, "once");
    assert_eq!(servers[1].seen.requests.load(Ordering::Relaxed), 1);
    assert!(!running.upstream.servers()[0].is_up, "the dial failed");
}

#[tokio::test]
async fn several_servers_take_turns() {
    let authority = Authority::new();
    let servers = [
        ApiServer::start(&authority).await,
        ApiServer::start(&authority).await,
    ];
    let running = Running::start(config(&authority, &[servers[0].addr, servers[1].addr]));
    running.all_up().await;
    for _ in 0..10 {
        running.get("/whoami").await.unwrap();
    }
    for server in &servers {
        assert_eq!(server.seen.requests.load(Ordering::Relaxed), 5);
    }
}

#[tokio::test]
async fn a_rotated_certificate_is_used_at_the_next_dial_and_a_broken_one_is_not() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    let relay = Relay::to(server.addr).await;
    let running = Running::start(config(&authority, &[relay.addr]));
    running.get("/whoami").await.unwrap();

    authority.issue("node", "system:node:n2");
    running.redial(&relay).await;
    assert_eq!(running.get("/whoami").await.unwrap(), "system:node:n2");

    authority.write("node.pem", "half of a fi");
    running.redial(&relay).await;
    assert_eq!(running.get("/whoami").await.unwrap(), "system:node:n2");
}

#[tokio::test]
async fn a_goaway_costs_no_write_and_no_watch() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    let running = Running::start(config(&authority, &[server.addr]));
    let watch = running.upstream.send(Credential::Node, get("/watch")).await;
    let mut watch = watch.unwrap().into_body();
    watch.frame().await.unwrap().unwrap();

    server.seen.goaway.notify_waiters();
    while server.seen.connections.load(Ordering::Relaxed) < 2 {
        let write = Request::post("/echo").body(body::full("once")).unwrap();
        let sent = running
            .upstream
            .send(Credential::Node, write)
            .await
            .unwrap();
        assert_eq!(text(sent.into_body()).await, "once");
    }
    tokio::select! {
        biased;
        ended = watch.frame() => panic!("the watch ended: {ended:?}"),
        got = running.get("/whoami") => assert_eq!(got.unwrap(), "system:node:n1"),
    }
}

#[tokio::test]
async fn the_server_is_named_as_it_is_dialled() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    let running = Running::start(config(&authority, &[server.addr]));
    let mut request = get("/host");
    let headers = request.headers_mut();
    headers.insert("host", "hub.example:10268".parse().unwrap());
    let response = running.upstream.send(Credential::Node, request).await;
    let named = text(response.unwrap().into_body()).await;
    assert_eq!(named, format!("{} and no header", server.addr));

    let (response, stream) = running
        .upstream
        .upgrade(Credential::Node, get("/host"))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(stream.is_none());
    let named = text(response.into_body()).await;
    assert_eq!(named, format!("nobody and {}", server.addr));
}

#[tokio::test]
async fn a_body_streams_up_while_the_answer_streams_down() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    let running = Running::start(config(&authority, &[server.addr]));
    let (mut sender, channel) = http_body_util::channel::Channel::<_, body::BoxError>::new(1);
    let request = Request::builder()
        .method(Method::POST)
        .uri("/echo")
        .body(channel.boxed_unsync())
        .unwrap();
    let response = running
        .upstream
        .send(Credential::Node, request)
        .await
        .unwrap();
    let mut echoed = response.into_body();
    for part in ["one", "two"] {
        sender.send_data(part.into()).await.unwrap();
        let frame = timeout(PATIENCE, echoed.frame()).await.unwrap();
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), part);
    }
}

#[tokio::test]
async fn an_upgraded_stream_keeps_half_close() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    let running = Running::start(config(&authority, &[server.addr]));
    let request = Request::post("/upgrade")
        .header("connection", "upgrade")
        .header("upgrade", "echo")
        .body(body::empty())
        .unwrap();
    let (response, stream) = running
        .upstream
        .upgrade(Credential::Node, request)
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = TokioIo::new(stream.unwrap());
    stream.write_all(b"said before the end").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    // The server speaks only after it has heard our end.
    timeout(PATIENCE, stream.read_to_string(&mut heard))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(heard, "said before the end");
}

#[tokio::test]
async fn a_server_that_the_ca_did_not_sign_is_never_up() {
    let authority = Authority::new();
    let server = ApiServer::start(&Authority::new()).await;
    let running = Running::start(config(&authority, &[server.addr]));
    running.cut_off().await;
    assert_eq!(server.seen.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn nothing_is_left_after_shutdown() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority).await;
    let mut running = Running::start(config(&authority, &[server.addr]));
    let watch = running.upstream.send(Credential::Node, get("/watch")).await;
    let mut watch = watch.unwrap().into_body();
    watch.frame().await.unwrap().unwrap();
    running.shutdown.cancel();
    timeout(PATIENCE, running.task.join_next()).await.unwrap();
    assert!(matches!(watch.frame().await, Some(Err(_))));
    assert_eq!(running.upstream.0.tasks.len(), 0);
    assert!(running.get("/whoami").await.is_err());
}

#[test]
fn a_wrong_configuration_is_refused_at_once() {
    let authority = Authority::new();
    let addr = "127.0.0.1:1".parse().unwrap();
    let right = config(&authority, &[addr]);
    let refused =
        |config| Upstream::new(config, Need::Required).expect_err("the configuration is wrong");
    let none = UpstreamConfig {
        servers: Vec::new(),
        ..right.clone()
    };
    assert!(matches!(refused(none), UpstreamError::NoServers));
    let plain = UpstreamConfig {
        servers: vec!["http://10.0.0.1:80".parse().unwrap()],
        ..right.clone()
    };
    assert!(matches!(refused(plain), UpstreamError::ServerUrl { .. }));
    let key = UpstreamConfig {
        client_certificate: None,
        ..right.clone()
    };
    assert!(matches!(refused(key), UpstreamError::KeyWithoutCertificate));
    let absent = UpstreamConfig {
        ca_file: authority.path("absent"),
        ..right
    };
    assert!(matches!(refused(absent), UpstreamError::LoadFiles(_)));
}
