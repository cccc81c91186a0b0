//! Servers and agents on a network in memory.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tempfile::TempDir;
use testbed::pki::Pki;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use yurt_core::error::Chain;
use yurt_core::testing::transport::{MemoryNetwork, node, server};
use yurt_core::transport::{Acceptor, Error, Incoming, Peer, State, Target, Transport};
use yurt_tunnel::dial::{Caller, Dial, Dialled};
use yurt_tunnel::egress::{self, Policy};
use yurt_tunnel::identity::{Credentials, Files};
use yurt_tunnel::link::Buffers;
use yurt_tunnel::nodes::{Node, NodeSource, NodeTable};
use yurt_tunnel::server::{self as tunnel_server, Config, Server};
use yurt_tunnel::transport::NamedTransport;

/// Whatever takes longer, in the time of the test, has failed.
pub(crate) const SOON: Duration = Duration::from_secs(600);

/// How long a door lets a dial take.
pub(crate) const DIAL: Duration = Duration::from_secs(8);

/// Where nobody listens.
const CLOUD_KUBELET: u16 = 1;

/// A network, and certificates for what needs some.
pub(crate) struct World {
    pub(crate) network: MemoryNetwork,
    pub(crate) pki: Pki,
    folder: TempDir,
}

/// A server that runs as long as this lives.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) dial: Arc<dyn Dial>,
    pub(crate) shutdown: CancellationToken,
    /// What it still has to do.
    pub(crate) work: TaskTracker,
    tasks: JoinSet<Result<(), tunnel_server::Error>>,
}

/// The nodes of a test, which do not change.
#[derive(Debug)]
struct Still;

#[async_trait]
impl NodeSource for Still {
    async fn publish(&self, _: watch::Sender<Arc<NodeTable>>, shutdown: CancellationToken) {
        shutdown.cancelled().await;
    }
}

/// What an agent does with a stream that is to be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Returns every byte.
    Echoes,
    /// Connects to this address, whatever was asked for.
    Dials(SocketAddr),
    /// Says that the target refuses.
    Refuses,
    /// Says that it does not have the node.
    Lacks,
    /// Says nothing.
    Hangs,
}

