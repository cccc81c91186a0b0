//! The CA and the client certificate on the disk, read again at every dial because both rotate.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ClientConfig;
use tracing::{info, warn};
use yurt_core::credentials::{CredentialsError, Identity, Pem};

use super::{Credential, UpstreamConfig};
use crate::tls::{self, Protocol, TlsError};

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

struct Loaded {
    pems: Pems,
    generation: u64,
    /// Sessions resume only within one configuration: a caller's never becomes the node's.
    node: PerOffer,
    bearer: PerOffer,
}

#[derive(Clone)]
struct PerOffer {
    any: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

/// What a dial offers to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// What the server prefers.
    Any,
    /// HTTP/1.1 alone, to be upgraded.
    Http1,
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
        let ca = config.ca_file.clone();
        let pems = Pems::read(&ca, client.as_ref(), need)?;
        let last = Mutex::new(pems.load(0)?);
        Ok(Self {
            ca,
            client,
            client_need: need,
            last,
        })
    }

    /// What the files say now, or said last when they were whole; blocks on the disk.
    pub(super) fn current(&self, credential: Credential, offer: Offer) -> Current {
        self.refresh();
        let last = self.last.lock();
        let configs = match credential {
            Credential::Node => &last.node,
            Credential::Bearer | Credential::Stranger => &last.bearer,
        };
        let config = match offer {
            Offer::Any => &configs.any,
            Offer::Http1 => &configs.http1,
        };
        Current {
            config: config.clone(),
            generation: last.generation,
        }
    }

    /// Returns the client certificate as it was read last, DER.
    pub(super) fn node_certificate(&self) -> Option<Vec<u8>> {
        let last = self.last.lock();
        let (certificate, _) = last.pems.client.as_ref()?;
        Some(certificate.certificates().ok()?.first()?.to_vec())
    }

    /// Counts the changes of the files seen so far.
    pub(super) fn generation(&self) -> u64 {
        self.last.lock().generation
    }

    /// Takes in what the files say now, if they changed and are whole; blocks on the disk.
    pub(super) fn refresh(&self) {
        match self.load_changed() {
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

    fn load_changed(&self) -> Result<Option<Loaded>, TlsError> {
        let pems = Pems::read(&self.ca, self.client.as_ref(), self.client_need)?;
        let generation = {
            let last = self.last.lock();
            if last.pems == pems {
                return Ok(None);
            }
            last.generation
        };
        pems.load(generation + 1).map(Some)
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
#[derive(PartialEq, Eq)]
struct Pems {
    ca: Pem,
    client: Option<(Pem, Pem)>,
}

impl Pems {
    fn read(
        ca: &Path,
        client: Option<&(PathBuf, PathBuf)>,
        need: Need,
    ) -> Result<Self, CredentialsError> {
        let read = |(certificate, key): &(PathBuf, PathBuf)| {
            Ok((Pem::read(certificate)?, Pem::read(key)?))
        };
        let client: Result<_, CredentialsError> = client.map(read).transpose();
        let client = match client {
            Err(error) if need == Need::ToCome && error.is_missing() => None,
            read => read?,
        };
        Ok(Self {
            ca: Pem::read(ca)?,
            client,
        })
    }

    fn load(self, generation: u64) -> Result<Loaded, TlsError> {
        let roots = tls::roots(&self.ca)?;
        let client = self.client.as_ref();
        let identity = client
            .map(|(certificate, key)| Identity::parse(certificate, key))
            .transpose()?;
        let config = |identity: Option<&Identity>, offered| {
            tls::client_config(roots.clone(), identity, offered).map(Arc::new)
        };
        let configs = |identity: Option<&Identity>| -> Result<PerOffer, TlsError> {
            Ok(PerOffer {
                any: config(identity, Protocol::ALL)?,
                http1: config(identity, &[Protocol::Http1])?,
            })
        };
        Ok(Loaded {
            node: configs(identity.as_ref())?,
            bearer: configs(None)?,
            generation,
            pems: self,
        })
    }
}
