//! What a node costs that nobody talks to, counted in questions over a day of virtual time.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use yurt_core::testing::transport::{node, server};
use yurt_core::transport::{
    Acceptor, Error, ErrorKind, Incoming, Listener, Opener, Peer, Result, Session, State, Stats,
    Transport,
};

use super::world::{Cloud, NODE, Running, World, at};
use crate::agent::keeper::Keeper;
use crate::agent::memory::Remembered;
use crate::agent::{Agent, KeepAlive, Shared};
use crate::transport::NamedTransport;
use crate::transport::air::{Air, Road};

const DAY: Duration = Duration::from_secs(86_400);

/// What a question and its answer cost, at most: over QUIC on IPv6, and over HTTP/2.
const QUIC_BYTES: u64 = 270;
const H2_BYTES: u64 = 232;

/// A transport that counts connects and questions, and forgets sessions that rest for too long, as a NAT does.
#[derive(Debug)]
struct Nat<T> {
    inner: T,
    keeps: Duration,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    connects: AtomicU64,
    pings: AtomicU64,
}

#[derive(Debug)]
struct Through {
    inner: Arc<dyn Acceptor>,
    keeps: Duration,
    last: parking_lot::Mutex<Instant>,
    counts: Arc<Counts>,
}

#[async_trait]
impl<T: Transport> Transport for Nat<T> {
    async fn connect(&self, address: SocketAddr, name: &str) -> Result<Arc<dyn Acceptor>> {
        self.counts.connects.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Through {
            inner: self.inner.connect(address, name).await?,
            keeps: self.keeps,
            last: parking_lot::Mutex::new(Instant::now()),
            counts: self.counts.clone(),
        }))
    }

    async fn listen(&self, _: SocketAddr) -> Result<Box<dyn Listener>> {
        Err(Error::new(ErrorKind::Other, "an agent does not listen"))
    }
}

#[async_trait]
impl Session for Through {
    fn peer(&self) -> &Peer {
        self.inner.peer()
    }

    fn remote(&self) -> SocketAddr {
        self.inner.remote()
    }

    fn state(&self) -> watch::Receiver<State> {
        self.inner.state()
    }

    async fn ping(&self) -> Result<Duration> {
        self.counts.pings.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let rested = now - std::mem::replace(&mut *self.last.lock(), now);
        if rested > self.keeps {
            std::future::pending::<()>().await;
        }
        self.inner.ping().await
    }

    fn drain(&self) {
        self.inner.drain();
    }

    async fn close(&self, reason: &str) {
        self.inner.close(reason).await;
    }

    fn stats(&self) -> Stats {
        self.inner.stats()
    }
}

#[async_trait]
impl Acceptor for Through {
    async fn accept(&self) -> Result<Box<dyn Incoming>> {
        self.inner.accept().await
    }
}

/// Lives a day with links to two servers; returns the questions and the connects.
async fn day(keep_alive: KeepAlive, is_udp: bool, keeps: Duration) -> (u64, u64) {
    let world = World::new();
    let clouds = [
        Cloud::new(&world.udp, at(1)).await,
        Cloud::new(&world.udp, at(2)).await,
    ];
    let mut config = world.config(&[at(1), at(2)]);
    config.keep_alive = keep_alive;
    let counts = Arc::new(Counts::default());
    let nat = Nat {
        inner: world.udp.transport(node(NODE)),
        keeps,
        counts: counts.clone(),
    };
    let way = NamedTransport {
        is_udp,
        ..NamedTransport::new("nat", nat)
    };
    let agent = Running::new(Agent::new(config, vec![way]));
    let let_in = |cloud: Cloud| async move {
        let mut sessions = Vec::new();
        loop {
            sessions.push(cloud.ever().await);
        }
    };
    let [one, two] = clouds;
    tokio::select! {
        () = sleep(DAY) => {}
        () = let_in(one) => {}
        () = let_in(two) => {}
    }
    drop(agent);
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    (count(&counts.pings), count(&counts.connects))
}

