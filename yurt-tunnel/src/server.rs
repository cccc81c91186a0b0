//! The cloud end: who is connected, and who serves what is dialled.
//!
//! Agents connect to it by any of its transports and are known by their certificates. A [`Dial`] of it reaches a
//! node by its agent, wherever among the servers that is connected, and everything else directly.

mod check;
mod connect;
mod denied;
mod figures;
mod peers;
mod pick;
mod refusals;
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
use self::figures::Figures;
use self::refusals::Refusals;
use self::registry::Registry;
use self::router::{CLIENT_STREAMS, Router};
use self::run::Running;
use crate::admin::scrape::Totals;
use crate::dial::{Address, Dial};
use crate::egress::{self, Policy};
use crate::identity::Credentials;
use crate::nodes::{NodeSource, NodeTable};
use crate::shares::Shares;
use crate::transport::NamedTransport;

type Listeners = Vec<(&'static str, Box<dyn Listener>)>;

/// How many free ports are tried until one is free for every transport.
const FREE_PORTS: usize = 16;

/// How a server is set up.
#[derive(Debug)]
pub struct Config {
    /// Where agents and other servers connect, by every transport.
    pub listen: SocketAddr,
    /// The other servers.
    pub peers: Vec<Address>,
    /// How agents reach this server; told to them with the peers.
    pub advertise: Vec<Address>,
    /// Who may reach what.
    pub policy: Policy,
    /// A file of nodes that are not let in: a name in each line, or a name and an age such as `24h`, which their
    /// certificates may have. Read again every few seconds.
    pub denied_nodes: Option<PathBuf>,
    /// Where health and metrics are shown.
    pub admin_listen: Option<SocketAddr>,
    /// How long streams may go on after the shutdown began.
    pub drain: Duration,
}

/// Why there is no server, or no longer one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A transport cannot listen.
    #[error("listen for agents at {address} by {transport}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Which transport.
        transport: &'static str,
        /// Why.
        source: transport::Error,
    },
    /// Health and metrics cannot be shown.
    #[error("listen at {address} for health and metrics")]
    Admin {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The list of denied nodes is none.
    #[error("take the list of denied nodes")]
    Denied(#[source] InvalidDenied),
    /// A task has ended that the server cannot be without.
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
    figures: Figures,
    refusals: Refusals,
    denied: DeniedNodes,
    /// The task that has ended and that the server cannot be without.
    lost: OnceLock<String>,
    /// The list for agents, encoded.
    servers: Vec<u8>,
    /// Where agents connect.
    address: SocketAddr,
}

impl Server {
    /// Listens for agents; streams flow from [`run`](Self::run) on.
    ///
    /// `nodes` is what is known of the nodes before `source` says more.
    ///
    /// # Errors
    /// An address that cannot be had.
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
        let figures = Figures::new();
        let router = Arc::new(Router {
            registry: registry.clone(),
            nodes,
            policy: config.policy,
            figures: figures.clone(),
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
            figures,
            refusals: Refusals::default(),
            denied: DeniedNodes::new(denied),
            lost: OnceLock::new(),
            servers: crate::servers::encode(&known),
            address,
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

    /// Returns where agents connect.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listeners
            .first()
            .map(|(_, listener)| listener.address())
    }

    /// Returns where health and metrics are shown.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref()?.local_addr().ok()
    }

    /// Returns what makes connections for the doors.
    #[must_use]
    pub fn dial(&self) -> Arc<dyn Dial> {
        self.shared.router.clone()
    }

    /// Returns what is still to be done: the sessions of agents, and what others take a token for. As long as there is
    /// something, a server that drains makes connections: directly, and through other servers.
    #[must_use]
    pub fn work(&self) -> TaskTracker {
        self.work.clone()
    }

    /// Serves until `shutdown`, then drains: agents are told to go elsewhere, streams may end in their time.
    /// When it returns nothing of the server is left.
    ///
    /// A server that loses a listener, or another task that it cannot be without, cancels `shutdown` and drains.
    ///
    /// # Errors
    /// [`Error::Ended`], after the drain.
    ///
    /// # Cancel safety
    /// Dropping it ends every session.
    pub async fn run(
        self,
        doors: egress::Figures,
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
            // The first one's free port is another's with the next.
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