/// An agent that serves as long as this lives.
pub(crate) struct Agent {
    pub(crate) session: Arc<dyn Acceptor>,
    said: Arc<Mutex<Said>>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Said {
    dialled: Vec<Target>,
    servers: Vec<Vec<u8>>,
    process: Option<String>,
}

// === World ===

/// The address of a server that no machine has, so that none takes it for its own.
pub(crate) fn at(last: u8) -> SocketAddr {
    ([192, 0, 2, last], 443).into()
}

/// A node at the edge, at an address of its own.
pub(crate) fn edge(name: &str, address: &str) -> Node {
    Node {
        name: name.parse().unwrap(),
        addresses: vec![address.to_owned()],
        edge: true,
        kubelet_port: 10250,
    }
}

pub(crate) fn nodes() -> Vec<Node> {
    let cloud = Node {
        edge: false,
        kubelet_port: CLOUD_KUBELET,
        ..edge("cloud-1", "127.0.0.1")
    };
    vec![
        edge("edge-1", "10.1.0.1"),
        edge("edge-2", "10.1.0.2"),
        cloud,
    ]
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            network: MemoryNetwork::new(),
            pki: Pki::new(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A server without others.
    pub(crate) async fn alone(&self) -> Running {
        self.server(at(1), |_| {}).await
    }

    /// Two servers that know each other.
    pub(crate) async fn two(&self) -> [Running; 2] {
        let peer_of = |peer: u8| move |config: &mut Config| config.peers = vec![at(peer).into()];
        [
            self.server(at(1), peer_of(2)).await,
            self.server(at(2), peer_of(1)).await,
        ]
    }

    pub(crate) async fn server(
        &self,
        address: SocketAddr,
        change: impl FnOnce(&mut Config),
    ) -> Running {
        let transport = self.network.transport(server(&address.ip().to_string()));
        let transports = vec![NamedTransport::new("memory", transport)];
        let mut config = config(address);
        change(&mut config);
        Running::open(config, self.credentials("192.0.2.1"), transports).await
    }

    /// What a server says that does not start.
    pub(crate) async fn refuses(&self, config: Config) -> String {
        let nodes = (Box::new(Still) as Box<dyn NodeSource>, NodeTable::default());
        let opened = Server::open(config, self.credentials("192.0.2.1"), Vec::new(), nodes);
        Chain(&opened.await.unwrap_err()).to_string()
    }

    /// A server that nobody has told of any node.
    pub(crate) async fn ignorant(&self) -> Running {
        let transports = Vec::new();
        let nodes = NodeTable::default();
        Running::knowing(
            config(at(1)),
            self.credentials("192.0.2.1"),
            transports,
            nodes,
        )
        .await
    }

    /// Certificates for an address, as a server's or as a client's.
    pub(crate) fn credentials(&self, name: &str) -> Credentials {
        let (certificate, key) = self.pki.both(&[name], "yurt:tunnel-servers");
        self.write(name, &certificate, &key)
    }

    #[expect(clippy::disallowed_methods, reason = "a test sets up its files")]
    pub(crate) fn write(&self, name: &str, certificate: &str, key: &str) -> Credentials {
        let at = |kind: &str| self.folder.path().join(format!("{name}.{kind}"));
        let files = Files {
            ca: at("ca"),
            certificate: at("pem"),
            key: at("key"),
        };
        std::fs::write(&files.ca, self.pki.ca_pem()).unwrap();
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        Credentials::load(files).unwrap()
    }

    /// Changes whom the credentials of this name believe, from their next reload on.
    #[expect(clippy::disallowed_methods, reason = "a test sets up its files")]
    pub(crate) fn believe(&self, name: &str, authorities: &[&Pki]) {
        let bundle: String = authorities.iter().map(|pki| pki.ca_pem()).collect();
        std::fs::write(self.folder.path().join(format!("{name}.ca")), bundle).unwrap();
    }

    /// A session with a server, of whoever this is.
    pub(crate) async fn connect(
        &self,
        peer: Peer,
        address: SocketAddr,
    ) -> Result<Arc<dyn Acceptor>, Error> {
        let transport = self.network.transport(peer);
        transport.connect(address, &address.ip().to_string()).await
    }

    /// An agent that is connected to a server, and known there.
    pub(crate) async fn agent(&self, name: &str, to: &Running, manner: Manner) -> Agent {
        let session = self.connect(node(name), to.address).await.unwrap();
        let agent = Agent::serve(session, manner);
        eventually(|| !agent.said.lock().servers.is_empty()).await;
        agent
    }
}

pub(crate) fn config(address: SocketAddr) -> Config {
    Config {
        listen: address,
        peers: Vec::new(),
        advertise: Vec::new(),
        policy: Policy::default(),
        denied_nodes: None,
        buffers: Buffers::default(),
        admin_listen: Some(([127, 0, 0, 1], 0).into()),
        drain: Duration::from_secs(30),
    }
}

/// Waits until something is so.
pub(crate) async fn eventually(mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, wait).await.expect("it is so in time");
}

/// Waits until a session has ended, and returns why.
pub(crate) async fn ended(session: &dyn Acceptor) -> String {
    let mut state = session.state();
    let closed = state.wait_for(|state| matches!(state, State::Closed { .. }));
    let closed = timeout(SOON, closed).await.expect("it ends").unwrap();
    match &*closed {
        State::Closed { reason, .. } => reason.clone(),
        State::Open | State::Draining => unreachable!("it was waited for"),
    }
}

// === Running ===

impl Running {
    pub(crate) async fn open(
        config: Config,
        credentials: Credentials,
        transports: Vec<NamedTransport>,
    ) -> Self {
        Self::knowing(config, credentials, transports, NodeTable::new(nodes())).await
    }

    async fn knowing(
        config: Config,
        credentials: Credentials,
        transports: Vec<NamedTransport>,
        nodes: NodeTable,
    ) -> Self {
        let nodes = (Box::new(Still) as Box<dyn NodeSource>, nodes);
        let server = Server::open(config, credentials, transports, nodes);
        let server = server.await.unwrap();
        // A server without a transport has no address.
        let address = server.address().unwrap_or(at(0));
        let admin = server.admin_address().unwrap();
        let (dial, shutdown) = (server.dial(), CancellationToken::new());
        let work = server.work();
        let mut tasks = JoinSet::new();
        tasks.spawn(server.run(egress::Metrics::default(), shutdown.clone()));
        Self {
            address,
            admin,
            dial,
            shutdown,
            work,
            tasks,
        }
    }

    /// A connection for kube-apiserver.
    pub(crate) async fn dial(&self, to: &str) -> Result<Dialled, Error> {
        let to = to.parse().unwrap();
        let dial = self.dial.dial(&Caller::ApiServer, &to, DIAL);
        timeout(SOON, dial).await.expect("a dial has an end")
    }

