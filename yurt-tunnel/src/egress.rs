//! Doors: where kube-apiserver, Prometheus and others ask for a connection to a node.
//!
//! All three doors speak HTTP CONNECT, and authenticate their clients by different means:
//!
//! - the **unix socket** is for kube-apiserver on the same host: an egress selector of `HTTPConnect` over `uds`.
//!   Whoever may open the file, mode 0660, is kube-apiserver.
//! - the **listener** is for kube-apiserver elsewhere: `HTTPConnect` over `tcp`, TLS 1.2 or 1.3, with a certificate
//!   whose user the [`Policy`] names as an API server.
//! - the **CONNECT door** is for all others, as Prometheus by its `proxy_url`: TLS with a certificate whose user
//!   or group has a [`Rule`]; without one nothing is reached. Only the [`Dial`] knows where an address leads, so it
//!   asks [`Policy::allows`].
//!
//! A request `CONNECT host:port` is answered within the time of [`Limits`]: with `200 Connection Established` when the
//! target is connected, else with a status and a reason:
//!
//! | status | why |
//! |---|---|
//! | 400 | not a request of HTTP/1, or its target is not `host:port` |
//! | 403 | the client is not allowed to |
//! | 405 | another method |
//! | 408 | no request in time |
//! | 502 | no agent of the node is connected; the target refused, or is unreachable |
//! | 503 | draining, or overloaded; `Retry-After` says when to try again |
//! | 504 | the target did not answer in time |
//!
//! For a target without TLS, Prometheus and Go send `GET http://host:port/path` to a `proxy_url`: it is passed on to
//! `host:port` under the same rules, and so is HEAD. A connection serves one such request, without a body.
//!
//! The 200 is never read together with the target's first bytes, which would make kube-apiserver give up: over TLS it
//! is a record of its own, on the socket nothing follows until the client has read it. Then bytes pass both ways,
//! opaque: each direction ends on its own, a failure of one end resets the other, and silence ends nothing. A client
//! that ends its direction before the answer cancels the dial; bytes it may send early. A unix socket has no reset: a
//! failure is an early end there, which the TLS inside detects.

mod acceptor;
mod answer;
mod client;
mod head;
mod metrics;
mod pending;
mod policy;
mod socket;
mod tunnel;
mod visit;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::acceptor::{Acceptor, Listener};
use self::pending::PendingLimiter;
use self::socket::SocketFile;
use self::visit::Shared;
use crate::children::Children;
use crate::dial::Dial;
use crate::identity::Credentials;
use crate::shares::Shares;

pub use self::head::{BadHead, Head, MAX_HEAD_LEN, head};
pub use self::metrics::Metrics;
pub use self::policy::{Denied, Destination, Mistake, Nodes, Policy, Ports, Rule};
pub use self::socket::SocketError;

/// The doors to open. Plain data; the [default](Self::default) has none.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The unix socket for kube-apiserver.
    pub socket: Option<PathBuf>,
    /// The address for kube-apiserver, TLS.
    pub listen: Option<SocketAddr>,
    /// The address for all other clients, TLS.
    pub connect: Option<SocketAddr>,
    /// Who may reach what.
    pub policy: Policy,
    /// The limits of all doors together.
    pub limits: Limits,
}

/// Limits of the doors.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How long a client may take for its handshake and its request.
    pub head: Duration,
    /// How long a dial may take.
    pub dial: Duration,
    /// Connections without a request yet; beyond, the oldest of the source that has most is closed.
    pub waiting: usize,
    /// Tunnels of kube-apiserver, including those being dialled.
    pub api_server_tunnels: usize,
    /// Tunnels of all other clients. A client gets one as long as it has fewer than are free: alone, half of them.
    pub client_tunnels: usize,
    /// How long a tunnel survives its client while the target neither reads nor writes.
    pub orphan: Duration,
    /// How long the doors and their tunnels may continue after the shutdown began.
    pub drain: Duration,
}

/// One of the doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Socket,
    Listener,
    Connect,
}

/// Why the doors cannot open, or have ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The unix socket could not be opened.
    #[error("open the egress socket")]
    Socket(#[from] SocketError),
    /// A door could not listen.
    #[error("listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A step failed that the system does not usually refuse.
    #[error("{step}")]
    System {
        /// Which step.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A door has ended before the shutdown.
    #[error("{door} has ended")]
    Ended {
        /// Which.
        door: String,
        /// Its panic, unless it just returned.
        source: Option<JoinError>,
    },
}

/// The open doors. They listen from [`Doors::open`] on and answer in [`Doors::run`].
///
/// # Example
///
/// ```no_run
/// use std::sync::Arc;
/// use tokio_util::sync::CancellationToken;
/// use tokio_util::task::TaskTracker;
/// use yurt_tunnel::egress::{Config, Doors, Error};
/// use yurt_tunnel::identity::Credentials;
/// use yurt_tunnel::dial::Dial;
///
/// async fn serve(
///     credentials: Credentials,
///     dial: Arc<dyn Dial>,
///     shutdown: CancellationToken,
/// ) -> Result<(), Error> {
///     let config = Config {
///         socket: Some("/run/yurt/egress.sock".into()),
///         ..Config::default()
///     };
///     let doors = Doors::open(config, credentials, dial)?;
///     doors.run(shutdown, TaskTracker::new()).await
/// }
/// ```
#[derive(Debug)]
pub struct Doors {
    socket: Option<(UnixListener, SocketFile)>,
    listener: Option<TcpListener>,
    connect: Option<TcpListener>,
    shared: Shared,
}

// === Limits, Door ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            dial: Duration::from_secs(8),
            waiting: 512,
            api_server_tunnels: 16_384,
            client_tunnels: 8_192,
            orphan: Duration::from_secs(30),
            drain: Duration::from_secs(30),
        }
    }
}

