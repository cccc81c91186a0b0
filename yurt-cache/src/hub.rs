//! The hub: assembly, listeners, shutdown.

mod admin;
mod autonomy;
mod boot;
mod budgets;
mod certificates;
mod config;
mod interface;
mod listen;
mod run;
mod state;
mod survey;
mod sweep;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use yurt_core::store::Store;

use self::certificates::Certificates;
use self::interface::PodAddress;
use crate::identity::{ClientCa, LocalIssuer};
use crate::private;
use crate::store::seal::SealKeys;
use crate::store::sealed::SealedStore;
use crate::store::synced::Flushing;
use crate::upstream::Upstream;

pub use self::config::{Config, Error, ServingSigner};
pub use crate::filter::{CallerName, FilterConfig, FilterName, InvalidCaller, UnknownFilter};
pub use crate::limits::Limits;
pub use crate::retention::Budget;
pub use crate::upstream::{HttpProxy, HttpProxyError, Order, UpstreamConfig};

/// The node's own API server.
#[derive(Debug)]
pub struct Hub {
    config: Config,
    store: Arc<dyn Store>,
    sealed: Arc<SealedStore>,
    flushing: Arc<Flushing>,
    listeners: Vec<TcpListener>,
    pod_address: Option<PodAddress>,
    admin: Option<TcpListener>,
    upstream: Upstream,
    certificates: Certificates,
    client_ca: Arc<ClientCa>,
    local_issuer: Arc<LocalIssuer>,
}

impl Hub {
    /// Makes a hub that keeps what it remembers in `store`. It listens from now on and answers in [`Hub::run`].
    ///
    /// # Errors
    /// What of the configuration does not work: an address, a certificate, a key.
    pub fn new(config: Config, store: Arc<dyn Store>, now: jiff::Timestamp) -> Result<Self, Error> {
        private::keep(&config.data_dir).map_err(|source| Error::DataDir {
            path: config.data_dir.clone(),
            source,
        })?;
        let upstream = certificates::upstream(&config)?;
        let certificates = Certificates::open(&config, names(&config), now)?;
        let client_ca = config
            .client_ca_file
            .as_ref()
            .unwrap_or(&config.upstream.ca_file);
        let client_ca =
            ClientCa::read(client_ca).map_err(|error| Error::Certificate(error.into()))?;
        let local_issuer = LocalIssuer::load_or_make(&config.data_dir, &config.node_name)
            .map_err(|error| Error::Certificate(error.into()))?;
        let mut listeners = config
            .listen
            .iter()
            .map(|address| bind(*address))
            .collect::<Result<Vec<_>, _>>()?;
        let pod_address = match config.pod_address {
            None => None,
            Some(address) => {
                let (listener, kept) = bind_for_pods(address)?;
                listeners.push(listener);
                kept
            }
        };
        let admin = config.admin_listen.map(bind).transpose()?;
        let sealed = Arc::new(SealedStore::new(store, seal_keys(&config)?));
        let flushing = Arc::new(Flushing::new(sealed.clone()));
        let store: Arc<dyn Store> = flushing.clone();
        Ok(Self {
            config,
            store,
            sealed,
            flushing,
            listeners,
            pod_address,
            admin,
            upstream,
            certificates,
            client_ca: Arc::new(client_ca),
            local_issuer: Arc::new(local_issuer),
        })
    }

    /// Returns where clients reach the hub, at the first of its addresses.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listeners.first()?.local_addr().ok()
    }

    /// Returns every address at which clients reach the hub, that of the pods last.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        let listeners = self.listeners.iter();
        listeners
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// Returns where the node's pods reach the hub.
    #[must_use]
    pub fn pod_addr(&self) -> Option<SocketAddr> {
        // It is the last, if there is one.
        self.config.pod_address?;
        self.listeners.last()?.local_addr().ok()
    }

    /// Returns where health and metrics are served.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref()?.local_addr().ok()
    }

    /// Returns the file with the CA that clients must trust, where the hub made its own.
    #[must_use]
    pub fn ca_file(&self) -> Option<&Path> {
        self.certificates.authority()
    }
}

fn seal_keys(config: &Config) -> Result<SealKeys, Error> {
    let Some(path) = &config.seal_key_file else {
        return Ok(SealKeys::default());
    };
    SealKeys::read(path).map_err(|error| Error::SealKeys {
        path: path.clone(),
        source: error.into(),
    })
}

/// Under which names clients reach the hub: the address it listens on, the loopback, and the API server's own.
fn names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = [
        "127.0.0.1",
        "::1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    .map(str::to_owned)
    .into();
    let addresses = config.listen.iter().chain(&config.pod_address);
    names.extend(
        addresses
            .map(SocketAddr::ip)
            .filter(|ip| !ip.is_unspecified())
            .map(|ip| ip.to_string()),
    );
    names.push(config.node_name.to_string());
    names.extend(config.serving_names.iter().cloned());
    names.sort_unstable();
    names.dedup();
    names
}

fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    let listener =
        TcpListener::bind(address).map_err(|source| Error::Listen { address, source })?;
    listener
        .set_nonblocking(true)
        .map_err(|source| Error::Listen { address, source })?;
    Ok(listener)
}

/// Listens where pods ask. An address that somebody else has put there is not the hub's to look after.
fn bind_for_pods(address: SocketAddr) -> Result<(TcpListener, Option<PodAddress>), Error> {
    if address.ip().is_loopback() {
        // It is there without us, and stays.
        return Ok((bind(address)?, None));
    }
    let kept = PodAddress::new(address.ip());
    match kept.ensure() {
        Ok(()) => Ok((bind(address)?, Some(kept))),
        Err(error) => match bind(address) {
            Ok(listener) => Ok((listener, None)),
            Err(_) => Err(Error::PodAddress(error.into())),
        },
    }
}
