//! One stream that a server wants: answered, refused, or connected to what it asked for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use yurt_core::name::NodeName;
use yurt_core::transport::{Error, ErrorKind, Incoming, Stream, Target};

use super::Shared;
use super::metrics::Outcome;
use super::policy::{Asked, Forbidden, canonical};
use crate::local;
use crate::servers;
use crate::splice::{self, Socket};

/// The longest time that a target has to answer in.
const DIAL_LIMIT: Duration = Duration::from_secs(5);

/// How long a server may take to tell of its like.
const TELL_LIMIT: Duration = Duration::from_secs(10);

/// The code of a stream whose target has failed.
const ABORTED: u16 = 1;

/// What to do about an address that is forbidden.
const ELSEWHERE: &str = "; this address is on no interface of the node, ask for one that is";

/// A target that has vanished without a word is noticed after this silence.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Answers the streams of one server.
#[derive(Debug)]
pub(super) struct Dialer {
    shared: Arc<Shared>,
    server: SocketAddr,
}

impl Dialer {
    pub(super) fn new(shared: Arc<Shared>, server: SocketAddr) -> Self {
        Self { shared, server }
    }

    /// Answers a stream and stays with it to its end.
    pub(super) async fn answer(self: Arc<Self>, incoming: Box<dyn Incoming>) {
        match incoming.request().target.clone() {
            Target::Dial { node, host, port } => {
                self.shared.is_used(self.server);
                self.dial(incoming, node, &host, port).await;
            }
            Target::Echo => echo(incoming).await,
            Target::Servers => self.listen(incoming).await,
            other => {
                let message = format!("this agent does not know what {other} is");
                incoming.reject(Error::new(ErrorKind::Other, message));
            }
        }
    }

    async fn dial(
        &self,
        mut incoming: Box<dyn Incoming>,
        node: Option<NodeName>,
        host: &str,
        port: u16,
    ) {
        let began = Instant::now();
        let limit = incoming.request().deadline.min(DIAL_LIMIT);
        let connected = tokio::select! {
            connected = self.connect(node.as_ref(), host, port, limit) => connected,
            () = incoming.cancelled() => {
                return self.shared.metrics.dialled(Outcome::Cancelled, began.elapsed());
            }
        };
        let tcp = match connected {
            Ok(tcp) => tcp,
            Err(error) => {
                self.shared
                    .metrics
                    .dialled(Outcome::of(error.kind()), began.elapsed());
                tracing::info!(server = %self.server, host, port, %error, "a stream is refused");
                return incoming.reject(error);
            }
        };
        self.shared
            .metrics
            .dialled(Outcome::Connected, began.elapsed());
        match incoming.accept().await {
            Ok(stream) => self.carry(stream, tcp, host, port).await,
            Err(error) => {
                tracing::debug!(server = %self.server, host, port, %error, "nobody wants the stream");
            }
        }
    }

    async fn carry(&self, mut stream: Box<dyn Stream>, tcp: TcpStream, host: &str, port: u16) {
        let id = stream.id();
        let server = self.server;
        tracing::debug!(%server, stream = id, host, port, "a stream begins");
        let mut target = Socket::from(tcp);
        match splice::both(&mut stream, &mut target).await {
            Ok(()) => {
                tracing::debug!(%server, stream = id, "a stream has ended");
                end_cleanly(target.tcp());
            }
            Err(error) => {
                tracing::debug!(%server, stream = id, %error, "a stream is broken off");
                stream.reset(ABORTED);
            }
        }
    }

