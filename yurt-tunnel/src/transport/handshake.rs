//! What every handshake keeps to, and how one that came to nothing is told.

mod pool;

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use yurt_core::transport::{Error, ErrorKind, MAX_MESSAGE_LEN, Peer};

pub(super) use self::pool::{Handshakes, User};
use crate::identity::Refusal;

/// How long a peer may take until it has proven who it is and said hello.
pub(super) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// How many peers may be on their way at once.
pub(super) const MAX_HANDSHAKES: usize = 512;

/// The error of a handshake that came to nothing.
pub(super) fn refusal(address: SocketAddr, refusal: Refusal) -> Error {
    failure(address, None, refusal, None)
}

/// The same, with what was seen.
pub(super) fn refusal_for(address: SocketAddr, refusal: Refusal, why: impl Display) -> Error {
    failure(address, None, refusal, Some(&why))
}

/// The error of a handshake that took too long.
pub(super) fn slow(address: SocketAddr) -> Error {
    refusal(address, Refusal::HandshakeTimeout)
}

/// The error of a peer that has proven who it is, and whose session has not begun.
pub(super) fn no_session(address: SocketAddr, peer: &Peer, why: &Error) -> Error {
    let refusal = match (Refusal::of(why), why.kind()) {
        (Refusal::Other, ErrorKind::Protocol) => Refusal::Protocol,
        (Refusal::Other, ErrorKind::Closed | ErrorKind::Reset(_)) => Refusal::HungUp,
        (refusal, _) => refusal,
    };
    failure(address, Some(&peer.user), refusal, Some(why))
}

fn failure(
    address: SocketAddr,
    user: Option<&str>,
    refusal: Refusal,
    why: Option<&dyn Display>,
) -> Error {
    let kind = match refusal {
        Refusal::Protocol => ErrorKind::Protocol,
        Refusal::HandshakeTimeout => ErrorKind::Timeout,
        Refusal::TooManyHandshakes => ErrorKind::Overloaded,
        Refusal::HungUp => ErrorKind::Closed,
        _ => ErrorKind::Forbidden,
    };
    let user = user.map_or(String::new(), |user| format!("{user} at "));
    let why = why.map_or(String::new(), |why| format!(": {why}"));
    let message = format!("shake hands with {user}{address}{why}");
    // A peer may have a long reason for its end.
    let message: String = message.chars().take(MAX_MESSAGE_LEN).collect();
    Error::new(kind, message).with_source(refusal)
}
