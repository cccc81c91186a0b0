//! Many agents at once on a bad road: each tries both transports and hangs up on the slower, wherever it is.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use testbed::pki::Pki;
use testbed::wan::{Shape, Wan, WanConfig};
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use yurt_core::transport::ErrorKind;
use yurt_tunnel::agent::{Agent, Config};
use yurt_tunnel::dial::{Address, Caller, Dial};
use yurt_tunnel::egress::{self, Policy};
use yurt_tunnel::identity::Credentials;
use yurt_tunnel::link;
use yurt_tunnel::nodes::{Node, NodeSource, NodeTable};
use yurt_tunnel::server::{self, Server};
use yurt_tunnel::transport::NamedTransport;
use yurt_tunnel::transport::h2::H2Transport;
use yurt_tunnel::transport::quic::QuicTransport;

use super::credentials;

/// As many as took HTTP/2's port from a server by their start alone.
const AGENTS: usize = 60;

const STARTS: usize = 2;

/// How long they may take: what is lost is sent again after seconds.
const COMPLETE: Duration = Duration::from_secs(60);

/// The nodes of a test, which do not change.
#[derive(Debug)]
struct Still;

#[async_trait]
impl NodeSource for Still {
    async fn publish(&self, _: watch::Sender<Arc<NodeTable>>, shutdown: CancellationToken) {
        shutdown.cancelled().await;
    }
}

fn transports(credentials: &Credentials) -> Vec<NamedTransport> {
    let quic = QuicTransport::new(credentials.clone(), link::Config::default());
    let h2 = H2Transport::new(credentials.clone(), link::Config::default());
    vec![
        NamedTransport::new("quic", quic),
        NamedTransport::new("h2", h2),
    ]
}

/// Waits until an agent has answered: it forbids what is not its kubelet's port.
async fn answers(dial: Arc<dyn Dial>, name: String) {
    let address = Address {
        host: name,
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

/// A server at the cloud that knows the nodes.
async fn serve(wan: &Wan, cloud: Credentials, names: &[String]) -> Server {
    let config = server::Config {
        denied_nodes: None,
        buffers: link::Buffers::default(),
        listen: (wan.cloud().address(), 0).into(),
        peers: Vec::new(),
        advertise: Vec::new(),
        policy: Policy::default(),
        admin_listen: None,
        drain: Duration::from_secs(1),
    };
    let nodes = names.iter().map(|name| Node {
        name: name.parse().unwrap(),
        addresses: Vec::new(),
        edge: true,
        kubelet_port: 10250,
    });
    let nodes = (
        Box::new(Still) as Box<dyn NodeSource>,
        NodeTable::new(nodes),
    );
    let open = Server::open(config, cloud.clone(), transports(&cloud), nodes);
    let runtime = Handle::current();
    let opened = tokio::task::block_in_place(|| wan.cloud().enter(|| runtime.block_on(open)));
    opened.unwrap().unwrap()
}

/// Agents on a thread of the edge; they are killed when this is dropped.
struct Crowd {
    kill: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    fn start(wan: &Arc<Wan>, agents: Vec<Agent>) -> Self {
        let kill = CancellationToken::new();
        let (killed, wan) = (kill.clone(), wan.clone());
        let run = move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut running = JoinSet::new();
                for agent in agents {
                    running.spawn(agent.run(CancellationToken::new()));
                }
                killed.cancelled().await;
            });
        };
        let thread = std::thread::spawn(move || wan.edge().enter(run).unwrap());
        Self {
            kill,
            thread: Some(thread),
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.kill.cancel();
        if let Some(thread) = self.thread.take() {
            tokio::task::block_in_place(|| thread.join()).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and network namespaces"]
async fn a_crowd_that_starts_at_once_is_complete_and_leaves_both_listeners() {
    let link = Shape {
        delay: Duration::from_millis(250),
        loss: 0.01,
        ..Shape::default()
    };
    let nat = None;
    let wan = Arc::new(Wan::new(WanConfig { seed: 7, link, nat }).unwrap());
    let (folder, pki) = (tempfile::tempdir().unwrap(), Pki::new());
    let names: Vec<_> = (0..AGENTS).map(|number| format!("edge-{number}")).collect();
    let shown = pki.both(&[&wan.cloud().address().to_string()], "yurt:tunnel-servers");
    let server = serve(&wan, credentials(&folder, "cloud", &pki, shown), &names).await;
    let (dial, address) = (server.dial(), server.address().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(server.run(egress::Metrics::default(), CancellationToken::new()));
    let agent = |name: &String, ways: std::ops::Range<usize>| {
        let shown = pki.client(&format!("system:node:{name}"), &["system:nodes"]);
        let credentials = credentials(&folder, name, &pki, shown);
        let data = folder.path().join(format!("{name}.data"));
        let config = Config::new(name.parse().unwrap(), vec![address.into()], data);
        Agent::new(config, transports(&credentials)[ways].to_vec())
    };
    for start in 0..STARTS {
        let agents = names.iter().map(|name| agent(name, 0..2)).collect();
        let crowd = Crowd::start(&wan, agents);
        let began = Instant::now();
        let mut waiting = JoinSet::new();
        for name in &names {
            waiting.spawn(answers(dial.clone(), name.clone()));
        }
        let all = async { while waiting.join_next().await.is_some() {} };
        let complete = timeout(COMPLETE, all).await.is_ok();
        drop(crowd);
        assert!(complete, "start {start}: {} are missing", waiting.len());
        println!("{AGENTS} agents were there after {:?}", began.elapsed());
        assert!(serving.try_join_next().is_none(), "the server has ended");
    }
    for (way, name) in names.iter().take(2).enumerate() {
        let _alone = Crowd::start(&wan, vec![agent(name, way..way + 1)]);
        let answered = timeout(COMPLETE, answers(dial.clone(), name.clone())).await;
        answered.unwrap_or_else(|_| panic!("transport {way} is gone"));
    }
}