    /// Connects to the target by the first of its addresses that may be dialled and answers.
    async fn connect(
        &self,
        node: Option<&NodeName>,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<TcpStream, Error> {
        let deadline = Instant::now() + limit;
        let target = Target::dial(host, port)?;
        let forbidden = |why: Forbidden, more: &str| {
            self.shared.metrics.forbidden(why);
            Error::new(ErrorKind::Forbidden, format!("dial {target}: {why}{more}"))
        };
        // Earlier than who asks gives up: it is to hear the reason.
        let permit = timeout(limit / 2, self.shared.dials.acquire()).await;
        let _permit = permit.map_err(|_| {
            let message = format!("dial {target}: the agent dials too much already");
            Error::new(ErrorKind::Overloaded, message)
        })?;
        let checked = self.shared.policy.check_node(node);
        checked.map_err(|why| forbidden(why, ""))?;
        let work = async {
            let mut last = None;
            for address in self.resolve(host, port, &target).await? {
                let is_own = local::is_own(address.ip());
                let connected = match self.meant(node, host, address, is_own) {
                    Ok(address) => TcpStream::connect(address)
                        .await
                        .map_err(|e| failure(&target, &e)),
                    Err(why @ Forbidden::NotAllowed) if !is_own => Err(forbidden(why, ELSEWHERE)),
                    Err(why) => Err(forbidden(why, "")),
                };
                match connected {
                    Ok(tcp) => return Ok(prepared(tcp)),
                    // What was tried tells more than what was not.
                    Err(error) if last.is_none() || error.kind() != ErrorKind::Forbidden => {
                        last = Some(error);
                    }
                    Err(_) => {}
                }
            }
            let none = || Error::new(ErrorKind::Unreachable, format!("{target} has no address"));
            Err(last.unwrap_or_else(none))
        };
        let late = |_| {
            let message = format!("dial {target}: no answer in time");
            Err(Error::new(ErrorKind::Timeout, message))
        };
        timeout_at(deadline, work).await.unwrap_or_else(late)
    }

    /// Returns the addresses of a host. This node's own name is the address that it calls out from.
    async fn resolve(
        &self,
        host: &str,
        port: u16,
        target: &Target,
    ) -> Result<Vec<SocketAddr>, Error> {
        let failed = |source: io::Error| {
            let message = format!("resolve {target} on the node");
            Error::new(ErrorKind::Unreachable, message).with_source(source)
        };
        if host.eq_ignore_ascii_case(self.shared.policy.node.as_str()) {
            let own = local::address_towards(self.server).map_err(failed)?;
            return Ok(vec![SocketAddr::new(own, port)]);
        }
        let addresses = lookup_host((host, port)).await.map_err(failed)?;
        Ok(addresses.map(canonical).collect())
    }

    /// Returns the address that is dialled.
    fn meant(
        &self,
        node: Option<&NodeName>,
        host: &str,
        address: SocketAddr,
        is_own: bool,
    ) -> Result<SocketAddr, Forbidden> {
        let servers: Vec<SocketAddr> = self.shared.known.lock().servers().into_keys().collect();
        let asked = Asked {
            host,
            address,
            is_own,
            servers: &servers,
        };
        let own = || local::address_towards(self.server).ok();
        self.shared
            .policy
            .meant(&asked, || node.and_then(|_| own()))
    }

    /// Takes what the server says of its like.
    async fn listen(&self, incoming: Box<dyn Incoming>) {
        let server = self.server;
        let read = async {
            let mut stream = incoming.accept().await.map_err(io::Error::from)?;
            let mut bytes = Vec::new();
            let limit = servers::MAX_BYTES as u64 + 1;
            (&mut stream).take(limit).read_to_end(&mut bytes).await?;
            let answer = servers::encode_answer(&self.shared.process);
            stream.write_all(&answer).await?;
            stream.shutdown().await?;
            Ok::<_, io::Error>(bytes)
        };
        let bytes = match timeout(TELL_LIMIT, read).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => {
                return tracing::warn!(%server, %error, "the list of servers cannot be read");
            }
            Err(_) => return tracing::warn!(%server, "the list of servers does not end"),
        };
        match servers::decode(&bytes) {
            Ok(servers) => self.shared.told(server, servers),
            Err(error) => tracing::warn!(%server, %error, "the list of servers is of no use"),
        }
    }
}

/// Returns every byte, to show that the path works.
async fn echo(incoming: Box<dyn Incoming>) {
    let Ok(stream) = incoming.accept().await else {
        return; // nobody waits for it any more
    };
    let (mut from, mut to) = tokio::io::split(stream);
    // An end that is not clean is the server's own.
    if tokio::io::copy(&mut from, &mut to).await.is_ok() {
        let _ = to.shutdown().await;
    }
}

/// Small writes go at once, and a target that is gone is noticed. Dropped, or left by an agent that is killed, the
/// connection is reset: what breaks off must never look like an end.
fn prepared(tcp: TcpStream) -> TcpStream {
    let socket = SockRef::from(&tcp);
    let keep_alive = TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE / 3);
    // A system that knows neither still carries the bytes.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keep_alive);
    let _ = socket.set_linger(Some(Duration::ZERO));
    tcp
}

/// Lets the last bytes of a connection whose two directions have ended arrive after it is dropped.
fn end_cleanly(tcp: &TcpStream) {
    // An error is a connection that is gone already.
    let _ = SockRef::from(tcp).set_linger(None);
}

fn failure(target: &Target, error: &io::Error) -> Error {
    let (kind, why) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (ErrorKind::Refused, "the connection is refused"),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            (ErrorKind::Unreachable, "it cannot be reached from the node")
        }
        io::ErrorKind::TimedOut => (ErrorKind::Timeout, "no answer in time"),
        _ => {
            let message = format!("dial {target}: {error}");
            return Error::new(ErrorKind::Other, message);
        }
    };
    Error::new(kind, format!("dial {target}: {why}"))
}
