//! An agent on bad roads: real sockets, in two network namespaces with an emulated network between them.

#![expect(
    clippy::unwrap_used,
    reason = "what a test takes for granted fails the test"
)]
#![expect(clippy::print_stdout, reason = "how long things took")]

#[path = "roads/crowd.rs"]
mod crowd;
#[path = "roads/fair.rs"]
mod fair;
#[path = "roads/shaped.rs"]
mod shaped;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;
use testbed::pki::Pki;
use testbed::wan::{Blackhole, NatConfig, Shape, Wan, WanConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Handle};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use yurt_core::transport::{ErrorKind, Listener, Open, Opener, State, Stream, Target, Transport};
use yurt_tunnel::agent::{Agent, Config};
use yurt_tunnel::identity::{Credentials, Files};
use yurt_tunnel::link;
use yurt_tunnel::transport::NamedTransport;
use yurt_tunnel::transport::h2::H2Transport;
use yurt_tunnel::transport::quic::QuicTransport;

const LIMIT: Duration = Duration::from_secs(40);

/// A server's listeners at the cloud, and what an agent at the edge needs.
struct Roads {
    wan: Arc<Wan>,
    quic: Box<dyn Listener>,
    h2: Box<dyn Listener>,
    server: SocketAddr,
    folder: TempDir,
    edge: Credentials,
}

/// An agent on a thread of the edge.
struct Running {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Roads {
    async fn new(nat: Option<NatConfig>) -> Self {
        let link = Shape {
            delay: Duration::from_millis(20),
            ..Shape::default()
        };
        let wan = Wan::new(WanConfig { seed: 7, link, nat }).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new();
        let address = wan.cloud().address();
        let server = pki.both(&[&address.to_string()], "yurt:tunnel-servers");
        let cloud = credentials(&folder, "cloud", &pki, server);
        let node = pki.client("system:node:edge-1", &["system:nodes"]);
        let edge = credentials(&folder, "edge", &pki, node);
        let quic: Arc<dyn Transport> =
            Arc::new(QuicTransport::new(cloud.clone(), link::Config::default()));
        let h2: Arc<dyn Transport> = Arc::new(H2Transport::new(cloud, link::Config::default()));
        let quic = listen(&wan, quic, (address, 0).into());
        let server = SocketAddr::from((address, quic.address().port()));
        let h2 = listen(&wan, h2, server);
        Self {
            wan: Arc::new(wan),
            quic,
            h2,
            server,
            folder,
            edge,
        }
    }

    fn config(&self) -> Config {
        let servers = vec![self.server.into()];
        let data = self.folder.path().join("data");
        Config::new("edge-1".parse().unwrap(), servers, data)
    }

