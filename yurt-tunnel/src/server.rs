//! The cloud end: the connected agents, and the route to what is dialled.
//!
//! Agents connect by any of its transports and are identified by their certificates. Its [`Dial`] reaches a node
//! through its agent, whichever server that is connected to, and everything else directly.

mod check;
mod connect;
mod denied;
mod metrics;
mod peers;
mod pick;
mod refusal_log;
mod registry;
mod router;
mod run;
mod sessions;
mod status;
mod tries;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use yurt_core::transport::{self, Listener};

pub use self::denied::InvalidDenied;
use self::denied::{Denied, DeniedNodes};
use self::metrics::Metrics;
use self::refusal_log::RefusalLog;
use self::registry::Registry;
use self::router::{CLIENT_STREAMS, Router};
use self::run::Running;
use crate::admin::scrape::Totals;
use crate::dial::{Address, Dial};
use crate::egress::{self, Policy};
use crate::identity::Credentials;
use crate::link::Buffers;
use crate::nodes::{NodeSource, NodeTable};
use crate::shares::Shares;
use crate::transport::NamedTransport;

type Listeners = Vec<(&'static str, Box<dyn Listener>)>;

/// How many free ports to try until one is free for every transport.
const FREE_PORTS: usize = 16;

/// Server configuration.
#[derive(Debug)]
pub struct Config {
    /// The address for agents and other servers, of every transport.
    pub listen: SocketAddr,
    /// The other servers.
    pub peers: Vec<Address>,
    /// The addresses at which agents reach this server; sent to them with the peers.
    pub advertise: Vec<Address>,
    /// Who may reach what.
    pub policy: Policy,
    /// A file of nodes to refuse: one name per line, alone or with an age such as `24h`, which refuses only older
    /// certificates. Read again every few seconds.
    pub denied_nodes: Option<PathBuf>,
    /// The address that serves health and metrics.
    pub admin_listen: Option<SocketAddr>,
    /// How long streams may continue after the shutdown began.
    pub drain: Duration,
    /// The budget that the transports were made with, to be shown.
    pub buffers: Buffers,
}

/// Why a server cannot start, or has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A transport could not listen.
    #[error("listen for agents at {address} by {transport}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Which transport.
        transport: &'static str,
        /// Why.
        source: transport::Error,
    },
    /// The listener for health and metrics could not be bound.
    #[error("listen at {address} for health and metrics")]
    Admin {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The file of denied nodes is invalid.
    #[error("read the denied nodes")]
    Denied(#[source] InvalidDenied),
    /// A task ended that the server cannot do without.
    #[error("{task} has ended")]
    Ended {
        /// Which task.
        task: String,
        /// Its panic, unless it just returned.
        source: Option<JoinError>,
    },
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    listeners: Listeners,
    admin: Option<TcpListener>,
    source: Box<dyn NodeSource>,
    table: watch::Sender<Arc<NodeTable>>,
    peers: Vec<Address>,
    denied_nodes: Option<PathBuf>,
    drain: Duration,
    credentials: Credentials,
    work: TaskTracker,
}

/// What the server's tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    registry: Arc<Registry>,
    router: Arc<Router>,
    transports: Vec<NamedTransport>,
    metrics: Metrics,
    refusal_log: RefusalLog,
    denied: DeniedNodes,
    /// The task that ended and that the server cannot do without.
    lost: OnceLock<String>,
    /// The list of servers for agents, encoded.
    servers: Vec<u8>,
    /// Where agents connect.
    address: SocketAddr,
    buffers: Buffers,
}

