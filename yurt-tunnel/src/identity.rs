//! Certificates: this end's own and the authorities that it trusts, reloaded without a restart, and the identity of
//! peers.

mod current;
mod error;
mod peer;
mod refusal;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use tokio::sync::watch;
use yurt_core::transport::Peer;

pub(crate) use self::current::Current;
use self::current::read;
pub use self::error::Error;
pub use self::peer::{InvalidCertificate, peer};
pub(crate) use self::peer::{issued, shown};
pub use self::refusal::Refusal;

/// The organization of certificates that make a peer a server of the tunnel, to agents and to other servers.
pub const SERVERS_GROUP: &str = "yurt:tunnel-servers";

/// The files of certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificates of trusted authorities, PEM.
    pub ca: PathBuf,
    /// This end's certificate with its intermediates, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// A protocol over TLS; each has its own ALPN name, except for the doors, which have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The tunnel over QUIC.
    Quic,
    /// The tunnel over HTTP/2.
    Http2,
    /// A front door: HTTP/1.1 by clients that name nothing.
    Door,
}

/// This end's certificate and the authorities that it trusts. Clones share them, so that a reload reaches every
/// transport.
#[derive(Clone)]
pub struct Credentials {
    files: Files,
    current: watch::Sender<Arc<Current>>,
}

/// Whether a peer's certificate is that of a server.
pub(crate) fn is_server(peer: &Peer) -> bool {
    peer.groups.iter().any(|group| group == SERVERS_GROUP)
}

// === Protocol ===

static TLS13_ONLY: &[&SupportedProtocolVersion] = &[&TLS13];

impl Protocol {
    const ALL: [Self; 3] = [Self::Quic, Self::Http2, Self::Door];

    fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Self::Quic => vec![b"yurt-tunnel/1".to_vec()],
            Self::Http2 => vec![b"h2".to_vec()],
            Self::Door => Vec::new(),
        }
    }

    /// Clients of the doors may be older than TLS 1.3.
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Quic | Self::Http2 => TLS13_ONLY,
            Self::Door => rustls::ALL_VERSIONS,
        }
    }
}

// === Credentials ===

impl Credentials {
    /// Reads the files; blocks on the disk.
    ///
    /// # Errors
    /// When one of them is missing or invalid.
    pub fn load(files: Files) -> Result<Self, Error> {
        let current = Current::new(read(&files)?)?;
        Ok(Self {
            files,
            current: watch::Sender::new(Arc::new(current)),
        })
    }

    /// Reads the files again and returns whether they have changed; blocks on the disk.
    ///
    /// Handshakes from now on use them. Sessions with peers that are no longer trusted are closed.
    ///
    /// # Errors
    /// As [`load`](Self::load); the former certificates stay in use.
    pub fn reload(&self) -> Result<bool, Error> {
        let pems = read(&self.files)?;
        if pems == self.current().pems {
            return Ok(false);
        }
        let fresh = Arc::new(Current::new(pems)?);
        self.current.send_replace(fresh);
        Ok(true)
    }

    /// Returns this end's own identity, as its peers see it.
    #[must_use]
    pub fn own(&self) -> Peer {
        self.current().own.clone()
    }

    /// Returns the TLS configuration of a server that requires client certificates.
    #[must_use]
    pub fn server(&self, protocol: Protocol) -> Arc<ServerConfig> {
        self.current().servers[protocol as usize].clone()
    }

    /// Returns the TLS configuration of a client with its certificate.
    #[must_use]
    pub fn client(&self, protocol: Protocol) -> Arc<ClientConfig> {
        self.current().clients[protocol as usize].clone()
    }

    /// Derives a secret for one purpose from the key; it is the same after a restart.
    #[cfg(feature = "quic")]
    pub(crate) fn secret(&self, purpose: &[u8]) -> [u8; 32] {
        let [_, _, key] = &self.current().pems;
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.bytes());
        let mut secret = [0; 32];
        secret.copy_from_slice(ring::hmac::sign(&key, purpose).as_ref());
        secret
    }

    /// Watches the current certificates.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Current>> {
        self.current.subscribe()
    }

    fn current(&self) -> Arc<Current> {
        self.current.borrow().clone()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("files", &self.files)
            .field("own", &self.current().own)
            .field("key", &format_args!("…"))
            .finish()
    }
}
