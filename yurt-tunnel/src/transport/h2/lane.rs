//! One connection of a session: TCP, TLS, and HTTP/2 with either end as the client.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ::h2::Reason;
use ::h2::client::SendRequest;
use bytes::Bytes;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use yurt_core::transport::{Error, ErrorKind, Peer, Result};

use super::wire::{CountedStream, Wire};
use crate::identity::{self, Credentials, Protocol, Refusal};
use crate::link::Config;
use crate::transport::handshake::{refusal, refusal_for};

/// What TLS makes of a socket, for the end that listened and for the end that connected.
pub(super) type ListenedTls = tokio_rustls::server::TlsStream<CountedStream>;
pub(super) type ConnectedTls = tokio_rustls::client::TlsStream<CountedStream>;

/// Bytes go out in frames of at most this size; what is more urgent waits for one at most.
const FRAME: u32 = 64 << 10;

/// What a stream may leave in the connection's queue.
const SEND_BUFFER: usize = 256 << 10;

/// Bytes that the kernel holds beyond what is on its way: the rest waits where it can still be overtaken.
const UNSENT: u32 = 64 << 10;

/// What fits in the packets that every path of IPv6 carries, 1280 bytes.
const SEGMENT: u32 = 1220;

/// What the control pipe has of a connection's window when nothing else is read.
const CONTROL: u64 = 1 << 20;

/// Where to connect, and as who.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) address: SocketAddr,
    pub(super) name: String,
    pub(super) credentials: Credentials,
    pub(super) config: Config,
    /// What has passed the session's connections.
    pub(super) wire: Arc<Wire>,
}

/// Connects, and becomes the server of HTTP/2.
pub(super) async fn connect(
    place: &Place,
) -> Result<(::h2::server::Connection<ConnectedTls, Bytes>, Peer)> {
    let address = place.address;
    let failed = |source: io::Error| {
        let kind = match source.kind() {
            io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
            io::ErrorKind::TimedOut => ErrorKind::Timeout,
            _ => ErrorKind::Unreachable,
        };
        Error::new(kind, format!("connect to {address}")).with_source(source)
    };
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    };
    let socket = socket.map_err(failed)?;
    if !address.ip().is_loopback() {
        // Both ends keep to it: a path of tunnels that swallows larger packets, and ICMP with them, is not found out.
        let _ = SockRef::from(&socket).set_tcp_mss(SEGMENT);
    }
    let socket = socket.connect(address).await.map_err(failed)?;
    tune(&socket, &place.config);
    let name = ServerName::try_from(place.name.clone())
        .map_err(|_| refusal(address, Refusal::WrongName))?;
    let socket = CountedStream::new(socket, place.wire.clone());
    let connector = TlsConnector::from(place.credentials.client(Protocol::Http2));
    let tls = connector
        .connect(name, socket)
        .await
        .map_err(|error| tls_refusal(address, &error))?;
    let peer = identity::shown(tls.get_ref().1.peer_certificates());
    let peer = peer.map_err(|why| refusal(address, why))?;
    let connection = server_builder(&place.config)
        .handshake(tls)
        .await
        .map_err(|error| h2_refusal(address, &error))?;
    Ok((connection, peer))
}

/// Takes a connection, and becomes the client of HTTP/2.
pub(super) async fn accept(
    socket: TcpStream,
    address: SocketAddr,
    credentials: &Credentials,
    config: &Config,
) -> Result<(
    SendRequest<Bytes>,
    ::h2::client::Connection<ListenedTls, Bytes>,
    Peer,
    Arc<Wire>,
)> {
    tune(&socket, config);
    let wire = Arc::<Wire>::default();
    let socket = CountedStream::new(socket, wire.clone());
    let acceptor = TlsAcceptor::from(credentials.server(Protocol::Http2));
    let tls = acceptor
        .accept(socket)
        .await
        .map_err(|error| tls_refusal(address, &error))?;
    let peer = identity::shown(tls.get_ref().1.peer_certificates());
    let peer = peer.map_err(|why| refusal(address, why))?;
    let (requests, connection) = client_builder(config)
        .handshake(tls)
        .await
        .map_err(|error| h2_refusal(address, &error))?;
    Ok((requests, connection, peer, wire))
}

/// The limits of HTTP/2 are beyond those of the link: they bound a peer that does not keep to its credit.
fn windows(config: &Config) -> (u32, u32) {
    let bounded = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX).min((1 << 31) - 1);
    (
        bounded(config.max_window),
        bounded(config.most_unread().saturating_add(CONTROL)),
    )
}

/// How many streams of HTTP/2 a connection may have: the link's, again where they have moved, and the control pipe.
pub(super) fn pipes(config: &Config) -> u32 {
    u32::try_from(config.streams * 2 + 8).unwrap_or(u32::MAX)
}

/// What the link bounds by itself, opens that are given up and their resets, is no abuse to HTTP/2 either: its own
/// guards count over a connection's life, and would end a session for what a blackout or a busy link makes of it.
fn client_builder(config: &Config) -> ::h2::client::Builder {
    let (stream, connection) = windows(config);
    let mut builder = ::h2::client::Builder::new();
    builder
        .initial_window_size(stream)
        .initial_connection_window_size(connection)
        .max_frame_size(FRAME)
        .max_send_buffer_size(SEND_BUFFER)
        .max_local_error_reset_streams(None)
        .enable_push(false);
    builder
}

fn server_builder(config: &Config) -> ::h2::server::Builder {
    let (stream, connection) = windows(config);
    let mut builder = ::h2::server::Builder::new();
    builder
        .initial_window_size(stream)
        .initial_connection_window_size(connection)
        .max_frame_size(FRAME)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(pipes(config) as usize)
        .max_local_error_reset_streams(None)
        .max_concurrent_streams(pipes(config));
    builder
}

/// What a system does not have is gone without.
fn tune(socket: &TcpStream, config: &Config) {
    let socket = SockRef::from(socket);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_user_timeout(Some(config.liveness));
    // The second connection is asked for a sign of life by its one end only.
    let keep_alive = TcpKeepalive::new()
        .with_time(config.idle.max(config.liveness / 2))
        .with_interval(config.liveness / 6)
        .with_retries(3);
    let _ = socket.set_tcp_keepalive(&keep_alive);
    let _ = socket.set_tcp_notsent_lowat(UNSENT);
    // CUBIC takes each lost packet for a full queue: 1 % of loss on a long way leaves 3 Mbit/s.
    let _ = socket.set_tcp_congestion(b"bbr");
}

/// Why there is no TLS.
fn tls_refusal(address: SocketAddr, error: &io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(error) => refusal(address, Refusal::of_tls(error)),
        None => refusal_for(address, Refusal::HungUp, error),
    }
}

/// Why there is no HTTP/2: the client of TLS learns only here that it is not welcome.
pub(super) fn h2_refusal(address: SocketAddr, error: &::h2::Error) -> Error {
    match error.get_io() {
        Some(error) => tls_refusal(address, error),
        None if error.is_remote() || error.reason() == Some(Reason::NO_ERROR) => {
            refusal_for(address, Refusal::HungUp, error)
        }
        None => refusal_for(address, Refusal::Protocol, error),
    }
}