impl Server {
    /// Listens for agents; streams flow from [`run`](Self::run) on.
    ///
    /// `nodes` is the table until `source` publishes another.
    ///
    /// # Errors
    /// If an address is not free, or the file of denied nodes is invalid.
    pub async fn open(
        config: Config,
        credentials: Credentials,
        transports: Vec<NamedTransport>,
        (source, nodes): (Box<dyn NodeSource>, NodeTable),
    ) -> Result<Self, Error> {
        let denied = read_denied(config.denied_nodes.clone()).await?;
        let (listeners, address) = listen(config.listen, &transports).await?;
        let admin = match config.admin_listen {
            None => None,
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| Error::Admin { address, source })?)
            }
        };
        let (table, nodes) = watch::channel(Arc::new(nodes));
        let registry = Arc::new(Registry::new(Totals::new(&transports)));
        let metrics = Metrics::new();
        let router = Arc::new(Router {
            registry: registry.clone(),
            nodes,
            policy: config.policy,
            metrics: metrics.clone(),
            clients: Shares::new(CLIENT_STREAMS),
        });
        let known: Vec<_> = config
            .advertise
            .iter()
            .chain(&config.peers)
            .cloned()
            .collect();
        let shared = Arc::new(Shared {
            registry,
            router,
            transports,
            metrics,
            refusal_log: RefusalLog::default(),
            denied: DeniedNodes::new(denied),
            lost: OnceLock::new(),
            servers: crate::servers::encode(&known),
            address,
            buffers: config.buffers,
        });
        Ok(Self {
            shared,
            listeners,
            admin,
            source,
            table,
            peers: config.peers,
            denied_nodes: config.denied_nodes,
            drain: config.drain,
            credentials,
            work: TaskTracker::new(),
        })
    }

    /// Returns the address for agents.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listeners
            .first()
            .map(|(_, listener)| listener.address())
    }

    /// Returns the address that serves health and metrics.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref()?.local_addr().ok()
    }

    /// Returns what makes the connections for the doors.
    #[must_use]
    pub fn dial(&self) -> Arc<dyn Dial> {
        self.shared.router.clone()
    }

    /// Returns what a drain waits for: the sessions of agents, and whatever others take a token for. Until then a
    /// draining server still makes connections, directly and through other servers.
    #[must_use]
    pub fn work(&self) -> TaskTracker {
        self.work.clone()
    }

    /// Serves until `shutdown`, then drains: agents move to other servers, streams may finish within the drain time.
    /// When it returns nothing of the server is left.
    ///
    /// When a listener, or another task that the server cannot do without, ends, it cancels `shutdown` and drains.
    ///
    /// # Errors
    /// [`Error::Ended`], after the drain.
    ///
    /// # Cancel safety
    /// Dropping it ends every session.
    pub async fn run(
        self,
        doors: egress::Metrics,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let end = CancellationToken::new();
        let _guard = end.clone().drop_guard();
        let running = Running::start(self, &doors, &shutdown, end);
        running.serve(&shutdown).await
    }
}

async fn read_denied(path: Option<PathBuf>) -> Result<Denied, Error> {
    let Some(path) = path else {
        return Ok(Denied::default());
    };
    let read = spawn_blocking(move || Denied::read(&path)).await;
    read.expect("reading a file does not panic")
        .map_err(Error::Denied)
}

/// Listens by every transport at one address.
async fn listen(
    address: SocketAddr,
    transports: &[NamedTransport],
) -> Result<(Listeners, SocketAddr), Error> {
    let mut attempts = if address.port() == 0 { FREE_PORTS } else { 1 };
    loop {
        attempts -= 1;
        match listen_once(address, transports).await {
            // A port that is free for one transport may be taken for the next.
            Err(_) if attempts > 0 => {}
            done => return done,
        }
    }
}

async fn listen_once(
    mut address: SocketAddr,
    transports: &[NamedTransport],
) -> Result<(Listeners, SocketAddr), Error> {
    let mut listeners = Listeners::new();
    for NamedTransport {
        name, transport, ..
    } in transports
    {
        let failed = |source| Error::Listen {
            address,
            transport: name,
            source,
        };
        let listener = transport.listen(address).await.map_err(failed)?;
        address.set_port(listener.address().port());
        listeners.push((name, listener));
    }
    Ok((listeners, address))
}
