//! The ways to connect: QUIC, and HTTP/2 over TLS 1.3 on TCP, with the same features.
//!
//! A carrier brings pipes: ordered bytes in two directions, each of which can be ended or reset by itself. The
//! session round it speaks `wire` on them as `link` decides, so that what a stream costs, and when a session
//! is over, does not depend on what carries it.

#[cfg(feature = "h2")]
pub mod h2;
#[cfg(any(feature = "h2", feature = "quic"))]
mod handshake;
#[cfg(any(feature = "h2", feature = "quic"))]
mod pipe;
#[cfg(feature = "quic")]
pub mod quic;
#[cfg(any(feature = "h2", feature = "quic"))]
mod session;
