//! A thousand streams that nobody reads, on one process with others: they cost what they may, and nobody waits for them.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use yurt_core::transport::{Acceptor, Open, Opener, Stream, Target, Transport};
use yurt_tunnel::link::{Buffers, Config};

use crate::site::{Site, Way, loopback};

const PATIENCE: Duration = Duration::from_secs(120);

/// As many as a session has.
const UNREAD: u64 = 1_024;

/// What each of them may cost, and what all may beyond.
const STREAM: u64 = 96 << 10;
const BUDGET: u64 = 16 << 20;

/// What is read of each before its reader stops: enough for its window to grow.
const READ: usize = 128 << 10;

async fn pair(opener: &dyn Opener, acceptor: &dyn Acceptor) -> (Box<dyn Stream>, Box<dyn Stream>) {
    let open = opener.open(Open::new(Target::Echo, PATIENCE));
    let accept = async { acceptor.accept().await?.accept().await };
    let (ours, theirs) = tokio::join!(open, accept);
    (ours.unwrap(), theirs.unwrap())
}

/// The memory of this process, which is a test's own.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kibibytes.parse::<u64>().unwrap() << 10
}

async fn unread(way: Way) {
    let site = Site::new();
    let config = Config {
        buffers: Buffers::new(BUDGET),
        ..Config::default()
    };
    let buffers = config.buffers.clone();
    let cloud = way.transport(site.server(), config);
    let listener = cloud.listen(loopback()).await.unwrap();
    let connect = async |name| {
        // Each in a process of its own, as far as the budget goes.
        let edge = way.transport(site.node(name), Config::default());
        let connected = edge.connect(listener.address(), "tunnel.test");
        let (acceptor, opener) = tokio::join!(connected, listener.accept());
        (acceptor.unwrap(), opener.unwrap().unwrap())
    };
    let (greedy, quiet) = (connect("edge-1").await, connect("edge-2").await);
    let before = resident();
    let (mut writers, mut unread) = (JoinSet::new(), Vec::new());
    for _ in 0..UNREAD {
        let (mut ours, mut theirs) = pair(&*greedy.1, &*greedy.0).await;
        writers.spawn(async move { while theirs.write_all(&[7; 32 << 10]).await.is_ok() {} });
        ours.read_exact(&mut vec![0; READ]).await.unwrap();
        unread.push(ours);
    }
    let full = async {
        let mut sent = 0;
        while sent != greedy.0.stats().sent {
            sent = greedy.0.stats().sent;
            sleep(Duration::from_millis(500)).await;
        }
    };
    timeout(PATIENCE, full).await.expect("the writers stop");
    let held = greedy.0.stats().sent - greedy.1.stats().received;
    assert!(buffers.used() <= BUDGET / 2, "{way:?}: {}", buffers.used());
    assert!(held >= UNREAD * (32 << 10), "{way:?}: {held} bytes wait");
    assert!(held <= UNREAD * STREAM + BUDGET, "{way:?}: {held} bytes");
    let cost = resident() - before;
    assert!(cost <= UNREAD * STREAM + BUDGET, "{way:?}: {cost} bytes");

    // Another session has its round trips, and room for windows of its own.
    let (mut ours, mut theirs) = pair(&*quiet.1, &*quiet.0).await;
    let mut took = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        ours.write_all(&[1; 64]).await.unwrap();
        theirs.read_exact(&mut [0; 64]).await.unwrap();
        theirs.write_all(&[2; 64]).await.unwrap();
        ours.read_exact(&mut [0; 64]).await.unwrap();
        took.push(began.elapsed());
    }
    took.sort();
    assert!(took[197] < Duration::from_millis(50), "{way:?}: {took:?}");
    let used = buffers.used();
    let say = async {
        theirs.write_all(&vec![3; 32 << 20]).await.unwrap();
        theirs.shutdown().await.unwrap();
    };
    let mut most = 0;
    let hear = async {
        let mut piece = vec![0; 1 << 16];
        while ours.read(&mut piece).await.unwrap() > 0 {
            most = most.max(buffers.used());
        }
    };
    timeout(PATIENCE, async { tokio::join!(say, hear) })
        .await
        .expect("a copy goes through");
    assert!(most > used, "{way:?}: its window has grown");
    // And of the unread every one goes on when it is read.
    let mut piece = vec![0; 200 << 10];
    for stream in unread.iter_mut().step_by(16) {
        let read = stream.read_exact(&mut piece);
        timeout(PATIENCE, read).await.expect("it goes on").unwrap();
    }
    drop((unread, greedy, quiet, ours, theirs));
    writers.shutdown().await;
    let free = async {
        while buffers.used() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, free).await.expect("all is given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_unread_streams_over_quic_cost_what_they_may_and_nobody_waits_for_them() {
    unread(Way::Quic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_unread_streams_over_http2_cost_what_they_may_and_nobody_waits_for_them() {
    unread(Way::H2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_has_used_up_all_credit_still_answers() {
    for way in [Way::Quic, Way::H2] {
        let site = Site::new();
        let config = Config {
            streams: 32,
            buffers: Buffers::new(0),
            ..Config::default()
        };
        let all = config.streams * config.window;
        let met = site.meet(way, config.clone()).await;
        let (mut writers, mut unread) = (JoinSet::new(), Vec::new());
        for _ in 0..config.streams {
            let (ours, mut theirs) = pair(&*met.opener, &*met.acceptor).await;
            writers.spawn(async move { while theirs.write_all(&[7; 4 << 10]).await.is_ok() {} });
            unread.push(ours);
        }
        let full = async {
            while met.acceptor.stats().sent < all {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, full).await.expect("all credit is used");
        let asked = timeout(Duration::from_secs(10), met.opener.ping()).await;
        asked.expect("a question is answered").unwrap();
        let mut piece = [0; 64 << 10];
        unread[0].read_exact(&mut piece).await.unwrap();
        let more = timeout(Duration::from_secs(10), unread[0].read_exact(&mut piece)).await;
        more.expect("who reads gets more").unwrap();
    }
}
