//! QUIC: each pipe a stream of its own, so that a lost packet holds up one; a change of address costs nothing.

mod carrier;
mod config;
mod congestion;
mod peers;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use tokio::time::timeout;
use yurt_core::transport::{Acceptor, Error, ErrorKind, Listener, Opener, Result, Transport};

use self::carrier::QuicCarrier;
use self::peers::{Handshakes, refused};
use super::handshake::{HANDSHAKE_LIMIT, slow};
use super::session::Handle;
use crate::identity::{Credentials, Protocol};
use crate::link::{Config, Role};

/// Bursts of a fast path wait here for a busy process.
const SOCKET_BUFFER: usize = 4 << 20;

/// The tunnel over QUIC.
#[derive(Clone)]
pub struct QuicTransport {
    credentials: Credentials,
    config: Config,
    /// The one socket by which this end connects.
    client: Arc<Mutex<Option<Endpoint>>>,
}

/// Where QUIC listens.
struct QuicListener {
    address: SocketAddr,
    endpoint: Endpoint,
    handshakes: tokio::sync::Mutex<Handshakes>,
}

impl QuicTransport {
    /// Returns the transport of who has these credentials.
    #[must_use]
    pub fn new(credentials: Credentials, config: Config) -> Self {
        Self {
            credentials,
            config,
            client: Arc::default(),
        }
    }

    fn client(&self) -> Result<Endpoint> {
        let mut client = self.client.lock();
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let any6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let any4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let open = |address| endpoint(address, |_| EndpointConfig::default());
        let endpoint = open(any6).or_else(|_| open(any4))?;
        Ok(client.insert(endpoint).clone())
    }
}

impl fmt::Debug for QuicTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QuicTransport")
    }
}

#[async_trait]
impl Transport for QuicTransport {
    async fn connect(&self, address: SocketAddr, name: &str) -> Result<Arc<dyn Acceptor>> {
        let endpoint = self.client()?;
        let tls = self.credentials.client(Protocol::Quic);
        let config = config::client(&tls, &self.config)?;
        let failed = |source| {
            let message = format!("connect to {address} as {name:?}");
            Error::new(ErrorKind::Other, message).with_source(source)
        };
        // A socket of the wider family takes both.
        let address = match endpoint.local_addr() {
            Ok(local) if local.is_ipv6() => mapped(address),
            _ => address,
        };
        let connecting = endpoint
            .connect_with(config, address, name)
            .map_err(failed)?;
        let shake = async {
            let connection = connecting.await.map_err(|error| refused(address, error))?;
            let peer = peers::peer(&connection)?;
            let carrier = QuicCarrier::new(connection);
            Handle::begin(carrier.clone(), peer, Role::Acceptor, self.config.clone())
                .await
                .map_err(|error| carrier.refusal(address).unwrap_or(error))
        };
        let session = timeout(HANDSHAKE_LIMIT, shake)
            .await
            .map_err(|_| slow(address))??;
        Ok(Arc::new(session))
    }

    async fn listen(&self, address: SocketAddr) -> Result<Box<dyn Listener>> {
        let endpoint = endpoint(address, |bound| config::surviving(&self.credentials, bound))?;
        // To be replaced at each handshake by what the credentials are then.
        let tls = self.credentials.server(Protocol::Quic);
        endpoint.set_server_config(Some(config::server(&tls, &self.config)?));
        let address = endpoint
            .local_addr()
            .map_err(|source| listen(address, source))?;
        Ok(Box::new(QuicListener {
            address,
            endpoint,
            handshakes: tokio::sync::Mutex::new(Handshakes::new(
                self.credentials.clone(),
                self.config.clone(),
            )),
        }))
    }
}

#[async_trait]
impl Listener for QuicListener {
    fn address(&self) -> SocketAddr {
        self.address
    }

    async fn accept(&self) -> Option<Result<Arc<dyn Opener>>> {
        self.handshakes.lock().await.next(&self.endpoint).await
    }
}

impl fmt::Debug for QuicListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicListener")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

fn endpoint(
    address: SocketAddr,
    config: impl FnOnce(SocketAddr) -> EndpointConfig,
) -> Result<Endpoint> {
    let open = || {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::DGRAM, Some(SocketProtocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // The system gives less where it allows less.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
        socket.bind(&address.into())?;
        let socket = std::net::UdpSocket::from(socket);
        let config = config(socket.local_addr()?);
        Endpoint::new(config, None, socket, Arc::new(TokioRuntime))
    };
    open().map_err(|source| listen(address, source))
}

fn listen(address: SocketAddr, source: std::io::Error) -> Error {
    Error::new(ErrorKind::Other, format!("open a UDP socket at {address}")).with_source(source)
}

/// An IPv4 address as a socket of IPv6 names it.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
        SocketAddr::V6(_) => address,
    }
}
