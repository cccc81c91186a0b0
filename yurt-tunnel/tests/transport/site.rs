//! Certificates of one cluster, and sessions between two ends on loopback.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use tempfile::TempDir;
use testbed::pki::Pki;
use yurt_core::transport::{Acceptor, Listener, Opener, Transport};
use yurt_tunnel::identity::{Credentials, Files};
use yurt_tunnel::link::Config;
use yurt_tunnel::transport::h2::H2Transport;
use yurt_tunnel::transport::quic::QuicTransport;

/// A way to carry sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Quic,
    H2,
}

/// A cluster's authority and the folder of its certificates.
pub(crate) struct Site {
    pub(crate) pki: Pki,
    pub(crate) folder: TempDir,
}

/// Two ends that have met.
pub(crate) struct Met {
    pub(crate) opener: Arc<dyn Opener>,
    pub(crate) acceptor: Arc<dyn Acceptor>,
    pub(crate) listener: Box<dyn Listener>,
}

impl Way {
    pub(crate) fn transport(self, credentials: Credentials, config: Config) -> Arc<dyn Transport> {
        match self {
            Self::Quic => Arc::new(QuicTransport::new(credentials, config)),
            Self::H2 => Arc::new(H2Transport::new(credentials, config)),
        }
    }
}

impl Site {
    pub(crate) fn new() -> Self {
        Self {
            pki: Pki::new(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Writes a certificate with its key and returns who shows it.
    #[expect(clippy::disallowed_methods, reason = "a test sets up its files")]
    pub(crate) fn credentials(
        &self,
        name: &str,
        (certificate, key): (String, String),
    ) -> Credentials {
        let at = |kind: &str| self.folder.path().join(format!("{name}.{kind}"));
        let files = Files {
            ca: at("ca"),
            certificate: at("pem"),
            key: at("key"),
        };
        fs::write(&files.ca, self.pki.ca_pem()).unwrap();
        fs::write(&files.certificate, certificate).unwrap();
        fs::write(&files.key, key).unwrap();
        Credentials::load(files).unwrap()
    }

    pub(crate) fn server(&self) -> Credentials {
        self.credentials("server", self.pki.server(&["tunnel.test", "127.0.0.1"]))
    }

    pub(crate) fn node(&self, name: &str) -> Credentials {
        let user = format!("system:node:{name}");
        self.credentials(name, self.pki.client(&user, &["system:nodes"]))
    }

    pub(crate) async fn meet(&self, way: Way, config: Config) -> Met {
        let cloud = way.transport(self.server(), config.clone());
        let edge = way.transport(self.node("edge-1"), config);
        let listener = cloud.listen(loopback()).await.unwrap();
        let (acceptor, opener) = tokio::join!(
            edge.connect(listener.address(), "tunnel.test"),
            listener.accept()
        );
        Met {
            opener: opener.unwrap().unwrap(),
            acceptor: acceptor.unwrap(),
            listener,
        }
    }
}

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
