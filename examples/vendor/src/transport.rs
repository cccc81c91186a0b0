//! A `Transport` on plain TCP: a connection to talk on, and one more for each stream.
//!
//! The node calls out and keeps that first connection. Over it the cloud asks for streams; for each the node
//! calls once more, so that the kernel's own flow control keeps one stream from holding up another. Codes of
//! resets travel on the first connection, ends of directions on the stream's own.
//!
//! Both ends are believed to be who they say: it is for a wire that only friends are on.

mod door;
mod incoming;
mod link;
mod message;
mod session;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use yurt_core::transport::{Acceptor, Error, ErrorKind, Listener, Peer, Result, Transport};

use self::door::TcpDoor;
use self::message::Message;
use self::session::TcpAcceptor;

pub use self::link::LIMIT;

/// How long a caller may take to say what it wants.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a stream may hold in each of the kernel's buffers.
const BUFFER: u32 = 64 << 10;

/// Connects ends by TCP, without a secret.
#[derive(Clone, Debug)]
pub struct TcpTransport {
    peer: Peer,
}

impl TcpTransport {
    /// Returns a transport that says it is `peer`.
    #[must_use]
    pub fn new(peer: Peer) -> Self {
        Self { peer }
    }
}

#[async_trait]
impl Transport for TcpTransport {
    async fn connect(&self, address: SocketAddr, name: &str) -> Result<Arc<dyn Acceptor>> {
        let greeting = async {
            let mut socket = dial(address).await?;
            message::write(&mut socket, &Message::hello(&self.peer, 0)).await?;
            let hello = message::read(&mut socket).await?;
            Ok((socket, hello))
        };
        let step = || format!("connect to {address}");
        let greeted = timeout(HANDSHAKE, greeting).await;
        let greeted = greeted.map_err(|_| Error::new(ErrorKind::Timeout, step()))?;
        let (socket, hello) = greeted.map_err(|error| lost(step(), error))?;
        let Some((peer, session)) = hello.into_peer() else {
            return Err(Error::new(ErrorKind::Protocol, step()));
        };
        if !peer.names.iter().any(|known| known == name) {
            let message = format!("{}: it is not {name}", step());
            return Err(Error::new(ErrorKind::Forbidden, message));
        }
        let acceptor = TcpAcceptor::begin(socket, peer, address, session);
        Ok(Arc::new(acceptor))
    }

    async fn listen(&self, address: SocketAddr) -> Result<Box<dyn Listener>> {
        let step = || format!("listen at {address}");
        let failed = |error: io::Error| Error::new(ErrorKind::Other, step()).with_source(error);
        let socket = socket(address).map_err(failed)?;
        socket.set_reuseaddr(true).map_err(failed)?;
        socket.bind(address).map_err(failed)?;
        let listener = socket.listen(1024).map_err(failed)?;
        let door = TcpDoor::open(listener, self.peer.clone()).map_err(failed)?;
        Ok(Box::new(door))
    }
}

/// Returns a connection with small buffers.
async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(address)?.connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_send_buffer_size(BUFFER)?;
    socket.set_recv_buffer_size(BUFFER)?;
    Ok(socket)
}

fn lost(step: String, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            ErrorKind::Unreachable
        }
        io::ErrorKind::TimedOut => ErrorKind::Timeout,
        io::ErrorKind::InvalidData => ErrorKind::Protocol,
        _ => ErrorKind::Other,
    };
    Error::new(kind, step).with_source(error)
}