#[tokio::test(start_paused = true)]
async fn an_idle_agent_costs_less_than_a_megabyte_a_day_and_less_than_a_third_on_a_metered_link() {
    let ordinary = Duration::from_secs(3_600);
    for (keep_alive, is_udp, bytes, budget) in [
        (KeepAlive::Adaptive, true, QUIC_BYTES, 1_000_000),
        (KeepAlive::Adaptive, false, H2_BYTES, 1_000_000),
        (KeepAlive::Metered, true, QUIC_BYTES, 300_000),
        (KeepAlive::Metered, false, H2_BYTES, 300_000),
    ] {
        let (pings, connects) = day(keep_alive, is_udp, ordinary).await;
        assert_eq!(connects, 2, "{keep_alive:?}");
        assert!(pings * bytes <= budget, "{keep_alive:?}: {pings} questions");
        assert!(pings > 900, "{keep_alive:?}: it is asked");
    }
}

#[tokio::test(start_paused = true)]
async fn a_nat_that_forgets_early_is_found_at_the_cost_of_one_session_a_link() {
    let (pings, connects) = day(KeepAlive::Adaptive, false, Duration::from_secs(50)).await;
    // Two links every 40 s, and a session of each for what was tried.
    assert!((4_200..4_700).contains(&pings), "{pings} questions");
    assert!((4..=6).contains(&connects), "{connects} connects");
}

/// Lives a day with one link over the real transports' sessions; returns what both ends have said.
async fn counted_day(keep_alive: KeepAlive, is_udp: bool) -> Stats {
    let world = World::new();
    let (air, road) = (Air::new(2), Road::new(Duration::from_millis(50), 0.0, 1));
    let ends = (node(NODE), server("cloud"));
    let listener = air.transport(road.clone(), at(1), ends.clone());
    let listener = listener.listen(at(1)).await.unwrap();
    let way = NamedTransport {
        is_udp,
        ..NamedTransport::new("air", air.transport(road, at(9), ends))
    };
    let mut config = world.config(&[at(1)]);
    config.keep_alive = keep_alive;
    let shared = Arc::new(Shared::new(config, vec![way], Remembered::default()));
    let keeper = Keeper::new(shared.clone(), at(1), "cloud".to_owned());
    let let_in = async {
        let mut sessions = Vec::new();
        loop {
            sessions.push(listener.accept().await.unwrap().unwrap());
            assert_eq!(sessions.len(), 1, "one session lasts a day");
        }
    };
    tokio::select! {
        () = sleep(DAY) => {}
        () = keeper.run(CancellationToken::new()) => {}
        () = let_in => {}
    }
    shared.board.look(Instant::now()).1.sum()
}

#[tokio::test(start_paused = true)]
async fn an_idle_days_bytes_are_questions_and_answers_and_little_else() {
    let (ping, first_words) = (5, 40);
    for (keep_alive, is_udp, questions) in [
        (KeepAlive::Adaptive, true, 2_800..3_000),
        (KeepAlive::Metered, false, 700..1_000),
    ] {
        let stats = counted_day(keep_alive, is_udp).await;
        let said = stats.keep_alive;
        assert!(
            questions.contains(&(said.sent / ping)) && questions.contains(&(said.received / ping)),
            "{keep_alive:?}: {stats:?}"
        );
        assert!(stats.control.sent <= first_words, "{stats:?}");
        assert_eq!((stats.sent, stats.received), (0, 0), "no stream");
    }
}

