//! Callers whom the server refuses, on a long way: it ends their connections, and nobody else notices.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::time::timeout;

use super::cloud::{ApiServer, Authority};
use super::relay::Relay;
use super::{Credential, Reach, Running, config, get};
use crate::upstream::UpstreamConfig;

/// A server that ends the connections of those it refuses, as kube-apiserver does, 440 ms of round trip away.
async fn far_away(authority: &Authority) -> (ApiServer, Relay, Running) {
    let server = ApiServer::start(authority).await;
    server.seen.ends_anonymous.store(true, Ordering::Relaxed);
    let relay = Relay::slow(server.addr, Duration::from_millis(220)).await;
    let usual = UpstreamConfig::default();
    let running = Running::start(UpstreamConfig {
        keep_alive_interval: usual.keep_alive_interval,
        keep_alive_timeout: usual.keep_alive_timeout,
        ..config(authority, &[relay.addr])
    });
    running.online().await;
    (server, relay, running)
}

#[tokio::test]
async fn a_stranger_who_is_refused_ends_nobody_elses_watch_and_cuts_nobody_off() {
    let authority = Authority::new();
    let (server, _relay, running) = far_away(&authority).await;
    let mut reach = running.upstream.reach();
    reach.mark_unchanged();
    let watch = running
        .upstream
        .send(Credential::Bearer, get("/watch"))
        .await;
    let mut watch = watch.unwrap().into_body();
    watch.frame().await.unwrap().unwrap();
    let before = server.seen.connections.load(Ordering::Relaxed);
    for _ in 0..4 {
        let refused = running
            .upstream
            .send(Credential::Stranger, get("/whoami"))
            .await;
        refused.unwrap();
    }
    // What follows an end in order follows after a pause of 50 ms and a dial of some round trips.
    let more = timeout(Duration::from_secs(2), watch.frame()).await;
    assert!(more.is_err(), "the watch goes on");
    assert!(!reach.has_changed().unwrap(), "nobody was cut off");
    let dialled = server.seen.connections.load(Ordering::Relaxed) - before;
    assert!(dialled <= 5, "{dialled} connections for four refusals");
}

#[tokio::test]
async fn a_connection_that_ends_in_order_on_a_long_way_is_no_cut() {
    let authority = Authority::new();
    let (server, _relay, running) = far_away(&authority).await;
    let mut reach = running.upstream.reach();
    reach.mark_unchanged();
    let before = server.seen.connections.load(Ordering::Relaxed);
    server.seen.goaway.notify_waiters();
    let another = async {
        while server.seen.connections.load(Ordering::Relaxed) == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(super::PATIENCE, another)
        .await
        .expect("the pulse is felt again");
    assert_eq!(running.get("/whoami").await.unwrap(), "system:node:n1");
    assert!(!reach.has_changed().unwrap(), "nobody was cut off");
    assert_eq!(*reach.borrow(), Reach::Online);
}
