//! The cloud end: who is connected, and who serves what is dialled.
//!
//! Agents connect to it by any of its transports and are known by their certificates. A [`Dial`] of it reaches a
//! node by its agent, wherever among the servers that is connected, and everything else directly.

mod check;
mod dial;
mod figures;
mod nodes;
mod peers;
mod pick;
mod refusals;
mod registry;
mod router;
mod sessions;
mod status;
mod tries;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use yurt_core::transport::{self, Listener};

pub use self::dial::{Address, Caller, Dial, Dialled, InvalidAddress};
use self::figures::Figures;
pub use self::nodes::{
    Found, InvalidNodes, KUBELET_PORT, Node, NodeSource, NodeTable, NodesFile, parse as parse_nodes,
};
use self::refusals::Refusals;
use self::registry::Registry;
use self::router::Router;
use self::status::Status;
use crate::admin;
use crate::egress::{self, Policy};
use crate::identity::Credentials;
use crate::transport::NamedTransport;
use crate::trust::{self, Peers};

/// The organization of certificates that make a peer another server.
pub const SERVERS_GROUP: &str = "yurt:tunnel-servers";

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
    /// Where health and metrics are shown.
    pub admin_listen: Option<SocketAddr>,
    /// How long streams may go on after the shutdown began.
    pub drain: Duration,
}

/// Why there is no server.
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
    drain: Duration,
    credentials: Credentials,
}

/// What the server's tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    registry: Arc<Registry>,
    router: Arc<Router>,
    transports: Vec<NamedTransport>,
    figures: Figures,
    refusals: Refusals,
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
        let (listeners, address) = listen(config.listen, &transports).await?;
        let admin = match config.admin_listen {
            None => None,
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| Error::Admin { address, source })?)
            }
        };
        let (table, nodes) = watch::channel(Arc::new(nodes));
        let registry = Arc::new(Registry::default());
        let figures = Figures::new();
        let router = Arc::new(Router {
            registry: registry.clone(),
            nodes,
            policy: config.policy,
            figures: figures.clone(),
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
            drain: config.drain,
            credentials,
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

    /// Serves until `shutdown`, then drains: agents are told to go elsewhere, streams may end in their time.
    /// When it returns nothing of the server is left.
    ///
    /// # Cancel safety
    /// Dropping it ends every session.
    pub async fn run(self, doors: egress::Figures, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        // Sessions live on while streams end.
        let end = CancellationToken::new();
        let _guard = end.clone().drop_guard();
        let mut aside = JoinSet::new();
        let shared = self.shared.clone();
        let sessions = move || shared.registry.sessions();
        let figures = self.shared.figures.clone();
        let refused = move |refusal| figures.refused(refusal);
        let credentials = self.credentials.clone();
        aside.spawn(trust::keep(Peers::Clients, credentials, sessions, refused));
        let status = Arc::new(Status::new(
            self.shared.clone(),
            &doors,
            self.credentials,
            shutdown.clone(),
        ));
        if let Some(listener) = self.admin {
            aside.spawn(admin::serve(listener, status, end.clone()));
        }
        let (source, table, stop) = (self.source, self.table, shutdown.clone());
        aside.spawn(async move { source.publish(table, stop).await });
        for (label, listener) in self.listeners {
            info!(address = %listener.address(), transport = label, "agents may connect");
            let token = shutdown.clone();
            tasks.spawn(sessions::accept(
                self.shared.clone(),
                label,
                listener,
                token,
            ));
        }
        for peer in self.peers {
            tasks.spawn(peers::link(self.shared.clone(), peer, shutdown.clone()));
        }
        shutdown.cancelled().await;
        let finished = async { while tasks.join_next().await.is_some() {} };
        if timeout(self.drain, finished).await.is_err() {
            let streams = self.shared.registry.stats().streams;
            warn!(streams, "streams did not end in time");
        }
        tasks.shutdown().await;
        self.shared.registry.close().await;
        end.cancel();
        aside.shutdown().await;
    }
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
    for NamedTransport { name, transport } in transports {
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