/// Ends the session of a link that is asked whether it lives after it had rested; returns whether that was taken for
/// the work of a NAT.
async fn is_blamed_on_a_nat(
    is_udp: bool,
    ending: impl AsyncFnOnce(&World, Arc<dyn Opener>),
) -> bool {
    let world = World::new();
    let cloud = Cloud::new(&world.udp, at(1)).await;
    let counts = Arc::new(Counts::default());
    let nat = Nat {
        inner: world.udp.transport(node(NODE)),
        keeps: DAY,
        counts: counts.clone(),
    };
    let way = NamedTransport {
        is_udp,
        ..NamedTransport::new("way", nat)
    };
    let config = world.config(&[at(1)]);
    let shared = Arc::new(Shared::new(config, vec![way], Remembered::default()));
    let keeper = Keeper::new(shared.clone(), at(1), at(1).ip().to_string());
    let mut running = JoinSet::new();
    running.spawn(keeper.run(CancellationToken::new()));
    let session = cloud.next().await;
    sleep(Duration::from_secs(3_600)).await;
    let winners = || shared.winners.lock().remember();
    let before = winners();
    world.udp.freeze(at(1));
    let asked = counts.pings.load(Ordering::Relaxed);
    while counts.pings.load(Ordering::Relaxed) == asked {
        sleep(Duration::from_millis(10)).await;
    }
    ending(&world, session).await;
    let _next = cloud.next().await;
    sleep(Duration::from_millis(100)).await;
    winners() != before
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_over_udp_that_a_session_is_over_was_not_kept_away_by_a_nat() {
    let ends = async |_: &World, session: Arc<dyn Opener>| session.close("reset by the peer").await;
    let is_silent = async |_: &World, session: Arc<dyn Opener>| {
        sleep(Duration::from_secs(5)).await;
        drop(session);
    };
    assert!(!is_blamed_on_a_nat(true, ends).await, "a stateless reset");
    assert!(is_blamed_on_a_nat(true, is_silent).await, "silence");
    // NATs reset TCP connections that they know no more.
    assert!(is_blamed_on_a_nat(false, ends).await, "a reset of TCP");
}

thread_local! {
    static LOCAL: Cell<IpAddr> = const { Cell::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)) };
}

#[expect(clippy::unnecessary_wraps, reason = "a node may have no address")]
fn local(_: SocketAddr) -> std::io::Result<IpAddr> {
    Ok(LOCAL.get())
}

/// An agent whose preferred way fails, and counts.
fn closed(world: &World, others: bool) -> (Agent, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let nat = Nat {
        inner: world.udp.transport(node(NODE)),
        keeps: DAY,
        counts: counts.clone(),
    };
    let mut ways = vec![NamedTransport::new("quic", nat)];
    if others {
        ways.extend(world.transports().pop());
    }
    let mut config = world.config(&[at(1)]);
    config.address_towards = local;
    (Agent::new(config, ways), counts)
}

#[tokio::test(start_paused = true)]
async fn a_preferred_way_that_stays_closed_is_tried_less_and_less_often_and_at_once_after_a_move() {
    let world = World::new();
    let cloud = Cloud::new(&world.tcp, at(1)).await;
    let (agent, counts) = closed(&world, true);
    let changes = agent.network.clone();
    let _agent = Running::new(agent);
    let _session = cloud.next().await;
    sleep(DAY).await;
    let tried = counts.connects.load(Ordering::Relaxed);
    assert!((20..60).contains(&tried), "{tried} a day");
    LOCAL.set([10, 0, 0, 7].into());
    changes.send_modify(|number| *number += 1);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(counts.connects.load(Ordering::Relaxed), tried + 1);
}

#[tokio::test(start_paused = true)]
async fn the_kernels_news_of_others_do_not_hurry_a_redial() {
    let world = World::new();
    let (agent, counts) = closed(&world, false);
    let changes = agent.network.clone();
    let _agent = Running::new(agent);
    sleep(Duration::from_secs(600)).await;
    let before = counts.connects.load(Ordering::Relaxed);
    for _ in 0..100 {
        changes.send_modify(|number| *number += 1);
        sleep(Duration::from_millis(20)).await;
    }
    let tried = counts.connects.load(Ordering::Relaxed) - before;
    assert!(tried <= 2, "{tried} attempts in 2 s");
}
