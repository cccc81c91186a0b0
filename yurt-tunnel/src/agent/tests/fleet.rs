//! A fleet on long and lossy links, whose agents try both transports and drop the slower one wherever it is.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use testbed::pki::Pki;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use yurt_core::testing::transport::{node, server};
use yurt_core::transport::ErrorKind;

use super::world::{World, at};
use crate::agent::keeper::Keeper;
use crate::agent::memory::Remembered;
use crate::agent::{Config, Shared};
use crate::dial::{Address, Caller, Dial};
use crate::egress;
use crate::identity::{Credentials, Files};
use crate::link::Buffers;
use crate::nodes::{Node, NodeSource, NodeTable};
use crate::server::{self, Server};
use crate::transport::NamedTransport;
use crate::transport::air::{Air, Road};

const AGENTS: u64 = 300;

const RESTARTS: u64 = 10;

/// How long a fleet may take to be complete: what is lost is sent again after seconds.
const COMPLETE: Duration = Duration::from_secs(60);

/// The nodes of a test, which do not change.
#[derive(Debug)]
struct Still;

#[async_trait::async_trait]
impl NodeSource for Still {
    async fn publish(&self, _: watch::Sender<Arc<NodeTable>>, shutdown: CancellationToken) {
        shutdown.cancelled().await;
    }
}

/// QUIC's and HTTP/2's networks, by the round trips of their handshakes.
struct Fleet {
    world: World,
    udp: Air,
    tcp: Air,
}

impl Fleet {
    fn transports(&self, name: &str, number: u64) -> Vec<NamedTransport> {
        let own = Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number).unwrap());
        let ends = || (node(name), server("cloud"));
        let round_trip = Duration::from_millis(fastrand::u64(200..=700));
        let loss = 0.01 + 0.07 * fastrand::f64();
        let by = |name, air: &Air| {
            let road = Road::new(round_trip, loss, fastrand::u64(..));
            let own = SocketAddr::from((own, 40_000));
            NamedTransport::new(name, air.transport(road, own, ends()))
        };
        let mut transports = vec![by("quic", &self.udp), by("h2", &self.tcp)];
        if number % 10 == 9 {
            transports.remove(0); // no UDP gets out there
        }
        transports
    }

    async fn server(&self) -> Server {
        let config = server::Config {
            listen: at(1),
            peers: Vec::new(),
            advertise: Vec::new(),
            policy: egress::Policy::default(),
            denied_nodes: None,
            buffers: Buffers::default(),
            admin_listen: None,
            drain: Duration::from_secs(1),
        };
        let nodes = (0..AGENTS).map(|number| Node {
            name: name(number).parse().unwrap(),
            addresses: Vec::new(),
            edge: true,
            kubelet_port: 10250,
        });
        let nodes = NodeTable::new(nodes);
        let transports = self.transports("cloud", 0);
        let nodes = (Box::new(Still) as Box<dyn NodeSource>, nodes);
        let server = Server::open(config, credentials(&self.world), transports, nodes);
        server.await.unwrap()
    }

    /// Starts every agent at once.
    fn start(&self) -> JoinSet<()> {
        let mut links = JoinSet::new();
        for number in 0..AGENTS {
            let name = name(number);
            let folder = self.world.folder().to_owned();
            let config = Config::new(name.parse().unwrap(), vec![at(1).into()], folder);
            let transports = self.transports(&name, number);
            let shared = Shared::new(config, transports, Remembered::default());
            let keeper = Keeper::new(Arc::new(shared), at(1), at(1).ip().to_string());
            links.spawn(keeper.run(CancellationToken::new()));
        }
        links
    }
}

fn name(number: u64) -> String {
    format!("edge-{number}")
}

#[expect(clippy::disallowed_methods, reason = "a test sets up its files")]
fn credentials(world: &World) -> Credentials {
    let pki = Pki::new();
    let (certificate, key) = pki.both(&["cloud"], "yurt:tunnel-servers");
    let at = |name: &str| world.folder().join(name);
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

/// Waits until an agent has answered: it forbids what is not its kubelet's port.
async fn answers(dial: Arc<dyn Dial>, number: u64) {
    let address = Address {
        host: name(number),
        port: 1,
    };
    let limit = Duration::from_secs(10);
    loop {
        let dialled = dial.dial(&Caller::ApiServer, &address, limit).await;
        match dialled.unwrap_err().kind() {
            ErrorKind::Forbidden => return,
            _ => sleep(Duration::from_millis(100)).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_fleet_on_bad_links_that_is_restarted_at_once_is_complete_each_time() {
    fastrand::seed(7);
    let fleet = Fleet {
        world: World::new(),
        udp: Air::new(1),
        tcp: Air::new(3),
    };
    let server = fleet.server().await;
    let dial = server.dial();
    let mut serving = JoinSet::new();
    serving.spawn(server.run(egress::Metrics::default(), CancellationToken::new()));
    for restart in 0..RESTARTS {
        let agents = fleet.start();
        let mut waiting = JoinSet::new();
        for number in 0..AGENTS {
            waiting.spawn(answers(dial.clone(), number));
        }
        let all = async { while waiting.join_next().await.is_some() {} };
        let complete = timeout(COMPLETE, all).await.is_ok();
        let missing = waiting.len();
        assert!(complete, "restart {restart}: {missing} agents are missing");
        assert!(serving.try_join_next().is_none(), "the server has ended");
        drop(agents);
    }
    // What the fleet is there for: lanes that lost their race in the middle.
    assert!(fleet.tcp.broken() > 10, "{}", fleet.tcp.broken());
}
