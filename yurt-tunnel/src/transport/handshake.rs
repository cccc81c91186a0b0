//! What every handshake keeps to, and how one that came to nothing is told.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use yurt_core::transport::{Error, ErrorKind, Peer};

use crate::identity::Refusal;

/// How long a peer may take until it has proven who it is and said hello.
pub(super) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// How many peers may be on their way at once.
pub(super) const MAX_HANDSHAKES: usize = 512;

/// The error of a handshake that came to nothing.
pub(super) fn refusal(address: SocketAddr, refusal: Refusal) -> Error {
    error(format!("shake hands with {address}"), refusal)
}

/// The same, with what was seen.
pub(super) fn refusal_for(address: SocketAddr, refusal: Refusal, why: impl Display) -> Error {
    error(format!("shake hands with {address}: {why}"), refusal)
}

/// The error of a handshake that took too long.
pub(super) fn slow(address: SocketAddr) -> Error {
    refusal(address, Refusal::Slow)
}

/// The error of a peer that has proven who it is, and whose session has not begun.
pub(super) fn no_session(address: SocketAddr, peer: &Peer, why: &Error) -> Error {
    let refusal = match (Refusal::of(why), why.kind()) {
        (Refusal::Other, ErrorKind::Protocol) => Refusal::Protocol,
        (Refusal::Other, ErrorKind::Closed | ErrorKind::Reset(_)) => Refusal::HungUp,
        (refusal, _) => refusal,
    };
    let user = &peer.user;
    error(
        format!("shake hands with {user} at {address}: {why}"),
        refusal,
    )
}

fn error(message: String, refusal: Refusal) -> Error {
    let kind = match refusal {
        Refusal::Protocol => ErrorKind::Protocol,
        Refusal::Slow => ErrorKind::Timeout,
        Refusal::Flood => ErrorKind::Overloaded,
        Refusal::HungUp => ErrorKind::Closed,
        _ => ErrorKind::Forbidden,
    };
    Error::new(kind, message).with_source(refusal)
}
