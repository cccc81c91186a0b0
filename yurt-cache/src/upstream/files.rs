//! The CA and the client certificate on the disk, read again at every dial because both rotate.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ClientConfig;
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::{Credential, UpstreamConfig};
use crate::tls::{self, Identity, Protocol, TlsError};

/// The files, and the last good configurations made of them.
pub(super) struct TlsFiles {
    ca: PathBuf,
    client: Option<(PathBuf, PathBuf)>,
    client_need: Need,
    last: Mutex<Loaded>,
}

/// Whether there has to be a client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Required,
    /// It is still to be made.
    ToCome,
}

#[derive(Clone)]
struct Loaded {
    digest: [u8; 32],
    generation: u64,
    /// Sessions resume only within one configuration: a caller's never becomes the node's.
    node: PerProtocol,
    bearer: PerProtocol,
}

#[derive(Clone)]
struct PerProtocol {
    http2: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

/// A configuration to dial with, and which state of the files it was made of.
pub(super) struct Current {
    pub(super) config: Arc<ClientConfig>,
    pub(super) generation: u64,
}

impl TlsFiles {
    /// Reads the files for the first time; blocks on the disk.
    pub(super) fn read(config: &UpstreamConfig, need: Need) -> Result<Self, TlsError> {
        let client = config.client_certificate.as_ref().map(|certificate| {
            let key = config.client_key.as_ref().unwrap_or(certificate);
            (certificate.clone(), key.clone())
        });
        let bytes = Bytes::read(&config.ca_file, client.as_ref(), need)?;
        let last = bytes.load(&config.ca_file, client.as_ref(), 0)?;
        Ok(Self {
            ca: config.ca_file.clone(),
            client,
            client_need: need,
            last: Mutex::new(last),
        })
    }

    /// What the files say now, or said last when they were whole; blocks on the disk.
    pub(super) fn current(&self, credential: Credential, protocol: Protocol) -> Current {
        self.refresh();
        let last = self.last.lock();
        let configs = match credential {
            Credential::Node => &last.node,
            Credential::Bearer => &last.bearer,
        };
        let config = match protocol {
            Protocol::Http2 => &configs.http2,
            Protocol::Http1 => &configs.http1,
        };
        Current {
            config: config.clone(),
            generation: last.generation,
        }
    }

    /// Counts the changes of the files seen so far.
    pub(super) fn generation(&self) -> u64 {
        self.last.lock().generation
    }

    /// Takes in what the files say now, if they changed and are whole; blocks on the disk.
    pub(super) fn refresh(&self) {
        let (digest, generation) = {
            let last = self.last.lock();
            (last.digest, last.generation)
        };
        let loaded =
            Bytes::read(&self.ca, self.client.as_ref(), self.client_need).and_then(|bytes| {
                if bytes.digest() == digest {
                    return Ok(None);
                }
                bytes
                    .load(&self.ca, self.client.as_ref(), generation + 1)
                    .map(Some)
            });
        match loaded {
            Ok(None) => {}
            Ok(Some(loaded)) => {
                info!("the CA or the client certificate changed");
                *self.last.lock() = loaded;
            }
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "the CA or the client certificate cannot be used: keeping the last good ones"
            ),
        }
    }
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsFiles")
            .field("ca", &self.ca)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// What the files held at one moment.
struct Bytes {
    ca: Vec<u8>,
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Bytes {
    fn read(ca: &Path, client: Option<&(PathBuf, PathBuf)>, need: Need) -> Result<Self, TlsError> {
        let read = |(certificate, key): &(PathBuf, PathBuf)| {
            Ok((tls::read_file(certificate)?, tls::read_file(key)?))
        };
        let client = match client.map(read).transpose() {
            Err(TlsError::ReadFile { source, .. })
                if need == Need::ToCome && source.kind() == io::ErrorKind::NotFound =>
            {
                None
            }
            read => read?,
        };
        Ok(Self {
            ca: tls::read_file(ca)?,
            client,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let (certificate, key) = match &self.client {
            Some((certificate, key)) => (certificate.as_slice(), key.as_slice()),
            None => Default::default(),
        };
        for part in [self.ca.as_slice(), certificate, key] {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn load(
        &self,
        ca: &Path,
        client: Option<&(PathBuf, PathBuf)>,
        generation: u64,
    ) -> Result<Loaded, TlsError> {
        let roots = tls::parse_roots(ca, &self.ca)?;
        let identity = match (client, &self.client) {
            (Some((certificate, key)), Some((chain_pem, key_pem))) => {
                Some(Identity::parse((certificate, chain_pem), (key, key_pem))?)
            }
            (None, _) | (_, None) => None,
        };
        let configs = |identity: Option<Identity>| -> Result<PerProtocol, TlsError> {
            Ok(PerProtocol {
                http2: Arc::new(tls::client_config(
                    roots.clone(),
                    identity.clone(),
                    Protocol::Http2,
                )?),
                http1: Arc::new(tls::client_config(
                    roots.clone(),
                    identity,
                    Protocol::Http1,
                )?),
            })
        };
        Ok(Loaded {
            digest: self.digest(),
            generation,
            node: configs(identity)?,
            bearer: configs(None)?,
        })
    }
}
