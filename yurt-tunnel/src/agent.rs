//! The edge end: keeps links to the servers, and dials what they ask for.
//!
//! An agent connects to some of the servers that it knows, all at once and spread over the nodes; one that is lost
//! is redialled, and replaced by the next while it is away. Each link takes the first way of connecting that works,
//! and goes over to the preferred one, or to a new certificate, beside the old session: no stream is lost. Two
//! addresses that lead to the same server are two links.

mod admin;
mod allow;
mod board;
mod config;
mod dial;
mod keep_alive;
mod keeper;
mod known;
mod links;
mod memory;
mod metrics;
mod network;
mod pick;
mod policy;
mod probes;
mod pulse;
mod quality;
mod race;
mod session;
mod tasks;
#[cfg(test)]
mod tests;
mod told;
mod want;
mod winners;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinError;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::allow::{Allow, InvalidAllow};
use self::board::Board;
pub use self::config::Config;
pub use self::keep_alive::KeepAlive;
use self::keep_alive::Part;
use self::known::Known;
use self::links::Links;
use self::memory::{Memory, MemoryError, Remembered};
use self::metrics::Metrics;
use self::policy::Policy;
use self::winners::Winners;
use crate::admin::scrape::{self, Totals};
use crate::children::{Children, Ended};
use crate::dial::Address;
use crate::identity::Credentials;
use crate::transport::NamedTransport;
use crate::trust::{self, Peers};

/// The edge end of the tunnel.
///
/// ```no_run
/// use tokio_util::sync::CancellationToken;
/// use yurt_tunnel::agent::{Agent, Config};
/// use yurt_tunnel::identity::{Credentials, Files};
/// use yurt_tunnel::link;
/// use yurt_tunnel::transport::{NamedTransport, h2::H2Transport, quic::QuicTransport};
///
/// async fn serve(files: Files) -> Result<(), Box<dyn std::error::Error>> {
///     let credentials = Credentials::load(files)?;
///     let quic = QuicTransport::new(credentials.clone(), link::Config::default());
///     let h2 = H2Transport::new(credentials.clone(), link::Config::default());
///     let transports = vec![
///         NamedTransport::new("quic", quic).over_udp(),
///         NamedTransport::new("h2", h2),
///     ];
///     let servers = vec!["tunnel.example:8443".parse()?];
///     let config = Config::new("edge-1".parse()?, servers, "/var/lib/yurt-tunnel-agent".into());
///     let agent = Agent::new(config, transports).with_credentials(credentials);
///     agent.run(CancellationToken::new()).await?;
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Agent {
    config: Config,
    transports: Vec<NamedTransport>,
    credentials: Option<Credentials>,
    /// The number of changes of the network.
    network: watch::Sender<u64>,
}

/// Why an agent cannot run, or no longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What is remembered cannot be read, or its folder cannot be had.
    #[error("open the agent's memory")]
    OpenMemory(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The address for health and metrics cannot be had.
    #[error("listen at {address}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A task has ended that the agent cannot be without.
    #[error("{task} has ended")]
    Ended {
        /// Which task.
        task: String,
        /// Its panic, unless it just returned.
        source: Option<JoinError>,
    },
}

/// What the agent's parts share.
#[derive(Debug)]
struct Shared {
    config: Config,
    transports: Vec<NamedTransport>,
    policy: Policy,
    known: Mutex<Known>,
    winners: Mutex<Winners>,
    standings: Mutex<BTreeMap<SocketAddr, Standing>>,
    /// The server by which dials come; the links to others are spare.
    first: Mutex<Option<SocketAddr>>,
    board: Arc<Board>,
    metrics: Metrics,
    /// The name of this process, which no other has.
    process: String,
    /// Dials that may be on their way.
    dials: Semaphore,
    /// The number of our certificate.
    certificate: watch::Sender<u64>,
    /// The number of changes of the network.
    network: watch::Sender<u64>,
    /// The servers, or how they stand, have changed.
    changed: Notify,
    resolve_now: Notify,
    worth_keeping: Notify,
}

/// How the link to a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Up,
    Away,
}

// === Agent ===

impl Agent {
    /// Returns an agent that connects by the first of the transports that works; the earlier are preferred.
    #[must_use]
    pub fn new(config: Config, transports: Vec<NamedTransport>) -> Self {
        Self {
            config,
            transports,
            credentials: None,
            network: watch::Sender::new(0),
        }
    }

    /// Reads these credentials, which the transports show, again and again: sessions follow a change.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Keeps the links until `shutdown`, or until it loses a task that it cannot be without; then lets streams finish
    /// for a while.
    ///
    /// # Errors
    /// When the folder or the address for health and metrics cannot be had, and [`Error::Ended`]. A server that cannot
    /// be reached is no error.
    ///
    /// # Cancel safety
    /// Dropped, every session is closed.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let folder = self.config.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || Memory::open(&folder)).await;
        let (memory, remembered) = opened
            .expect("reading a file does not panic")
            .map_err(|error: MemoryError| Error::OpenMemory(error.into()))?;
        let listener = listen(self.config.admin_listen).await?;
        let mut shared = Shared::new(self.config, self.transports, remembered);
        shared.network = self.network;
        let shared = Arc::new(shared);
        let stop = CancellationToken::new();
        let mut keeping = Children::default();
        let remembered = tasks::remember(shared.clone(), memory, stop.clone());
        keeping.spawn("what remembers the servers", remembered);
        let mut tasks = shared.start(self.credentials);
        if let Some(listener) = listener {
            let status = Arc::new(admin::Status(shared.clone()));
            let served = crate::admin::serve(listener, status, stop.clone());
            tasks.spawn("the listener for health and metrics", served);
        }
        shared.changed.notify_one();
        let mut links = Links::default();
        let lost = tokio::select! {
            ended = shared.keep(&mut links, &shutdown) => ended,
            ended = tasks.next_ended() => Some(ended),
            ended = keeping.next_ended() => Some(ended),
        };
        if let Some(Ended { task, .. }) = &lost {
            tracing::error!(task, "the agent ends: it cannot be without this task");
        }
        links.end(shared.config.drain).await;
        tasks.shutdown().await;
        stop.cancel();
        keeping.join().await;
        match lost {
            None => Ok(()),
            Some(Ended { task, panicked }) => Err(Error::Ended {
                task,
                source: panicked,
            }),
        }
    }
}

