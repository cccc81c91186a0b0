//! Front doors: where kube-apiserver, Prometheus and others ask for a connection to a node.
//!
//! All three doors speak the same words, HTTP CONNECT, and know the client by other means:
//!
//! - the **unix socket** is for kube-apiserver on the same host: an egress selector of `HTTPConnect` over `uds`.
//!   Who may open the file, mode 0660, is kube-apiserver.
//! - the **listener** is for kube-apiserver elsewhere: `HTTPConnect` over `tcp`, TLS 1.2 or 1.3, with a certificate
//!   whose user the [`Policy`] names as an API server.
//! - the **CONNECT door** is for all others, as Prometheus by its `proxy_url`: TLS with a certificate whose user
//!   or group has a [`Rule`]; without one nothing is reached. Where an address leads is known to the [`Dial`] alone,
//!   so it is the one to ask [`Policy::allows`].
//!
//! A request `CONNECT host:port` is answered within the time of [`Limits`]: by `200 Connection Established` when the
//! target is connected, else by the reason, in a status and in words:
//!
//! | status | why |
//! |---|---|
//! | 400 | what came is no request of HTTP/1, or its target no `host:port` |
//! | 403 | who asks may not |
//! | 405 | another method |
//! | 408 | no request in time |
//! | 502 | no agent for the node; the target refused, or cannot be reached |
//! | 503 | draining, or too much at once; `Retry-After` says when to come back |
//! | 504 | no answer of the target in time |
//!
//! For a target without TLS, as Prometheus and Go ask by a `proxy_url`, `GET http://host:port/path` goes by the same
//! rules to `host:port`, and its answer comes back as it is: one request without a body per connection, HEAD besides.
//!
//! The 200 is never read together with the target's first bytes, on which kube-apiserver gives up: over TLS it is a
//! record of its own, over the socket nothing follows before it was read. After it bytes pass unseen both ways: each direction ends by itself, a failure of one end resets the other, nothing that is
//! silent is ended. A client that goes before the answer ends the dial; to go is to end its direction, so a client
//! that has more to say waits for the answer with its end, not with its bytes. A unix socket knows no reset: a
//! failure is an early end there, which TLS inside detects.

mod answer;
mod client;
mod figures;
mod head;
mod policy;
mod porter;
mod room;
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

use self::porter::{Listener, Porter};
use self::room::Room;
use self::socket::SocketFile;
use self::visit::Shared;
use crate::children::Children;
use crate::dial::Dial;
use crate::identity::Credentials;
use crate::shares::Shares;

pub use self::figures::Figures;
pub use self::head::{BadHead, Head, MAX_HEAD_LEN, head};
pub use self::policy::{Denied, Destination, Mistake, Nodes, Policy, Ports, Rule};
pub use self::socket::SocketError;

/// Which doors there are. Plain data; the [default](Self::default) has none.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The unix socket for kube-apiserver.
    pub socket: Option<PathBuf>,
    /// Where kube-apiserver connects by TLS.
    pub listen: Option<SocketAddr>,
    /// Where all others connect by TLS.
    pub connect: Option<SocketAddr>,
    /// Who may come in.
    pub policy: Policy,
    /// How much and how long.
    pub limits: Limits,
}

/// How much the doors give, and how long they wait.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How long a client may take to be known and to ask.
    pub head: Duration,
    /// How long a dial may take.
    pub dial: Duration,
    /// Connections that have not asked yet, at all doors; beyond, the oldest of those who have most goes.
    pub waiting: usize,
    /// Tunnels of kube-apiserver, those that are being dialled included.
    pub api_server_tunnels: usize,
    /// Tunnels of all others. A client gets one as long as it has fewer than are free: half of them alone.
    pub client_tunnels: usize,
    /// How long a tunnel stays whose client is gone, and whose target takes nothing and has nothing to say.
    pub orphan: Duration,
    /// How long the doors, and their tunnels, may go on after the shutdown began.
    pub drain: Duration,
}

/// One of the doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Socket,
    Listener,
    Connect,
}

/// Why the doors cannot open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The unix socket cannot be had.
    #[error("open the egress socket")]
    Socket(#[from] SocketError),
    /// An address cannot be had.
    #[error("listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Something that the system gives to everybody cannot be had.
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
    /// A socket that nobody serves any more is replaced. Clients are shown and asked for certificates as
    /// `credentials` has them at the time.
    ///
    /// # Errors
    /// What cannot be had: a path, an address.
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
                figures: Figures::default(),
                room: Room::new(limits.waiting),
                api_server_tunnels: Arc::new(Semaphore::new(api_server_tunnels)),
                client_tunnels: Shares::new(limits.client_tunnels),
                limits,
            },
        })
    }

    /// Returns where kube-apiserver connects by TLS.
    #[must_use]
    pub fn listen_addr(&self) -> Option<SocketAddr> {
        self.listener.as_ref()?.local_addr().ok()
    }

    /// Returns where all others connect.
    #[must_use]
    pub fn connect_addr(&self) -> Option<SocketAddr> {
        self.connect.as_ref()?.local_addr().ok()
    }

    /// Returns what is counted.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.shared.figures.clone()
    }

    /// Answers until `shutdown`, and then as long as there is `work`, up to the drain time: the doors' own tunnels,
    /// and whatever a server beside them has to do. When it returns nothing of the doors is left.
    ///
    /// From the shutdown on another process may open the same unix socket, and clients go to it.
    ///
    /// # Errors
    /// If the system takes a listener back at the start, or if a door ends before the shutdown: at once.
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
        let mut porters = Children::default();
        for (door, listener) in listeners {
            let porter = Porter {
                door,
                shared: shared.clone(),
                visits: visits.clone(),
                work: work.clone(),
                closed: closed.clone(),
                end: end.clone(),
            };
            porters.spawn(format!("the door {door}"), porter.accept(listener));
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            ended = porters.next_ended() => {
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
        porters.join().await;
        visits.close();
        // Who was in time at the door may still be served.
        if !is_done || tokio::time::timeout_at(by, visits.wait()).await.is_err() {
            tracing::warn!(tunnels = visits.len(), "tunnels did not end in time");
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
