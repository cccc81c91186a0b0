//! A node, its agent, and servers on two networks: one that carries UDP, one that carries TCP.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use yurt_core::testing::transport::{MemoryNetwork, node, server};
use yurt_core::transport::{Error, Listener, Open, Opener, State, Stream, Target, Transport};

use super::starving::{Starved, Starving};
use crate::agent::{Agent, Config};
use crate::transport::NamedTransport;

pub(super) const NODE: &str = "edge-1";

/// Nothing here takes longer, in the time of the test.
const LIMIT: Duration = Duration::from_secs(1_200);

/// Networks, and a folder for what the agent remembers.
pub(super) struct World {
    pub(super) udp: MemoryNetwork,
    pub(super) tcp: MemoryNetwork,
    folder: TempDir,
}

/// An agent that runs until it is stopped or dropped.
pub(super) struct Running {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// A server's listener on one network.
pub(super) struct Cloud {
    pub(super) address: SocketAddr,
    listener: Box<dyn Listener>,
}

pub(super) fn at(last: u8) -> SocketAddr {
    ([127, 1, 0, last], 443).into()
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            udp: MemoryNetwork::new(),
            tcp: MemoryNetwork::new(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn config(&self, servers: &[SocketAddr]) -> Config {
        let servers = servers.iter().map(|&address| address.into()).collect();
        Config::new(
            NODE.parse().unwrap(),
            servers,
            self.folder.path().to_owned(),
        )
    }

    pub(super) fn agent(&self, config: Config) -> Agent {
        Agent::new(config, self.transports())
    }

    pub(super) fn transports(&self) -> Vec<NamedTransport> {
        let by = |name, network: &MemoryNetwork| {
            NamedTransport::new(name, network.transport(node(NODE)))
        };
        vec![by("quic", &self.udp), by("h2", &self.tcp)]
    }

    /// The same, the first of which starves what it carries.
    pub(super) fn starved(&self, starving: Starving) -> Vec<NamedTransport> {
        let mut transports = self.transports();
        let transport = self.udp.transport(node(NODE));
        transports[0] = NamedTransport::new(
            "quic",
            Starved {
                transport,
                starving,
            },
        );
        transports
    }

    pub(super) fn run(&self, config: Config) -> Running {
        Running::new(self.agent(config))
    }
}

impl Running {
    pub(super) fn new(agent: Agent) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let stopped = stop.clone();
        tasks.spawn(async move { agent.run(stopped).await.unwrap() });
        Self { stop, tasks }
    }

    /// Tells the agent to end.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the agent has ended.
    pub(super) async fn ended(&mut self) {
        let ended = timeout(LIMIT, self.tasks.join_next()).await;
        ended.expect("the agent ends").unwrap().unwrap();
    }
}

impl Cloud {
    pub(super) async fn new(network: &MemoryNetwork, address: SocketAddr) -> Self {
        let name = address.ip().to_string();
        let listener = network
            .transport(server(&name))
            .listen(address)
            .await
            .unwrap();
        Self { address, listener }
    }

    /// Returns the next session of an agent.
    pub(super) async fn next(&self) -> Arc<dyn Opener> {
        let accepted = timeout(LIMIT, self.listener.accept()).await;
        accepted.expect("an agent connects").unwrap().unwrap()
    }

    /// Returns the next session, whenever it comes.
    pub(super) async fn ever(&self) -> Arc<dyn Opener> {
        self.listener.accept().await.unwrap().unwrap()
    }

    /// Returns whether an agent connects within a time.
    pub(super) async fn is_called_within(&self, time: Duration) -> bool {
        timeout(time, self.listener.accept()).await.is_ok()
    }
}

/// Opens a stream.
pub(super) async fn open(
    session: &Arc<dyn Opener>,
    target: Target,
) -> Result<Box<dyn Stream>, Error> {
    session
        .open(Open::new(target, Duration::from_secs(5)))
        .await
}

/// Shows that a stream of the kind that returns every byte does so.
pub(super) async fn is_alive(stream: &mut Box<dyn Stream>) -> bool {
    let mut byte = [0];
    let sent = stream.write_all(b"x").await;
    sent.is_ok() && stream.read_exact(&mut byte).await.is_ok() && byte == *b"x"
}

/// Waits until a session has come to a state.
pub(super) async fn reached(session: &Arc<dyn Opener>, is_it: impl Fn(&State) -> bool) -> State {
    let mut state = session.state();
    let reached = timeout(LIMIT, state.wait_for(|state| is_it(state))).await;
    reached
        .expect("the session comes to the state")
        .unwrap()
        .clone()
}

pub(super) fn is_over(state: &State) -> bool {
    matches!(state, State::Closed { .. })
}
