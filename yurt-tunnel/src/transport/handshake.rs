//! What every handshake keeps to, and how one that came to nothing is told.

use std::net::SocketAddr;
use std::time::Duration;

use yurt_core::transport::{Error, ErrorKind};

use crate::identity::Refusal;

/// How long a peer may take until it has proven who it is and said hello.
pub(super) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// How many peers may be on their way at once.
pub(super) const MAX_HANDSHAKES: usize = 512;

/// The error of a handshake that came to nothing.
pub(super) fn refusal(address: SocketAddr, refusal: Refusal) -> Error {
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
pub(super) fn slow(address: SocketAddr) -> Error {
    refusal(address, Refusal::Slow)
}
