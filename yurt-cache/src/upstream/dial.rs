//! From an API server's address to an HTTP connection on it.

mod race;
mod tunnel;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use http::uri::Authority;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::files::Current;
use super::http_proxy::HttpProxy;
use super::pick::MAX_STREAMS;
use super::sender::Sender;
use super::{Credential, UpstreamConfig, UpstreamError};
use crate::body::Body;
use crate::tasks::{self, Panicked};
use crate::tls::Protocol;

/// Why there is no connection to an API server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DialError {
    /// It took too long.
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    /// The name has no address, or nobody listens there.
    #[error("connect")]
    Connect(#[source] io::Error),
    /// The proxy on the way does not carry the connection.
    #[error("connect through the proxy")]
    Proxy(#[from] tunnel::TunnelError),
    /// A socket option was refused.
    #[error("set the socket up")]
    SetUpSocket(#[source] io::Error),
    /// One side does not trust the other, or it is not TLS.
    #[error("agree on TLS")]
    Handshake(#[source] io::Error),
    /// The peer speaks another protocol.
    #[error("the server does not speak {0:?}")]
    WrongProtocol(Protocol),
    /// The peer's first frames were not HTTP.
    #[error("start HTTP")]
    StartHttp(#[source] hyper::Error),
    /// The server was given up, or the hub is stopping.
    #[error("given up")]
    GivenUp,
    /// The disk could not be asked.
    #[error("read the TLS files")]
    ReadFiles(#[from] Panicked),
}

/// Where an API server is.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub(super) url: Uri,
    pub(super) authority: Authority,
    host: String,
    port: u16,
    name: ServerName<'static>,
}

impl Address {
    /// Takes `https://host:port` apart.
    pub(super) fn parse(url: &Uri) -> Result<Self, UpstreamError> {
        let refuse = |reason| UpstreamError::ServerUrl {
            url: url.to_string(),
            reason,
        };
        if url.scheme_str() != Some("https") {
            return Err(refuse("the scheme is not https"));
        }
        if url.path_and_query().is_some_and(|path| path != "/") {
            return Err(refuse("there is a path"));
        }
        let authority = url.authority().ok_or_else(|| refuse("there is no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("there is a user name"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone())
            .map_err(|_| refuse("the host is neither a DNS name nor an address"))?;
        Ok(Self {
            url: url.clone(),
            authority: authority.clone(),
            port: authority.port_u16().unwrap_or(443),
            host,
            name,
        })
    }

    /// Returns whether it is reached through a proxy.
    pub(super) fn is_behind(&self, proxy: &HttpProxy) -> bool {
        proxy.carries(&self.host, self.port)
    }
}

/// Where hyper puts the tasks of one connection: they end with it, and are waited for.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    pub(super) all: tasks::Tasks,
    pub(super) closed: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let closed = self.closed.clone();
        self.all.spawn(async move {
            closed.run_until_cancelled(task).await;
        });
    }
}

type Io = TokioIo<TlsStream<TcpStream>>;

/// Carries a connection until it is over.
pub(super) type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A new connection for requests.
pub(super) struct Dialled {
    pub(super) sender: Sender,
    pub(super) driver: Driver,
}

/// Bytes of one answer that may wait here for its reader. The node's: a WAN's bandwidth times its delay, the
/// default of 64 KiB is 5 Mbit/s at 100 ms. A caller's own: less, because it may let them all wait.
fn stream_window(credential: Credential) -> u32 {
    match credential {
        Credential::Node => 1 << 20,
        Credential::Bearer | Credential::Stranger => 128 << 10,
    }
}

/// Bytes of all answers on a connection: so many that those who do not read cannot hold up the others.
fn connection_window(credential: Credential) -> u32 {
    let streams = u32::try_from(MAX_STREAMS).unwrap_or(u32::MAX);
    stream_window(credential).saturating_mul(streams)
}

/// Opens a connection and speaks what the server has chosen; one that chooses nothing speaks HTTP/1.1. `free` is
/// told when a connection of HTTP/1.1 takes its next request.
pub(super) async fn open(
    address: &Address,
    tls: Current,
    credential: Credential,
    config: &UpstreamConfig,
    tasks: Tasks,
    free: Arc<Notify>,
) -> Result<Dialled, DialError> {
    let (io, protocol) = secure(address, tls, config).await?;
    match protocol {
        Protocol::Http2 => http2(io, credential, config, tasks).await,
        Protocol::Http1 => http1(io, free).await,
    }
}

async fn http2(
    io: Io,
    credential: Credential,
    config: &UpstreamConfig,
    tasks: Tasks,
) -> Result<Dialled, DialError> {
    let (requests, mut connection) = http2::Builder::new(tasks)
        .timer(TokioTimer::new())
        .initial_stream_window_size(stream_window(credential))
        .initial_connection_window_size(connection_window(credential))
        .adaptive_window(false)
        .keep_alive_interval(config.keep_alive_interval)
        .keep_alive_timeout(config.keep_alive_timeout)
        .keep_alive_while_idle(true)
        .handshake(io)
        .await
        .map_err(DialError::StartHttp)?;
    let streams_allowed = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
    let allowed = streams_allowed.clone();
    let driver = Box::pin(poll_fn(move |cx| {
        let polled = Pin::new(&mut connection).poll(cx);
        allowed.store(connection.current_max_send_streams(), Ordering::Relaxed);
        polled
    }));
    let sender = Sender::Http2 {
        requests,
        streams_allowed,
    };
    Ok(Dialled { sender, driver })
}

async fn http1(io: Io, free: Arc<Notify>) -> Result<Dialled, DialError> {
    let (requests, mut connection) = http1::handshake(io).await.map_err(DialError::StartHttp)?;
    let requests = Arc::new(Mutex::new(requests));
    let taking = requests.clone();
    let driver = Box::pin(poll_fn(move |cx| {
        let polled = Pin::new(&mut connection).poll(cx);
        if taking.lock().is_ready() {
            free.notify_waiters();
        }
        polled
    }));
    let sender = Sender::Http1(requests);
    Ok(Dialled { sender, driver })
}

/// Opens an HTTP/1.1 connection for one request that may be upgraded.
pub(super) async fn upgradable(
    address: &Address,
    tls: Current,
    config: &UpstreamConfig,
) -> Result<(http1::SendRequest<Body>, Driver), DialError> {
    let (io, protocol) = secure(address, tls, config).await?;
    if protocol != Protocol::Http1 {
        return Err(DialError::WrongProtocol(Protocol::Http1));
    }
    let (requests, connection) = http1::handshake(io).await.map_err(DialError::StartHttp)?;
    Ok((requests, Box::pin(connection.with_upgrades())))
}

/// Connects and agrees on TLS, and on what is spoken.
async fn secure(
    address: &Address,
    tls: Current,
    config: &UpstreamConfig,
) -> Result<(Io, Protocol), DialError> {
    let (host, port) = (address.host.as_str(), address.port);
    let proxy = config.proxy.as_ref();
    let socket = match proxy.filter(|proxy| address.is_behind(proxy)) {
        Some(proxy) => tunnel::connect(proxy, host, port).await?,
        None => race::connect(host, port)
            .await
            .map_err(DialError::Connect)?,
    };
    set_up(&socket).map_err(DialError::SetUpSocket)?;
    let stream = TlsConnector::from(tls.config)
        .connect(address.name.clone(), socket)
        .await
        .map_err(DialError::Handshake)?;
    let chosen = Protocol::chosen(stream.get_ref().1.alpn_protocol());
    Ok((TokioIo::new(stream), chosen))
}

/// The kernel notices a dead peer too, on connections where HTTP/2's keep-alive does not.
fn set_up(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(Duration::from_secs(5))
            .with_interval(Duration::from_secs(2))
            .with_retries(2),
    )?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(10)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_https_host_and_port_is_an_address() {
        let table = [
            ("https://10.0.0.1:6443", Some(("10.0.0.1", 6443))),
            ("https://10.0.0.1:6443/", Some(("10.0.0.1", 6443))),
            ("https://api.example", Some(("api.example", 443))),
            ("https://[fd00::1]:6443", Some(("fd00::1", 6443))),
            ("http://10.0.0.1:6443", None),
            ("10.0.0.1:6443", None),
            ("https://10.0.0.1:6443/path", None),
            ("https://user@10.0.0.1:6443", None),
            ("https://-:6443", None),
        ];
        for (url, expected) in table {
            let address = Address::parse(&url.parse().unwrap()).ok();
            let seen = address.as_ref().map(|a| (a.host.as_str(), a.port));
            assert_eq!(seen, expected, "{url}");
        }
    }
}
