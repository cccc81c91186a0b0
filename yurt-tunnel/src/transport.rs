//! The ways to connect: QUIC, and HTTP/2 over TLS 1.3 on TCP, with the same features.
//!
//! A carrier brings pipes: ordered bytes in two directions, each of which can be ended or reset by itself. The
//! session round it speaks `wire` on them as `link` decides, so that what a stream costs, and when a session
//! is over, does not depend on what carries it.

#[cfg(all(test, any(feature = "h2", feature = "quic")))]
pub(crate) mod air;
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

use std::sync::Arc;

use yurt_core::transport::Transport;

/// A transport, and what it is called in logs and metrics: `quic`, `h2`, or a vendor's.
#[derive(Clone, Debug)]
pub struct NamedTransport {
    /// Its name.
    pub name: &'static str,
    /// How it connects and listens.
    pub transport: Arc<dyn Transport>,
    /// Whether it is carried by UDP, which NATs forget soon.
    pub is_udp: bool,
}

impl NamedTransport {
    /// Names a transport.
    #[must_use]
    pub fn new(name: &'static str, transport: impl Transport + 'static) -> Self {
        let transport = Arc::new(transport);
        Self {
            name,
            transport,
            is_udp: false,
        }
    }

    /// Says that UDP carries it: NATs forget that soon, and an answer to a question from inside does not show that
    /// they had not. An agent asks the server more often.
    #[must_use]
    pub fn over_udp(self) -> Self {
        Self {
            is_udp: true,
            ..self
        }
    }
}
