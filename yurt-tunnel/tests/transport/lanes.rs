//! HTTP/2's two connections: bulk moves to the second, and loses nothing on the way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use yurt_core::transport::{Open, Stream, Target};
use yurt_tunnel::link::Config;

use crate::site::{Met, Site, Way, loopback};

const PATIENCE: Duration = Duration::from_secs(60);

/// Passes connections on and counts them.
struct Relay {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

async fn relay(to: SocketAddr) -> Relay {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut passing = JoinSet::new();
        while let Ok((mut here, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            passing.spawn(async move {
                let mut there = TcpStream::connect(to).await.unwrap();
                copy_bidirectional(&mut here, &mut there).await
            });
        }
    });
    Relay {
        address,
        connections,
        tasks,
    }
}

/// Two ends with a relay between them.
async fn meet(site: &Site) -> (Met, Relay) {
    let config = Config::default();
    let listener = Way::H2.transport(site.server(), config.clone());
    let listener = listener.listen(loopback()).await.unwrap();
    let relay = relay(listener.address()).await;
    let edge = Way::H2.transport(site.node("edge-1"), config);
    let (acceptor, opener) = tokio::join!(
        edge.connect(relay.address, "tunnel.test"),
        listener.accept()
    );
    let met = Met {
        opener: opener.unwrap().unwrap(),
        acceptor: acceptor.unwrap(),
        listener,
    };
    (met, relay)
}

async fn stream(met: &Met) -> (Box<dyn Stream>, Box<dyn Stream>) {
    let open = met.opener.open(Open::new(Target::Echo, PATIENCE));
    let accept = async { met.acceptor.accept().await?.accept().await };
    // The listener takes the second connection.
    let (ours, theirs) = tokio::join!(open, accept);
    (ours.unwrap(), theirs.unwrap())
}

fn bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; count];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Sends and ends, and reads to the end; returns whether every byte was right.
async fn talk(stream: &mut Box<dyn Stream>, said: &[u8], expected: &[u8]) -> bool {
    let (mut read, mut write) = tokio::io::split(stream);
    let say = async {
        for piece in said.chunks(100_000) {
            write.write_all(piece).await.unwrap();
        }
        write.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    let (_, all) = tokio::join!(say, read.read_to_end(&mut heard));
    all.unwrap();
    heard == expected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_in_either_direction_or_both_moves_to_a_second_connection() {
    for (up, down) in [
        (24 << 20, 100),
        (100, 24 << 20),
        (24 << 20, 24 << 20),
        (24 << 20, 0),
        (0, 24 << 20),
    ] {
        let site = Site::new();
        let (met, relay) = meet(&site).await;
        let (mut ours, mut theirs) = stream(&met).await;
        let (up, down) = (bytes(up, 1), bytes(down, 2));
        let talking =
            async { tokio::join!(talk(&mut ours, &up, &down), talk(&mut theirs, &down, &up)) };
        let right = tokio::select! {
            right = timeout(PATIENCE, talking) => right.unwrap(),
            _ = met.listener.accept() => panic!("the second connection is no session"),
        };
        assert_eq!(
            right,
            (true, true),
            "{} up and {} down",
            up.len(),
            down.len()
        );
        assert_eq!(relay.connections.load(Ordering::Relaxed), 2);
        drop(relay.tasks);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn little_traffic_needs_one_connection() {
    let site = Site::new();
    let (met, relay) = meet(&site).await;
    for seed in 0..20 {
        let (mut ours, mut theirs) = stream(&met).await;
        let bytes = bytes(10_000, seed);
        let right = tokio::join!(
            talk(&mut ours, &bytes, &bytes),
            talk(&mut theirs, &bytes, &bytes)
        );
        assert_eq!(right, (true, true));
    }
    assert_eq!(relay.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_moved_is_reset_with_its_code() {
    let site = Site::new();
    let (met, _relay) = meet(&site).await;
    let (mut ours, mut theirs) = stream(&met).await;
    let moved = async {
        let sink = async {
            let mut buffer = vec![0; 1 << 20];
            let mut heard = 0;
            while heard < 20 << 20 {
                let count = theirs.read(&mut buffer).await.unwrap();
                assert!(count > 0, "it ended cleanly after {heard} bytes");
                heard += count;
            }
        };
        let bytes = bytes(20 << 20, 3);
        tokio::join!(sink, async { ours.write_all(&bytes).await.unwrap() });
        ours.reset(77);
        let error = theirs.read(&mut [0; 10]).await.unwrap_err();
        yurt_core::transport::Error::of(&error).unwrap().kind()
    };
    let kind = tokio::select! {
        kind = timeout(PATIENCE, moved) => kind.unwrap(),
        _ = met.listener.accept() => panic!("the second connection is no session"),
    };
    assert_eq!(kind, yurt_core::transport::ErrorKind::Reset(77));
}