impl Door {
    fn label(self) -> &'static str {
        match self {
            Self::Socket => "egress_socket",
            Self::Listener => "egress",
            Self::Connect => "connect",
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

// === Doors ===

impl Doors {
    /// Listens at every door of the configuration; `dial` makes the connections.
    ///
    /// A socket without a server is replaced. Each handshake uses the current certificates of `credentials`.
    ///
    /// # Errors
    /// A path or an address that cannot be used.
    pub fn open(
        config: Config,
        credentials: Credentials,
        dial: Arc<dyn Dial>,
    ) -> Result<Self, Error> {
        let limits = config.limits;
        let api_server_tunnels = limits.api_server_tunnels.min(Semaphore::MAX_PERMITS);
        Ok(Self {
            socket: config.socket.as_deref().map(socket::listen).transpose()?,
            listener: config.listen.map(listen).transpose()?,
            connect: config.connect.map(listen).transpose()?,
            shared: Shared {
                policy: config.policy,
                credentials,
                dial,
                metrics: Metrics::default(),
                pending: PendingLimiter::new(limits.waiting),
                api_server_tunnels: Arc::new(Semaphore::new(api_server_tunnels)),
                client_tunnels: Shares::new(limits.client_tunnels),
                limits,
            },
        })
    }

    /// Returns the address for kube-apiserver.
    #[must_use]
    pub fn listen_addr(&self) -> Option<SocketAddr> {
        self.listener.as_ref()?.local_addr().ok()
    }

    /// Returns the address for all other clients.
    #[must_use]
    pub fn connect_addr(&self) -> Option<SocketAddr> {
        self.connect.as_ref()?.local_addr().ok()
    }

    /// Returns the doors' metrics.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.shared.metrics.clone()
    }

    /// Serves until `shutdown`, then as long as there is `work`, up to the drain time: the doors' own tunnels, and
    /// the work of a server beside them. When it returns nothing of the doors is left.
    ///
    /// From the shutdown on, another process may take over the unix socket; new clients then reach that process.
    ///
    /// # Errors
    /// If a listener cannot be polled, or a door ends before the shutdown.
    ///
    /// # Cancel safety
    /// Dropping it resets every tunnel.
    pub async fn run(self, shutdown: CancellationToken, work: TaskTracker) -> Result<(), Error> {
        let (socket, file) = self.socket.unzip();
        let listeners = listeners(socket, self.listener, self.connect)?;
        let closed = CancellationToken::new();
        let (drain, shared) = (self.shared.limits.drain, Arc::new(self.shared));
        let end = CancellationToken::new();
        // Whatever ends this future ends its tasks.
        let _guard = end.clone().drop_guard();
        let visits = TaskTracker::new();
        let mut acceptors = Children::default();
        for (door, listener) in listeners {
            let acceptor = Acceptor {
                door,
                shared: shared.clone(),
                visits: visits.clone(),
                work: work.clone(),
                closed: closed.clone(),
                end: end.clone(),
            };
            acceptors.spawn(format!("the door {door}"), acceptor.accept(listener));
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            ended = acceptors.next_ended() => {
                let (door, source) = (ended.task, ended.panicked);
                return Err(Error::Ended { door, source });
            }
        }
        if let Some(file) = &file {
            file.offer();
        }
        let by = tokio::time::Instant::now() + drain;
        work.close();
        let is_done = tokio::time::timeout_at(by, work.wait()).await.is_ok();
        drop(file);
        closed.cancel();
        acceptors.join().await;
        visits.close();
        // Connections that were made in time are still served.
        if !is_done || tokio::time::timeout_at(by, visits.wait()).await.is_err() {
            tracing::warn!(
                tunnels = visits.len(),
                "aborting the tunnels that did not end in time"
            );
            end.cancel();
            visits.wait().await;
        }
        Ok(())
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn listeners(
    socket: Option<UnixListener>,
    listener: Option<TcpListener>,
    connect: Option<TcpListener>,
) -> Result<Vec<(Door, Listener)>, Error> {
    let failed = |source| Error::System {
        step: "wait for connections",
        source,
    };
    let mut listeners = Vec::new();
    if let Some(socket) = socket {
        let socket = tokio::net::UnixListener::from_std(socket).map_err(failed)?;
        listeners.push((Door::Socket, Listener::Socket(socket)));
    }
    for (door, tcp) in [(Door::Listener, listener), (Door::Connect, connect)] {
        if let Some(tcp) = tcp {
            let tcp = tokio::net::TcpListener::from_std(tcp).map_err(failed)?;
            listeners.push((door, Listener::Tcp(tcp)));
        }
    }
    Ok(listeners)
}