    fn run(&self, config: Config, transports: &[&'static str]) -> Running {
        let stop = CancellationToken::new();
        let (wan, edge, stopped) = (self.wan.clone(), self.edge.clone(), stop.clone());
        let transports = transports.to_vec();
        let serve = move || {
            let limits = link::Config::default;
            let named = |name| match name {
                "quic" => NamedTransport::new(name, QuicTransport::new(edge.clone(), limits())),
                _ => NamedTransport::new(name, H2Transport::new(edge.clone(), limits())),
            };
            let agent = Agent::new(config, transports.into_iter().map(named).collect());
            // One thread, so that every socket is made at the edge.
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(agent.run(stopped)).unwrap();
        };
        let thread = std::thread::spawn(move || wan.edge().enter(serve).unwrap());
        Running {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            tokio::task::block_in_place(|| thread.join()).unwrap();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's files need not survive a crash"
)]
fn credentials(
    folder: &TempDir,
    name: &str,
    pki: &Pki,
    (certificate, key): (String, String),
) -> Credentials {
    let at = |kind: &str| folder.path().join(format!("{name}.{kind}"));
    let files = Files {
        ca: at("ca"),
        certificate: at("pem"),
        key: at("key"),
    };
    std::fs::write(&files.ca, pki.ca_pem()).unwrap();
    std::fs::write(&files.certificate, certificate).unwrap();
    std::fs::write(&files.key, key).unwrap();
    Credentials::load(files).unwrap()
}

fn listen(wan: &Wan, transport: Arc<dyn Transport>, address: SocketAddr) -> Box<dyn Listener> {
    let runtime = Handle::current();
    let listen = || runtime.block_on(transport.listen(address));
    tokio::task::block_in_place(|| wan.cloud().enter(listen).unwrap()).unwrap()
}

async fn next(listener: &dyn Listener) -> Arc<dyn Opener> {
    let accepted = timeout(LIMIT, listener.accept()).await;
    accepted.expect("an agent connects").unwrap().unwrap()
}

async fn echo(session: &Arc<dyn Opener>) -> Box<dyn Stream> {
    let open = session.open(Open::new(Target::Echo, LIMIT));
    open.await.unwrap()
}

/// Sends a byte and waits for it.
async fn turn(stream: &mut Box<dyn Stream>) {
    let turn = async {
        stream.write_all(b"x").await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
    };
    timeout(LIMIT, turn).await.expect("the byte comes back");
}

/// Returns the longest that a byte took in a time, sent one after the other.
async fn slowest_turn(stream: &mut Box<dyn Stream>, time: Duration) -> Duration {
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    while began.elapsed() < time {
        let sent = Instant::now();
        turn(stream).await;
        slowest = slowest.max(sent.elapsed());
    }
    slowest
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and network namespaces"]
async fn where_udp_is_closed_tcp_is_there_in_time_and_udp_is_taken_up_when_it_opens() {
    let roads = Roads::new(None).await;
    roads.wan.blackhole(Blackhole::Udp);
    let mut config = roads.config();
    config.probe_every = Duration::from_secs(2);
    let began = Instant::now();
    let _agent = roads.run(config, &["quic", "h2"]);
    let old = next(&*roads.h2).await;
    let took = began.elapsed();
    println!("connected by TCP after {took:?}");
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    let mut stream = echo(&old).await;
    // Some probes come to nothing.
    let slowest = slowest_turn(&mut stream, Duration::from_secs(5)).await;
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");

    roads.wan.blackhole(Blackhole::None);
    let began = Instant::now();
    let _new = next(&*roads.quic).await;
    println!("connected by QUIC after {:?}", began.elapsed());
    let mut state = old.state();
    state
        .wait_for(|state| *state == State::Draining)
        .await
        .unwrap();
    turn(&mut stream).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and network namespaces"]
async fn where_udp_closes_under_a_session_tcp_takes_over_and_a_short_silence_costs_no_stream() {
    let roads = Roads::new(None).await;
    let mut config = roads.config();
    config.ping_every = Duration::from_secs(1);
    config.patience = Duration::from_secs(1);
    let _agent = roads.run(config, &["quic", "h2"]);
    let old = next(&*roads.quic).await;
    let mut stream = echo(&old).await;
    turn(&mut stream).await;
    roads.wan.blackhole(Blackhole::Udp);
    let began = Instant::now();
    let new = next(&*roads.h2).await;
    println!("connected by TCP after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(3));
    turn(&mut echo(&new).await).await;
    roads.wan.blackhole(Blackhole::None);
    turn(&mut stream).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and network namespaces"]
async fn a_change_of_address_costs_no_stream_on_quic() {
    let roads = Roads::new(None).await;
    let _agent = roads.run(roads.config(), &["quic", "h2"]);
    let session = next(&*roads.quic).await;
    let mut stream = echo(&session).await;
    turn(&mut stream).await;
    let before = session.remote();
    roads.wan.set_edge_address([10, 0, 0, 77].into()).unwrap();
    let slowest = slowest_turn(&mut stream, Duration::from_secs(3)).await;
    println!("the slowest byte took {slowest:?}, 40 ms of them the road");
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    assert_ne!(session.remote().ip(), before.ip());
    assert_eq!(*session.state().borrow(), State::Open);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and network namespaces"]
async fn a_change_of_address_gives_a_new_session_within_a_second_on_tcp() {
    let roads = Roads::new(None).await;
    let _agent = roads.run(roads.config(), &["h2"]);
    let session = next(&*roads.h2).await;
    turn(&mut echo(&session).await).await;
    roads.wan.set_edge_address([10, 0, 0, 77].into()).unwrap();
    let began = Instant::now();
    let new = next(&*roads.h2).await;
    println!("a new session after {:?}", began.elapsed());
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    turn(&mut echo(&new).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and network namespaces"]
async fn a_router_that_forgets_costs_no_stream_on_quic() {
    let roads = Roads::new(Some(NatConfig::default())).await;
    let _agent = roads.run(roads.config(), &["quic", "h2"]);
    let session = next(&*roads.quic).await;
    let mut stream = echo(&session).await;
    turn(&mut stream).await;
    let before = session.remote();
    roads.wan.rebind();
    // The edge speaks first, else nobody can: its next ping, if not a stream's bytes.
    let slowest = slowest_turn(&mut stream, Duration::from_secs(3)).await;
    println!("the slowest byte took {slowest:?}");
    assert_ne!(session.remote(), before);
    assert!(slowest < Duration::from_secs(6), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and network namespaces"]
async fn a_blackout_of_fifteen_seconds_costs_no_stream() {
    for transport in ["quic", "h2"] {
        let roads = Roads::new(None).await;
        let _agent = roads.run(roads.config(), &[transport]);
        let listener = if transport == "quic" {
            &roads.quic
        } else {
            &roads.h2
        };
        let session = next(&**listener).await;
        let mut stream = echo(&session).await;
        turn(&mut stream).await;
        roads.wan.blackhole(Blackhole::All);
        sleep(Duration::from_secs(15)).await;
        roads.wan.blackhole(Blackhole::None);
        let began = Instant::now();
        turn(&mut stream).await;
        println!(
            "{transport}: the stream goes on {:?} after the blackout",
            began.elapsed()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and network namespaces"]
async fn a_link_that_comes_back_after_long_is_connected_at_once() {
    let roads = Roads::new(None).await;
    let _agent = roads.run(roads.config(), &["quic", "h2"]);
    let session = next(&*roads.quic).await;
    roads.wan.blackhole(Blackhole::All);
    let mut state = session.state();
    // A link that rests is not asked; somebody who wants it is what shows that it is gone.
    let wanted = session.open(Open::new(Target::Echo, LIMIT)).await;
    wanted.expect_err("nothing passes");
    let over = |state: &State| matches!(state, State::Closed { .. });
    state.wait_for(over).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    roads.wan.blackhole(Blackhole::None);
    let began = Instant::now();
    let _new = next(&*roads.quic).await;
    println!("connected {:?} after the link is back", began.elapsed());
    assert!(
        began.elapsed() < Duration::from_secs(21),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and network namespaces"]
async fn the_kubelet_of_the_node_is_dialled_by_default_and_nothing_else() {
    let roads = Roads::new(None).await;
    let own = roads.wan.edge().address();
    let bind = |port| {
        let bound = roads
            .wan
            .edge()
            .enter(|| std::net::TcpListener::bind((own, port)));
        let listener = bound.unwrap().unwrap();
        listener.set_nonblocking(true).unwrap();
        tokio::net::TcpListener::from_std(listener).unwrap()
    };
    let (kubelet, other) = (bind(10250), bind(0));
    let _agent = roads.run(roads.config(), &["quic", "h2"]);
    let session = next(&*roads.quic).await;
    let dial = |host: String, port| {
        let open = Open::new(Target::dial(host, port).unwrap(), LIMIT);
        session.open(open)
    };
    for host in [
        own.to_string(),
        "edge-1".to_owned(),
        format!("::ffff:{own}"),
    ] {
        let (dialled, accepted) = tokio::join!(dial(host, 10250), kubelet.accept());
        let (mut stream, mut socket) = (dialled.unwrap(), accepted.unwrap().0);
        stream.write_all(b"x").await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'x');
    }
    let port = other.local_addr().unwrap().port();
    let cloud = roads.wan.cloud().address().to_string();
    for (host, port) in [
        (own.to_string(), port),
        ("127.0.0.1".to_owned(), 10250),
        ("localhost".to_owned(), 10250),
        ("10.0.0.3".to_owned(), 10250),
        (cloud, roads.server.port()),
    ] {
        let error = dial(host.clone(), port).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Forbidden, "{host}:{port}: {error}");
    }
    drop(kubelet);
    let error = dial(own.to_string(), 10250).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
}
