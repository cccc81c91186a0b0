//! The end of a server: agents go elsewhere, streams end in their time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use yurt_core::error::Chain;
use yurt_core::testing::transport::{MemoryTransport, server};
use yurt_core::transport::{Acceptor, Error, ErrorKind, Listener, Opener, State, Transport};
use yurt_tunnel::egress;
use yurt_tunnel::nodes::{NodeSource, NodeTable};
use yurt_tunnel::server::Server;
use yurt_tunnel::transport::NamedTransport;

use crate::world::{Manner, Running, SOON, World, at, config, echoes, eventually, is_alive, nodes};

#[tokio::test(start_paused = true)]
async fn a_drain_tells_agents_at_once_and_waits_for_the_last_stream() {
    let world = World::new();
    let mut server = world.alone().await;
    let agent = world.agent("edge-1", &server, Manner::Echoes).await;
    let mut stream = server.dial("edge-1:10250").await.unwrap();
    server.shut_down();
    let mut state = agent.session.state();
    let drained = timeout(SOON, state.wait_for(|state| *state == State::Draining));
    drained.await.expect("the agent is told").unwrap();
    let refused = server.dial("edge-1:10250").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoPeer);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(server.is_running() && is_alive(&mut stream).await);
    echoes(&mut stream).await;
    let began = Instant::now();
    server.ended().await;
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert!(matches!(*state.borrow(), State::Closed { .. }));
}