async fn listen(address: Option<SocketAddr>) -> Result<Option<TcpListener>, Error> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| Error::Listen { address, source })?;
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!(%address, "health and metrics are served");
    Ok(Some(listener))
}

// === Shared ===

impl Shared {
    fn new(config: Config, transports: Vec<NamedTransport>, remembered: Remembered) -> Self {
        let board = Arc::new(Board::new(Totals::new(&transports)));
        Self {
            policy: Policy {
                node: config.node_name.clone(),
                kubelet_port: config.kubelet_port,
                allow: config.allow.clone(),
            },
            known: Mutex::new(Known::new(config.servers.clone(), remembered.servers)),
            winners: Mutex::new(Winners::new(remembered.winners)),
            standings: Mutex::default(),
            first: Mutex::default(),
            metrics: Metrics::new(board.clone()),
            board,
            process: format!("{:016x}", fastrand::u64(..)),
            dials: Semaphore::new(config.dials),
            certificate: watch::Sender::new(0),
            network: watch::Sender::new(0),
            changed: Notify::new(),
            resolve_now: Notify::new(),
            worth_keeping: Notify::new(),
            config,
            transports,
        }
    }

    /// Starts what goes on beside the links.
    fn start(self: &Arc<Self>, credentials: Option<Credentials>) -> Children {
        let held = scrape::Held(self.config.buffers.clone());
        self.metrics.collect(Box::new(held));
        let mut tasks = Children::default();
        let resolved = tasks::resolve(self.clone());
        tasks.spawn("what resolves the servers' names", resolved);
        let watched = tasks::watch_network(self.clone());
        tasks.spawn("what watches the network", watched);
        if let Some(credentials) = credentials {
            let process = scrape::Process(credentials.clone());
            self.metrics.collect(Box::new(process));
            let board = self.board.clone();
            let sessions = move || board.sessions();
            let trusted = trust::run(Peers::Servers, credentials.clone(), sessions, |_| {});
            tasks.spawn("what looks whether servers are still believed", trusted);
            let reloaded = tasks::reload(self.clone(), credentials);
            tasks.spawn("what reads the certificates again", reloaded);
        }
        tasks
    }

    /// Keeps as many links as are wanted, to the servers that are known, until the shutdown or until one is lost.
    async fn keep(
        self: &Arc<Self>,
        links: &mut Links,
        shutdown: &CancellationToken,
    ) -> Option<Ended> {
        loop {
            let wake = links.settle(self, Instant::now());
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = self.changed.notified() => {}
                ended = links.keepers.next_ended() => {
                    // One that was told to end just returns.
                    if ended.panicked.is_some() {
                        return Some(ended);
                    }
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    /// Notes how the link to a server stands.
    fn stand(&self, server: SocketAddr, standing: Standing) {
        if self.standings.lock().insert(server, standing) != Some(standing) {
            self.changed.notify_one();
        }
    }

    /// Returns the servers whose link is up.
    fn up(&self) -> BTreeSet<SocketAddr> {
        let standings = self.standings.lock();
        let up = standings
            .iter()
            .filter(|(_, standing)| **standing == Standing::Up);
        up.map(|(server, _)| *server).collect()
    }

    /// Returns what the link to a server is for; where there is no first, it becomes so.
    fn part(&self, server: SocketAddr) -> Part {
        let mut first = self.first.lock();
        match *first.get_or_insert(server) == server {
            true => Part::First,
            false => Part::Spare,
        }
    }

    /// Notes that a dial has come by this server.
    fn is_used(&self, server: SocketAddr) {
        *self.first.lock() = Some(server);
    }

    /// Notes that a server is away: another will be the first.
    fn is_away(&self, server: SocketAddr) {
        self.first.lock().take_if(|first| *first == server);
    }

    /// Takes what a server says of its like.
    fn told(&self, teller: SocketAddr, servers: Vec<Address>) {
        tracing::debug!(server = %teller, count = servers.len(), "a server tells of its like");
        let is_near = |told: &Address| told::is_near(told, &self.config.servers);
        let (servers, others): (Vec<_>, Vec<_>) = servers.into_iter().partition(is_near);
        if !others.is_empty() {
            let count = others.len();
            tracing::info!(server = %teller, count, first = %others[0], "servers elsewhere than the configured ones are not believed");
        }
        self.known.lock().told(teller, servers);
        self.resolve_now.notify_one();
        self.worth_keeping.notify_one();
        self.changed.notify_one();
    }

    fn remember(&self) -> Remembered {
        Remembered {
            servers: self.known.lock().remember(),
            winners: self.winners.lock().remember(),
        }
    }
}
