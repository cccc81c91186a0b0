//! What a door asks of a server: a connection to an address, by whichever route.

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use yurt_core::name::NodeName;
use yurt_core::transport::{self, MAX_HOST_LEN, Peer, Stream};

use crate::shares::Place;
use crate::splice::{End, Socket};

/// The reset code of a stream whose other end has failed.
pub(crate) const ABORTED: u16 = 1;

/// Makes connections for the doors.
#[async_trait]
pub trait Dial: fmt::Debug + Send + Sync + 'static {
    /// Returns a connection to the target: through an agent, through another server, or directly.
    ///
    /// # Errors
    /// Why there is no connection; [`ErrorKind::Timeout`](transport::ErrorKind::Timeout) after `deadline` at the latest.
    ///
    /// # Cancel safety
    /// Dropped, nothing is left of the attempt.
    async fn dial(
        &self,
        caller: &Caller,
        address: &Address,
        deadline: Duration,
    ) -> Result<Dialled, transport::Error>;
}

/// The client that asks a door for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// kube-apiserver, by the egress socket or listener.
    ApiServer,
    /// A client of the CONNECT door, authenticated by its certificate.
    Client(Peer),
}

/// The address of a target, as in `CONNECT host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// A name or an address without brackets, of 1 to [`MAX_HOST_LEN`] bytes.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A text that is not `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not host:port")]
pub struct InvalidAddress(String);

/// A connection: a tunnelled stream, or a direct socket.
#[derive(Debug)]
pub enum Dialled {
    /// A stream that an agent, or another server, has accepted, and the client's place among those to its node.
    Stream(Box<dyn Stream>, Option<NodePlace>),
    /// A socket that this server has connected.
    Direct(Socket),
}

/// A client's place among the streams to a node; free again when this is dropped.
#[derive(Debug)]
pub struct NodePlace(
    #[expect(dead_code, reason = "held, and given back")] pub(crate) Place<NodeName>,
);

// === Address ===

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let parse = || {
            let (host, port) = text.rsplit_once(':')?;
            let host = match host.strip_prefix('[') {
                Some(host) => {
                    let host = host.strip_suffix(']')?;
                    host.parse::<Ipv6Addr>().ok().map(|_| host)?
                }
                None => Some(host).filter(|host| host.bytes().all(is_of_a_name))?,
            };
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|&port| port != 0 && digits)?;
            let host = Some(host).filter(|host| (1..=MAX_HOST_LEN).contains(&host.len()))?;
            Some(Self {
                host: host.to_owned(),
                port,
            })
        };
        parse().ok_or_else(|| InvalidAddress(text.chars().take(MAX_HOST_LEN).collect()))
    }
}

fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

// === Dialled ===

impl Dialled {
    /// Resets the connection, so that its other end does not take it for a clean end. A socket is reset when it is
    /// dropped.
    pub fn abort(&mut self) {
        match self {
            Self::Stream(stream, _) => stream.reset(ABORTED),
            Self::Direct(socket) => {
                // A socket that does not take the option is closed cleanly; nothing more can be done.
                drop(SockRef::from(socket.tcp()).set_linger(Some(Duration::ZERO)));
            }
        }
    }
}

impl End for Dialled {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self {
            Self::Stream(stream, _) => stream.poll_gone(cx),
            Self::Direct(socket) => socket.poll_gone(cx),
        }
    }
}

impl AsyncRead for Dialled {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Stream(stream, _) => Pin::new(stream).poll_read(cx, buf),
            Self::Direct(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Stream(stream, _) => Pin::new(stream).poll_write(cx, bytes),
            Self::Direct(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Stream(stream, _) => Pin::new(stream).poll_flush(cx),
            Self::Direct(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Stream(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Direct(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, host, port) in [
            ("node-1:10250", "node-1", 10250),
            ("192.0.2.7:443", "192.0.2.7", 443),
            ("[2001:db8::7]:10250", "2001:db8::7", 10250),
            ("a_b.example:1", "a_b.example", 1),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_no_address() {
        let long = format!("{}:1", "a".repeat(MAX_HOST_LEN + 1));
        for text in [
            "",
            "node",
            ":1",
            "node:",
            "node:0",
            "node:65536",
            "node:+1",
            "2001:db8::7:1",
            "[node]:1",
            "[::1:1",
            "a b:1",
            "a/b:1",
            "a@b:1",
            "a\r\nb:1",
            &long,
        ] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_parsed_address_prints_what_parses_to_it(text in "\\PC{0,60}|[a-z0-9.:\\[\\]-]{1,30}:[0-9]{1,5}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
            }
        }
    }
}
