//! Certificates: what this end shows and trusts, reloaded without a restart, and who a peer has proven to be.

mod peer;
mod refusal;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, mem};

use parking_lot::RwLock;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use yurt_core::transport::Peer;

pub use self::peer::{InvalidCertificate, peer};
pub use self::refusal::Refusal;

/// No bundle of certificates that anybody uses is longer.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// Where the certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificates of the authorities whose peers are believed, PEM.
    pub ca: PathBuf,
    /// The certificate that is shown, with those that vouch for it, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// What is spoken over TLS; each has a name of its own in ALPN, but the doors of Kubernetes have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The tunnel over QUIC.
    Quic,
    /// The tunnel over HTTP/2.
    Http2,
    /// A front door: HTTP/1.1 by clients that name nothing.
    Door,
}

/// What this end shows and trusts. Clones share it, so that a reload reaches every transport.
#[derive(Clone)]
pub struct Credentials {
    files: Files,
    current: Arc<RwLock<Arc<Current>>>,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("read {}", path.display())]
    ReadFile {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is longer than any bundle of certificates.
    #[error("{} is longer than {MAX_PEM_BYTES} bytes", path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
    /// A file is not the PEM that it should be.
    #[error("parse {} as PEM", path.display())]
    ParsePem {
        /// Which file.
        path: PathBuf,
        /// Where it is broken.
        source: pem::Error,
    },
    /// A file holds no certificate.
    #[error("no certificate in {}", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// A certificate of an authority cannot be trusted.
    #[error("trust the authority of {}", path.display())]
    AddRoot {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The certificate is not one that this module can read.
    #[error("read the certificate of {}", path.display())]
    ReadCertificate {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: InvalidCertificate,
    },
    /// A certificate and its key do not belong together or cannot be used.
    #[error("use {} with its key", path.display())]
    UseCertificate {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Peers' certificates cannot be verified against the authorities.
    #[error("verify peers by {}", path.display())]
    BuildVerifier {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
}

/// What the files held when they were read last, and the configurations made of it.
struct Current {
    bytes: [Vec<u8>; 3],
    own: Peer,
    servers: [Arc<ServerConfig>; 3],
    clients: [Arc<ClientConfig>; 3],
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
    /// When one of them is missing or not what it should be.
    pub fn load(files: Files) -> Result<Self, Error> {
        let current = Current::new(&files, read(&files)?)?;
        Ok(Self {
            files,
            current: Arc::new(RwLock::new(Arc::new(current))),
        })
    }

    /// Reads the files again and returns whether they have changed; blocks on the disk.
    ///
    /// Handshakes from now on show and trust what is in them. Sessions go on as they are.
    ///
    /// # Errors
    /// As [`load`](Self::load); what was read before stays in use.
    pub fn reload(&self) -> Result<bool, Error> {
        let bytes = read(&self.files)?;
        if bytes == self.current().bytes {
            return Ok(false);
        }
        let fresh = Arc::new(Current::new(&self.files, bytes)?);
        drop(mem::replace(&mut *self.current.write(), fresh));
        Ok(true)
    }

    /// Returns who this end is to its peers.
    #[must_use]
    pub fn own(&self) -> Peer {
        self.current().own.clone()
    }

    /// Returns how to be a server that wants a certificate of every client.
    #[must_use]
    pub fn server(&self, protocol: Protocol) -> Arc<ServerConfig> {
        self.current().servers[protocol as usize].clone()
    }

    /// Returns how to be a client that shows its certificate.
    #[must_use]
    pub fn client(&self, protocol: Protocol) -> Arc<ClientConfig> {
        self.current().clients[protocol as usize].clone()
    }

    fn current(&self) -> Arc<Current> {
        self.current.read().clone()
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

// === Current ===

impl Current {
    fn new(files: &Files, bytes: [Vec<u8>; 3]) -> Result<Self, Error> {
        let [ca, certificate, key] = &bytes;
        let mut roots = RootCertStore::empty();
        for root in certificates(&files.ca, ca)? {
            roots.add(root).map_err(|source| Error::AddRoot {
                path: files.ca.clone(),
                source,
            })?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&files.certificate, certificate)?;
        let leaf = chain.first().expect("a bundle holds a certificate");
        let own = peer(leaf).map_err(|source| Error::ReadCertificate {
            path: files.certificate.clone(),
            source,
        })?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| Error::ParsePem {
            path: files.key.clone(),
            source,
        })?;
        let [quic, http2, door] = Protocol::ALL;
        let server = |protocol| server(files, protocol, &roots, &chain, &key);
        let servers = [server(quic)?, server(http2)?, server(door)?];
        let client = |protocol| client(files, protocol, &roots, &chain, &key);
        let clients = [client(quic)?, client(http2)?, client(door)?];
        Ok(Self {
            bytes,
            own,
            servers,
            clients,
        })
    }
}

/// The crypto provider of every TLS session of the tunnel.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server(
    files: &Files,
    protocol: Protocol,
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
        .build()
        .map_err(|source| Error::BuildVerifier {
            path: files.ca.clone(),
            source,
        })?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(protocol.versions())
        .expect("ring has both versions of TLS")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.to_vec(), key.clone_key())
        .map_err(|source| unusable(files, source))?;
    config.alpn_protocols = protocol.alpn();
    // Sessions are long and certificates short: nothing is resumed, and nothing kept for it.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client(
    files: &Files,
    protocol: Protocol,
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(protocol.versions())
        .expect("ring has both versions of TLS")
        .with_root_certificates(roots.clone())
        .with_client_auth_cert(chain.to_vec(), key.clone_key())
        .map_err(|source| unusable(files, source))?;
    config.alpn_protocols = protocol.alpn();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

fn unusable(files: &Files, source: rustls::Error) -> Error {
    Error::UseCertificate {
        path: files.certificate.clone(),
        source,
    }
}

fn read(files: &Files) -> Result<[Vec<u8>; 3], Error> {
    Ok([
        read_file(&files.ca)?,
        read_file(&files.certificate)?,
        read_file(&files.key)?,
    ])
}

fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::ReadFile {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_PEM_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_PEM_BYTES {
        return Err(Error::TooLong {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|source| Error::ParsePem {
            path: path.to_owned(),
            source,
        })?;
    if found.is_empty() {
        return Err(Error::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(found)
}