    /// Waits until a dial gets a connection.
    pub(crate) async fn reaches(&self, to: &str) -> Dialled {
        let tried = async {
            loop {
                match self.dial(to).await {
                    Ok(dialled) => return dialled,
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        };
        timeout(SOON, tried).await.expect("it is reached in time")
    }

    pub(crate) fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// Waits until nothing of it is left.
    pub(crate) async fn ended(&mut self) {
        self.outcome().await.unwrap();
    }

    /// Waits until nothing of it is left and returns what it ended with.
    pub(crate) async fn outcome(&mut self) -> Result<(), tunnel_server::Error> {
        let ended = timeout(SOON, self.tasks.join_next()).await;
        ended.expect("the server ends").unwrap().unwrap()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.tasks.try_join_next().is_none()
    }

    /// Ends it without a word, as a kill does.
    pub(crate) async fn kill(mut self, network: &MemoryNetwork) {
        network.cut(self.address);
        self.tasks.shutdown().await;
    }

    /// Returns the code and the body of a page.
    pub(crate) async fn page(&self, target: &str) -> (u16, String) {
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = self.ask(request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.strip_prefix("HTTP/1.1 ").unwrap()[..3]
            .parse()
            .unwrap();
        (code, body.to_owned())
    }

    /// Returns what is answered to these bytes.
    pub(crate) async fn ask(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        // It may be reset after the answer, for what was not read of the request.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    /// Returns the value of a metric, which may have labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, page) = self.page("/metrics").await;
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.trim().parse().ok());
        value.unwrap_or_else(|| panic!("{name} is not in {page}"))
    }
}

// === Agent ===

impl Agent {
    pub(crate) fn serve(session: Arc<dyn Acceptor>, manner: Manner) -> Self {
        Self::serve_as(session, manner, None)
    }

    /// Serves as a process that says its name, or none.
    pub(crate) fn serve_as(
        session: Arc<dyn Acceptor>,
        manner: Manner,
        process: Option<&str>,
    ) -> Self {
        let said = Arc::new(Mutex::new(Said {
            process: process.map(str::to_owned),
            ..Said::default()
        }));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(session.clone(), said.clone(), manner));
        Self {
            session,
            said,
            _tasks: tasks,
        }
    }

    /// Returns what it was asked to dial.
    pub(crate) fn dialled(&self) -> Vec<String> {
        let said = self.said.lock();
        said.dialled.iter().map(ToString::to_string).collect()
    }

    /// Returns the lists of servers that it was told.
    pub(crate) fn servers(&self) -> Vec<String> {
        let lists = self.said.lock().servers.clone();
        lists
            .into_iter()
            .map(|list| String::from_utf8(list).unwrap())
            .collect()
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Agent")
    }
}

async fn accept(session: Arc<dyn Acceptor>, said: Arc<Mutex<Said>>, manner: Manner) {
    let mut streams = JoinSet::new();
    while let Ok(incoming) = session.accept().await {
        streams.spawn(answer(incoming, said.clone(), manner));
        while streams.try_join_next().is_some() {}
    }
}

async fn answer(incoming: Box<dyn Incoming>, said: Arc<Mutex<Said>>, manner: Manner) {
    let target = incoming.request().target.clone();
    match (target, manner) {
        (Target::Servers, _) => {
            let mut stream = incoming.accept().await.unwrap();
            let mut list = Vec::new();
            if stream.read_to_end(&mut list).await.is_ok() {
                let process = said.lock().process.clone();
                if let Some(process) = process {
                    let answer = yurt_tunnel::servers::encode_answer(&process);
                    stream.write_all(&answer).await.unwrap();
                }
                let _ = stream.shutdown().await;
                said.lock().servers.push(list);
            }
        }
        (target @ Target::Dial { .. }, manner) => {
            said.lock().dialled.push(target);
            dial(incoming, manner).await;
        }
        (_, Manner::Hangs) => std::future::pending().await,
        (_, _) => echo(incoming).await,
    }
}

async fn dial(incoming: Box<dyn Incoming>, manner: Manner) {
    match manner {
        Manner::Echoes => echo(incoming).await,
        Manner::Dials(address) => {
            let mut stream = incoming.accept().await.unwrap();
            let mut socket = TcpStream::connect(address).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut socket).await;
        }
        Manner::Refuses => {
            let kind = yurt_core::transport::ErrorKind::Refused;
            let target = &incoming.request().target;
            let message = format!("dial {target}: the connection is refused");
            incoming.reject(Error::new(kind, message));
        }
        Manner::Lacks => {
            let kind = yurt_core::transport::ErrorKind::NoPeer;
            incoming.reject(Error::new(kind, "no agent of the node is connected here"));
        }
        Manner::Hangs => {
            let mut incoming = incoming;
            incoming.cancelled().await;
        }
    }
}

async fn echo(incoming: Box<dyn Incoming>) {
    if let Ok(stream) = incoming.accept().await {
        let (mut read, mut write) = split(stream);
        if copy(&mut read, &mut write).await.is_ok() {
            let _ = write.shutdown().await;
        }
    }
}

/// Shows that what was sent comes back, to its end.
pub(crate) async fn echoes(dialled: &mut Dialled) {
    let exchange = async {
        dialled.write_all(b"to the edge and back").await?;
        dialled.shutdown().await?;
        let mut back = String::new();
        dialled.read_to_string(&mut back).await?;
        Ok::<_, std::io::Error>(back)
    };
    let back = timeout(SOON, exchange).await.expect("an echo has an end");
    assert_eq!(back.unwrap(), "to the edge and back");
}

/// Whether a byte comes back at once, and the stream stays.
pub(crate) async fn is_alive(dialled: &mut Dialled) -> bool {
    let mut byte = [0];
    let sent = dialled.write_all(b"x").await;
    sent.is_ok() && dialled.read_exact(&mut byte).await.is_ok() && byte == *b"x"
}
