//! HTTP/2's two connections: bulk moves to the second, and loses nothing on the way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use yurt_core::transport::{Open, Priority, Stream, Target};
use yurt_tunnel::link::Config;

use crate::site::{Met, Site, Way, loopback};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a relay does with a connection's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passage {
    Open,
    /// They wait.
    Held,
    /// Both ends are closed.
    Cut,
}

/// Passes connections on, counts them, and stands in their way.
struct Relay {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<watch::Sender<Passage>>>>,
    /// Connections that are passed on now.
    open: Arc<AtomicUsize>,
    /// How many connections from the next on are closed at once.
    refuse: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Relay {
    fn count(&self) -> usize {
        self.connections.lock().len()
    }

    fn set(&self, connection: usize, passage: Passage) {
        self.connections.lock()[connection].send_replace(passage);
    }
}

async fn relay(to: SocketAddr) -> Relay {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let mut relay = Relay {
        address: listener.local_addr().unwrap(),
        connections: Arc::default(),
        open: Arc::default(),
        refuse: Arc::default(),
        tasks: JoinSet::new(),
    };
    let (connections, open) = (relay.connections.clone(), relay.open.clone());
    let refuse = relay.refuse.clone();
    relay.tasks.spawn(async move {
        let mut passing = JoinSet::new();
        while let Ok((here, _)) = listener.accept().await {
            let refused = refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
            let (passage, said) = watch::channel(Passage::Open);
            connections.lock().push(passage);
            if refused.is_ok() {
                continue;
            }
            let open = open.clone();
            open.fetch_add(1, Ordering::SeqCst);
            passing.spawn(async move {
                let there = TcpStream::connect(to).await.unwrap();
                for socket in [&here, &there] {
                    socket.set_nodelay(true).unwrap();
                }
                pass(here, there, said).await;
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    relay
}

async fn pass(here: TcpStream, there: TcpStream, said: watch::Receiver<Passage>) {
    let (mut from_here, mut to_here) = here.into_split();
    let (mut from_there, mut to_there) = there.into_split();
    let mut cut = said.clone();
    tokio::select! {
        _ = cut.wait_for(|passage| *passage == Passage::Cut) => {}
        _ = async {
            tokio::join!(
                pass_one_way(&mut from_here, &mut to_there, said.clone()),
                pass_one_way(&mut from_there, &mut to_here, said),
            )
        } => {}
    }
}

async fn pass_one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut said: watch::Receiver<Passage>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let _ = said.wait_for(|passage| *passage == Passage::Open).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Two ends with a relay between them.
async fn meet(site: &Site) -> (Met, Relay) {
    meet_with(site, Config::default()).await
}

async fn meet_with(site: &Site, config: Config) -> (Met, Relay) {
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
        assert_eq!(relay.count(), 2);
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
    assert_eq!(relay.count(), 1);
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

/// A link that notices soon what is silent.
fn quick() -> Config {
    Config {
        keep_alive: Duration::from_millis(100),
        liveness: Duration::from_secs(4),
        ..Config::default()
    }
}

/// Runs a test beside a listener that takes second connections.
async fn listening<T>(met: &Met, test: impl Future<Output = T>) -> T {
    tokio::select! {
        result = timeout(PATIENCE, test) => result.unwrap(),
        _ = met.listener.accept() => panic!("the second connection is no session"),
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "never: {what}");
}

/// Sends up until there have been so many connections and the stream has moved to the last, and leaves it open.
async fn fill(
    relay: &Relay,
    connections: usize,
    ours: &mut Box<dyn Stream>,
    theirs: &mut Box<dyn Stream>,
) {
    let mut seed = 0;
    while relay.count() < connections || relay.open.load(Ordering::SeqCst) < 2 {
        push(ours, theirs, seed).await;
        seed += 1;
    }
    // The connection is there, but perhaps not known yet.
    for seed in [seed, seed + 1] {
        push(ours, theirs, seed).await;
    }
}

async fn push(ours: &mut Box<dyn Stream>, theirs: &mut Box<dyn Stream>, seed: u64) {
    let sent = bytes(12 << 20, seed);
    let mut came = vec![0; sent.len()];
    let write = async { ours.write_all(&sent).await.unwrap() };
    let read = async { theirs.read_exact(&mut came).await.unwrap() };
    tokio::join!(write, read);
    assert!(came == sent, "bytes that were moved");
}

/// Shows that a stream carries bytes both ways.
async fn carries(ours: &mut Box<dyn Stream>, theirs: &mut Box<dyn Stream>) {
    for (from, to) in [(0, 1), (1, 0)] {
        let ends: [&mut Box<dyn Stream>; 2] = [ours, theirs];
        let [from, to] = if from < to {
            ends
        } else {
            let [a, b] = ends;
            [b, a]
        };
        from.write_all(b"still here").await.unwrap();
        from.flush().await.unwrap();
        let mut came = [0; 10];
        to.read_exact(&mut came).await.unwrap();
        assert_eq!(&came, b"still here");
    }
}

async fn fails(stream: &mut Box<dyn Stream>) {
    let mut buffer = [0; 1000];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => panic!("it ended cleanly"),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_the_second_connection_takes_its_streams_only() {
    for passage in [Passage::Cut, Passage::Held] {
        let site = Site::new();
        let (met, relay) = meet_with(&site, quick()).await;
        let test = async {
            let (mut quiet, mut quiet_there) = stream(&met).await;
            let (mut ours, mut theirs) = stream(&met).await;
            fill(&relay, 2, &mut ours, &mut theirs).await;
            relay.set(1, passage);
            // Both ends of what was on it learn of it, though neither writes.
            tokio::join!(fails(&mut ours), fails(&mut theirs));
            carries(&mut quiet, &mut quiet_there).await;
            // The next copy gets a connection again.
            let (mut ours, mut theirs) = stream(&met).await;
            fill(&relay, 3, &mut ours, &mut theirs).await;
            carries(&mut ours, &mut theirs).await;
            carries(&mut quiet, &mut quiet_there).await;
        };
        listening(&met, test).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_connection_without_streams_is_closed_and_asked_for_again() {
    let site = Site::new();
    let (met, relay) = meet_with(&site, quick()).await;
    let test = async {
        for connections in [2, 3] {
            let (mut ours, mut theirs) = stream(&met).await;
            fill(&relay, connections, &mut ours, &mut theirs).await;
            let right = tokio::join!(talk(&mut ours, b"a", b"b"), talk(&mut theirs, b"b", b"a"));
            assert_eq!(right, (true, true));
            drop((ours, theirs));
            until("one connection is left", || {
                relay.open.load(Ordering::SeqCst) == 1
            })
            .await;
        }
        // One with a stream stays, however quiet that is.
        let (mut ours, mut theirs) = stream(&met).await;
        fill(&relay, 4, &mut ours, &mut theirs).await;
        sleep(quick().keep_alive * 10).await;
        assert_eq!(relay.open.load(Ordering::SeqCst), 2);
        carries(&mut ours, &mut theirs).await;
    };
    listening(&met, test).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_connection_that_was_refused_is_asked_for_again() {
    let site = Site::new();
    let (met, relay) = meet_with(&site, quick()).await;
    let test = async {
        relay.refuse.store(2, Ordering::SeqCst);
        let (mut ours, mut theirs) = stream(&met).await;
        fill(&relay, 4, &mut ours, &mut theirs).await;
        carries(&mut ours, &mut theirs).await;
    };
    listening(&met, test).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipes_of_both_connections_are_not_taken_for_each_other() {
    let site = Site::new();
    let (met, relay) = meet(&site).await;
    let test = async {
        let (mut ours, mut theirs) = stream(&met).await;
        fill(&relay, 2, &mut ours, &mut theirs).await;
        let mut talking = JoinSet::new();
        for (priority, seed) in [Priority::Interactive, Priority::Bulk]
            .into_iter()
            .cycle()
            .zip(0..16)
        {
            let mut open = Open::new(Target::Echo, PATIENCE);
            open.priority = priority;
            let accept = async { met.acceptor.accept().await?.accept().await };
            let (ours, theirs) = tokio::join!(met.opener.open(open), accept);
            let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
            talking.spawn(async move {
                let (up, down) = (bytes(2 << 20, seed), bytes(2 << 20, 99 - seed));
                let right =
                    tokio::join!(talk(&mut ours, &up, &down), talk(&mut theirs, &down, &up));
                assert_eq!(right, (true, true), "{priority:?} {seed}");
            });
        }
        while let Some(talked) = talking.join_next().await {
            talked.unwrap();
        }
    };
    listening(&met, test).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_opens_that_were_given_up_in_a_blackout_cost_no_session() {
    let site = Site::new();
    let (met, relay) = meet(&site).await;
    let (mut quiet, mut quiet_there) = stream(&met).await;
    relay.set(0, Passage::Held);
    for _ in 0..100 {
        let open = Open::new(Target::Echo, Duration::from_millis(5));
        assert!(met.opener.open(open).await.is_err(), "nobody hears it");
    }
    relay.set(0, Passage::Open);
    timeout(PATIENCE, carries(&mut quiet, &mut quiet_there))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_that_were_dropped_with_bytes_under_way_cost_no_session() {
    let site = Site::new();
    let (met, relay) = meet(&site).await;
    let test = async {
        let (mut quiet, mut quiet_there) = stream(&met).await;
        for _ in 0..5 {
            let mut streams = Vec::new();
            for _ in 0..300 {
                streams.push(stream(&met).await);
            }
            relay.set(0, Passage::Held);
            for (_, theirs) in &mut streams {
                theirs.write_all(b"nobody will read it").await.unwrap();
                theirs.flush().await.unwrap();
            }
            let (ours, theirs): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
            drop(ours);
            relay.set(0, Passage::Open);
            carries(&mut quiet, &mut quiet_there).await;
            drop(theirs);
        }
    };
    listening(&met, test).await;
}