#[tokio::test(start_paused = true)]
async fn agents_without_a_stream_have_some_seconds_to_go_elsewhere() {
    let world = World::new();
    let mut server = world.alone().await;
    let agent = world.agent("edge-1", &server, Manner::Echoes).await;
    let began = Instant::now();
    server.shut_down();
    server.ended().await;
    let took = began.elapsed();
    assert!((5..8).contains(&took.as_secs()), "{took:?}");
    drop(agent);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_goes_by_itself_is_not_waited_for() {
    let world = World::new();
    let mut server = world.alone().await;
    let agent = world.agent("edge-1", &server, Manner::Echoes).await;
    let began = Instant::now();
    server.shut_down();
    agent.session.close("it has another server").await;
    server.ended().await;
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_end_is_ended_when_the_time_is_over() {
    let world = World::new();
    let short = Duration::from_secs(12);
    let mut server = world.server(at(1), |config| config.drain = short).await;
    let agent = world.agent("edge-1", &server, Manner::Echoes).await;
    let mut stream = server.dial("edge-1:10250").await.unwrap();
    let began = Instant::now();
    server.shut_down();
    server.ended().await;
    assert!(began.elapsed() < short + Duration::from_secs(1));
    assert!(!is_alive(&mut stream).await);
    eventually(|| matches!(*agent.session.state().borrow(), State::Closed { .. })).await;
}

#[tokio::test(start_paused = true)]
async fn another_server_is_told_of_the_drain_and_keeps_what_it_passes_on() {
    let world = World::new();
    let [first, mut second] = world.two().await;
    let _agent = world.agent("edge-1", &second, Manner::Echoes).await;
    let mut stream = first.reaches("edge-1:10250").await;
    second.shut_down();
    let gone = async {
        while first.dial("edge-1:10250").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, gone).await.expect("nothing new is passed on");
    assert!(is_alive(&mut stream).await);
    echoes(&mut stream).await;
    second.ended().await;
}

#[tokio::test(start_paused = true)]
async fn another_server_hears_of_the_drain_at_once() {
    let world = World::new();
    let other = world.network.transport(server("192.0.2.9"));
    let listener = other.listen(at(9)).await.unwrap();
    let server = world.server(at(1), |config| config.peers = vec![at(9).into()]);
    let (server, session) = tokio::join!(server, listener.accept());
    let session = session.unwrap().unwrap();
    server.shut_down();
    let mut state = session.state();
    let told = timeout(
        Duration::from_secs(1),
        state.wait_for(|state| *state == State::Draining),
    );
    told.await.expect("it is told").unwrap();
}

#[tokio::test]
async fn a_server_that_drains_is_alive_and_not_ready() {
    let world = World::new();
    let server = world.alone().await;
    let _agent = world.agent("edge-1", &server, Manner::Echoes).await;
    assert_eq!(server.page("/readyz").await.0, 200);
    server.shut_down();
    let (code, said) = server.page("/readyz").await;
    assert_eq!(
        (code, said.as_str()),
        (503, "[-] the server is draining\nnot ready\n")
    );
    assert_eq!(server.page("/healthz").await.0, 200);
}

/// A network whose listeners end when it is told so.
#[derive(Clone, Debug)]
struct Mortal(MemoryTransport, CancellationToken);

#[derive(Debug)]
struct MortalListener(Box<dyn Listener>, CancellationToken);

#[async_trait]
impl Transport for Mortal {
    async fn connect(&self, address: SocketAddr, name: &str) -> Result<Arc<dyn Acceptor>, Error> {
        self.0.connect(address, name).await
    }

    async fn listen(&self, address: SocketAddr) -> Result<Box<dyn Listener>, Error> {
        let listener = self.0.listen(address).await?;
        Ok(Box::new(MortalListener(listener, self.1.clone())))
    }
}

#[async_trait]
impl Listener for MortalListener {
    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    async fn accept(&self) -> Option<Result<Arc<dyn Opener>, Error>> {
        self.1.run_until_cancelled(self.0.accept()).await?
    }
}

#[tokio::test]
async fn a_server_that_loses_a_listener_is_not_ready_and_ends_with_the_reason_after_its_drain() {
    let world = World::new();
    let death = CancellationToken::new();
    let network = world.network.transport(server("192.0.2.1"));
    let transport = NamedTransport::new("memory", Mortal(network, death.clone()));
    let mut config = config(at(1));
    config.drain = Duration::from_secs(2);
    let mut server = Running::open(config, world.credentials("192.0.2.1"), vec![transport]).await;
    let agent = world.agent("edge-1", &server, Manner::Echoes).await;
    let mut stream = server.dial("edge-1:10250").await.unwrap();
    death.cancel();
    let mut state = agent.session.state();
    let drained = timeout(SOON, state.wait_for(|state| *state == State::Draining));
    drained.await.expect("the agent is told").unwrap();
    let (code, said) = server.page("/readyz").await;
    let expected = "[-] the memory listener has ended\nnot ready\n";
    assert_eq!((code, said.as_str()), (503, expected));
    assert!(is_alive(&mut stream).await);
    let ended = server.outcome().await.unwrap_err();
    assert_eq!(ended.to_string(), "the memory listener has ended");
}

/// A source of nodes that has nothing more to say, and one that fails.
#[derive(Debug)]
struct Brief(&'static str);

#[async_trait]
impl NodeSource for Brief {
    async fn publish(&self, _: watch::Sender<Arc<NodeTable>>, _: CancellationToken) {
        assert!(self.0.is_empty(), "{}", self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_loses_a_task_ends_and_says_which_and_why() {
    for why in ["", "a wrong turn"] {
        let world = World::new();
        let transport = world.network.transport(server("192.0.2.1"));
        let transports = vec![NamedTransport::new("memory", transport)];
        let nodes = (
            Box::new(Brief(why)) as Box<dyn NodeSource>,
            NodeTable::new(nodes()),
        );
        let credentials = world.credentials("192.0.2.1");
        let opened = Server::open(config(at(1)), credentials, transports, nodes);
        let shutdown = CancellationToken::new();
        let run = opened
            .await
            .unwrap()
            .run(egress::Metrics::default(), shutdown.clone());
        let ended = timeout(SOON, run).await.expect("it ends").unwrap_err();
        let said = Chain(&ended).to_string();
        assert!(
            said.starts_with("the source of nodes has ended") && said.contains(why),
            "{said}"
        );
        assert!(shutdown.is_cancelled(), "what serves beside it ends too");
    }
}
