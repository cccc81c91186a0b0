//! The ways to connect: QUIC, and HTTP/2 over TLS 1.3 on TCP, with the same features.
//!
//! A carrier brings pipes: ordered bytes in two directions, each of which can be ended or reset by itself. The
//! session round it speaks `wire` on them as `link` decides, so that what a stream costs, and when a session
//! is over, does not depend on what carries it.

#[cfg(feature = "h2")]
pub mod h2;
mod pipe;
#[cfg(feature = "quic")]
pub mod quic;
mod session;

use std::net::SocketAddr;
use std::time::Duration;

use yurt_core::transport::{Error, ErrorKind};

use crate::identity::Refusal;

/// How long a peer may take until it has proven who it is and said hello.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// How many peers may be on their way at once.
const MAX_HANDSHAKES: usize = 512;

/// The error of a handshake that came to nothing.
fn refusal(address: SocketAddr, refusal: Refusal) -> Error {
    let kind = match refusal {
        Refusal::Protocol => ErrorKind::Protocol,
        Refusal::Slow => ErrorKind::Timeout,
        Refusal::Flood => ErrorKind::Overloaded,
        _ => ErrorKind::Forbidden,
    };
    let message = format!("shake hands with {address}");
    Error::new(kind, message).with_source(refusal)
}

/// The error of a handshake that took too long.
fn slow(address: SocketAddr) -> Error {
    refusal(address, Refusal::Slow)
}
