//! Peers on their way to a session over HTTP/2, side by side and bounded.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use http::HeaderMap;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use yurt_core::transport::{Error, ErrorKind, Listener, Opener, Result};

use super::carrier::{BULK, HELLO_PATH, INTERACTIVE, LANE, SESSION, request};
use super::lane::{self, h2_refusal};
use super::opening::{Opening, OpeningCarrier};
use crate::identity::{Credentials, Refusal};
use crate::link::{Config, Role};
use crate::transport::handshake::{Handshakes, User, no_session, refusal};
use crate::transport::session::Handle;

/// Connections that wait for the process.
const BACKLOG: i32 = 4096;

/// Sessions that may get a second connection, by their names.
type Sessions = Arc<Mutex<HashMap<String, Weak<Opening>>>>;

/// A new session, or none when the connection was the second of one.
type Shaken = Option<Arc<dyn Opener>>;

/// Where HTTP/2 listens.
pub(super) struct H2Listener {
    address: SocketAddr,
    socket: TcpListener,
    shaking: Shaking,
    running: tokio::sync::Mutex<Handshakes<Shaken>>,
}

#[derive(Clone)]
struct Shaking {
    credentials: Credentials,
    config: Config,
    sessions: Sessions,
}

impl H2Listener {
    pub(super) fn bind(
        address: SocketAddr,
        credentials: Credentials,
        config: Config,
    ) -> Result<Self> {
        let bind = || {
            let socket = Socket::new(
                Domain::for_address(address),
                Type::STREAM,
                Some(Protocol::TCP),
            )?;
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                socket.set_only_v6(false)?;
            }
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            let socket = TcpListener::from_std(socket.into())?;
            Ok((socket.local_addr()?, socket))
        };
        let (address, socket) = bind().map_err(|source: std::io::Error| {
            Error::new(ErrorKind::Other, format!("listen at {address}")).with_source(source)
        })?;
        Ok(Self {
            address,
            socket,
            shaking: Shaking {
                credentials,
                config,
                sessions: Sessions::default(),
            },
            running: tokio::sync::Mutex::new(Handshakes::new()),
        })
    }
}

impl H2Listener {
    async fn next(&self) -> Result<Arc<dyn Opener>> {
        let mut running = self.running.lock().await;
        loop {
            tokio::select! {
                shaken = running.next() => if let Some(session) = shaken? {
                    return Ok(session);
                },
                accepted = self.socket.accept() => {
                    let (socket, address) = accepted.map_err(|source| {
                        Error::new(ErrorKind::Other, "take a connection").with_source(source)
                    })?;
                    let shaking = self.shaking.clone();
                    running.begin(address, |user| shaking.shake(socket, address, user))?;
                }
            }
        }
    }
}

#[async_trait]
impl Listener for H2Listener {
    fn address(&self) -> SocketAddr {
        self.address
    }

    /// It never ends: whatever the system says of one connection, another may follow.
    async fn accept(&self) -> Option<Result<Arc<dyn Opener>>> {
        Some(self.next().await)
    }
}

impl fmt::Debug for H2Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H2Listener")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Shaking {
    async fn shake(self, socket: TcpStream, address: SocketAddr, user: User) -> Result<Shaken> {
        let (requests, mut connection, peer, wire) =
            lane::accept(socket, address, &self.credentials, &self.config).await?;
        user.get_or_init(|| peer.user.clone());
        let hello = async {
            let mut requests = requests.clone().ready().await?;
            requests.send_request(request(HELLO_PATH), true)?.0.await
        };
        let answer = tokio::select! {
            answer = hello => answer,
            ended = &mut connection => match ended {
                Ok(()) => return Err(refusal(address, Refusal::HungUp)),
                Err(error) => Err(error),
            },
        };
        let answer = answer.map_err(|error| h2_refusal(address, &error))?;
        let (name, lane) =
            said(answer.headers()).ok_or_else(|| refusal(address, Refusal::Protocol))?;
        if lane == BULK {
            let session = self.sessions.lock().get(&name).and_then(Weak::upgrade);
            let session = session.filter(|session| session.user() == peer.user);
            let session = session.ok_or_else(|| refusal(address, Refusal::Unauthorized))?;
            session.attach(requests, connection, &wire);
            return Ok(None);
        }
        let user = peer.user.clone();
        let at = (address, wire);
        let carrier = OpeningCarrier::new(at, user, requests, connection, &self.config);
        {
            let mut sessions = self.sessions.lock();
            if sessions.len() >= sessions.capacity() {
                sessions.retain(|_, session| session.strong_count() > 0);
            }
            sessions.insert(name, carrier.downgrade());
        }
        let session = Handle::begin(carrier, peer.clone(), Role::Opener, self.config).await;
        let session = session.map_err(|error| no_session(address, &peer, &error))?;
        Ok(Some(Arc::new(session)))
    }
}

/// The session's name and the connection's place in it.
fn said(headers: &HeaderMap) -> Option<(String, String)> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let (name, lane) = (text(SESSION)?, text(LANE)?);
    let is_known = lane == BULK || lane == INTERACTIVE;
    (name.len() == 32 && is_known).then_some((name, lane))
}
