//! The hub: assembly, listeners, shutdown.

mod admin;
mod autonomy;
mod certificates;
mod interface;
mod listen;
mod survey;
mod sweep;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::server::danger::ClientCertVerifier;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use yurt_core::name::NodeName;
use yurt_core::store::Store;

use self::autonomy::Autonomy;
use self::certificates::Certificates;
use self::interface::{InterfaceError, PodAddress};
use self::sweep::Sweeping;
use crate::authorize::Verdicts;
use crate::discovery::Documents;
use crate::filter::follow::{Given, Surroundings};
use crate::identity::{Authenticator, Figures, Mint, NodeVerifier, contact, issuer};
use crate::limits::{Door, Shares};
use crate::metrics::Metrics;
use crate::mirror::reflector::Keeping;
use crate::mirror::registry::Registry;
use crate::mirror::window::Limit;
use crate::outbox::{self, Outbox};
use crate::overlay::reconcile::Reconcile;
use crate::overlay::truth::Truth;
use crate::proxy::Proxy;
use crate::store::synced::Flushing;
use crate::tls;
use crate::upstream::Upstream;

pub use self::certificates::ServingSigner;
pub use crate::filter::{CallerName, FilterConfig, FilterName, InvalidCaller, UnknownFilter};
pub use crate::limits::Limits;
pub use crate::retention::Budget;
pub use crate::upstream::{Order, UpstreamConfig};

/// How often the pods' address is put back, if it is gone.
const LOOKED_AFTER_EVERY: Duration = Duration::from_secs(60);

/// What a hub is told. Plain data; [`Config::new`] sets what has a default.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The node that the hub serves.
    pub node_name: NodeName,
    /// The API servers and how to reach them.
    pub upstream: UpstreamConfig,
    /// Where clients reach the hub, by HTTPS; at least one address.
    pub listen: Vec<SocketAddr>,
    /// Where the node's pods reach it: the hub puts the address on an interface, which takes `CAP_NET_ADMIN`
    /// unless it is there. The same on every node, as 169.254.2.1:10268; without it no filter sends pods here.
    pub pod_address: Option<SocketAddr>,
    /// More names and addresses for the serving certificate, such as the cluster IP of the Service `kubernetes`.
    pub serving_names: Vec<String>,
    /// The node's pool; without it the node's label `apps.openyurt.io/nodepool` says it.
    pub pool_name: Option<String>,
    /// What callers see differently from the cloud.
    pub filters: FilterConfig,
    /// The serving certificate, PEM; without it the hub makes a CA of its own beside the data.
    pub serving_certificate: Option<PathBuf>,
    /// The serving certificate's key, PEM.
    pub serving_key: Option<PathBuf>,
    /// Who signs the serving certificate where none is given.
    pub serving_signer: ServingSigner,
    /// A file with a bootstrap token, alone or in a bootstrap kubeconfig: with it the hub gets a client
    /// certificate of its own for the node, instead of the one in `upstream`, keeps it beside the data, renews it,
    /// and wipes the file when it has the first.
    pub bootstrap_token_file: Option<PathBuf>,
    /// The CA of the callers' certificates, PEM; without it the CA of the API servers.
    pub client_ca_file: Option<PathBuf>,
    /// Where health and metrics are served, by plain HTTP; nowhere if `None`.
    pub admin_listen: Option<SocketAddr>,
    /// Where the hub keeps its certificates; the store is given to [`Hub::new`].
    pub data_dir: PathBuf,
    /// How long a mirror stays that nobody asks for, while the cloud is there and no restart needs it.
    pub mirror_idle: Duration,
    /// How long else stays what nobody uses, while the cloud is there: objects that were read by name and that
    /// no pod on the node refers to, documents, verdicts.
    pub forget_after: Duration,
    /// What is kept of objects that were read by name; what a restart needs is kept beyond.
    pub objects_by_name: Budget,
    /// What is kept of discovery, OpenAPI and other documents.
    pub documents: Budget,
    /// How many verdicts of the cloud on its callers are kept.
    pub verdicts: usize,
    /// What is kept of any kind of object. Beyond it scopes are only forwarded, the least recently used first;
    /// what a restart needs is kept beyond.
    pub per_kind: Budget,
    /// What is kept of some kinds: plural and group, as in `deployments.apps`, or the plural alone.
    pub kinds: BTreeMap<String, Budget>,
    /// The largest object, in bytes, that a mirror takes.
    pub object_limit: usize,
    /// Events that a mirror keeps in memory for its watchers, and their bytes.
    pub window_events: usize,
    /// See `window_events`.
    pub window_bytes: usize,
    /// How long what the cloud said of a caller counts while it is away: who it is and what it may read.
    pub verdict_limit: Duration,
    /// How much one client may hold.
    pub limits: Limits,
    /// How often it is looked whether the node would survive a reboot without the cloud.
    pub autonomy_period: Duration,
    /// Whether the cloud is told, by the Node's condition `Autonomy`. It needs the node's client certificate.
    pub autonomy_condition: bool,
    /// How long running requests may go on after the shutdown began.
    pub drain: Duration,
    /// What time it is.
    pub clock: fn() -> jiff::Timestamp,
}

impl Config {
    /// Returns a configuration with the defaults: clients at 127.0.0.1:10268, administration at 127.0.0.1:10267.
    #[must_use]
    pub fn new(node_name: NodeName, upstream: UpstreamConfig, data_dir: PathBuf) -> Self {
        Self {
            node_name,
            upstream,
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 10_268))],
            pod_address: None,
            serving_names: Vec::new(),
            pool_name: None,
            filters: FilterConfig::default(),
            serving_certificate: None,
            serving_key: None,
            serving_signer: ServingSigner::Own,
            bootstrap_token_file: None,
            client_ca_file: None,
            admin_listen: Some(SocketAddr::from(([127, 0, 0, 1], 10_267))),
            data_dir,
            mirror_idle: Duration::from_secs(3_600),
            forget_after: Duration::from_secs(7 * 86_400),
            objects_by_name: Budget::new(5_000, 32 << 20),
            documents: Budget::new(200, 32 << 20),
            verdicts: 10_000,
            per_kind: Budget::new(100_000, 256 << 20),
            kinds: BTreeMap::new(),
            object_limit: 3 << 20,
            window_events: 4_096,
            window_bytes: 4 << 20,
            verdict_limit: Duration::from_secs(30 * 86_400),
            limits: Limits::default(),
            autonomy_period: Duration::from_secs(30),
            autonomy_condition: true,
            drain: Duration::from_secs(10),
            clock: jiff::Timestamp::now,
        }
    }
}

/// What keeps a hub from starting or running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A listener's address cannot be had.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The address of the pods cannot be put on an interface.
    #[error("set up the address at which pods reach the hub")]
    PodAddress(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The way to the API servers cannot be set up.
    #[error("set up the way to the API servers")]
    Upstream(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The serving certificate cannot be had.
    #[error("set up the serving certificate")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store cannot be read.
    #[error("read the store")]
    Store(#[source] yurt_core::store::Error),
}

/// The node's own API server.
#[derive(Debug)]
pub struct Hub {
    config: Config,
    store: Arc<dyn Store>,
    flushing: Arc<Flushing>,
    listeners: Vec<TcpListener>,
    pod_address: Option<PodAddress>,
    admin: Option<TcpListener>,
    upstream: Upstream,
    certificates: Certificates,
    verifier: Arc<dyn ClientCertVerifier>,
    mint: Arc<Mint>,
}

impl Hub {
    /// Makes a hub that keeps what it remembers in `store`. It listens from now on and answers in [`Hub::run`].
    ///
    /// # Errors
    /// What of the configuration does not work: an address, a certificate, a key.
    pub fn new(config: Config, store: Arc<dyn Store>, now: jiff::Timestamp) -> Result<Self, Error> {
        let upstream = certificates::upstream(&config)?;
        let certificates = Certificates::open(&config, names(&config), now)?;
        let client_ca = config
            .client_ca_file
            .as_ref()
            .unwrap_or(&config.upstream.ca_file);
        let roots = tls::read_roots(client_ca).map_err(|error| Error::Certificate(error.into()))?;
        let verifier =
            tls::client_verifier(roots).map_err(|error| Error::Certificate(error.into()))?;
        let mint = Mint::load_or_make(&config.data_dir, &config.node_name)
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
        let flushing = Arc::new(Flushing::new(store));
        let store: Arc<dyn Store> = flushing.clone();
        Ok(Self {
            config,
            store,
            flushing,
            listeners,
            pod_address,
            admin,
            upstream,
            certificates,
            verifier,
            mint: Arc::new(mint),
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

    /// Serves until `shutdown`, then lets running requests end. When it returns nothing of the hub is left.
    ///
    /// # Errors
    /// If what the store remembers cannot be read at the start.
    ///
    /// # Cancel safety
    /// Dropping it ends everything at once; what was answered is in the store, up to the last sync.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let stop = CancellationToken::new();
        // Whatever ends this future ends its tasks.
        let _guard = stop.clone().drop_guard();
        let tasks = TaskTracker::new();
        let Opened {
            registry,
            verdicts,
            authenticator,
            truth,
            outbox,
            documents,
        } = self.open(&tasks, &stop).await?;
        let tls = self.tls(authenticator.clone())?;
        let given = Given {
            node: self.config.node_name.clone(),
            pool_name: self.config.pool_name.clone(),
            filters: self.config.filters.clone(),
            hub: self.pod_addr(),
        };
        let (store, mirrors) = (self.store.clone(), registry.clone());
        let open = move || Surroundings::open(given, mirrors, store);
        let surroundings = tokio::task::spawn_blocking(open)
            .await
            .expect("reading the store does not panic");
        let metrics = Arc::new(Metrics::new());
        metrics.observe(registry.clone(), self.upstream.clone(), self.store.clone());
        metrics.collect(Box::new(Figures(authenticator.clone())));
        metrics.collect(Box::new(outbox::Figures(outbox.clone())));
        let proxy = Arc::new(Proxy {
            node: self.config.node_name.clone(),
            registry: registry.clone(),
            upstream: self.upstream.clone(),
            verdicts,
            documents,
            authenticator: authenticator.clone(),
            truth: truth.clone(),
            outbox: outbox.clone(),
            filters: surroundings.filters().clone(),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            stop: shutdown.clone(),
            end: stop.clone(),
            object_limit: self.config.object_limit,
            clock: self.config.clock,
            shares: Shares::new(self.config.limits.clone()),
            body_limit: self.config.limits.body_bytes,
        });
        tasks.spawn(self.upstream.clone().run(stop.clone()));
        tasks.spawn(self.flushing.clone().run(stop.clone()));
        tasks.spawn(surroundings.run(stop.clone()));
        tasks.spawn(contact::keep(
            authenticator.contact.clone(),
            self.upstream.clone(),
            self.config.clock,
            stop.clone(),
        ));
        tasks.spawn(issuer::keep(
            authenticator,
            self.upstream.clone(),
            stop.clone(),
        ));
        let reconcile = Reconcile {
            registry: registry.clone(),
            truth,
            outbox,
            upstream: self.upstream.clone(),
        };
        tasks.spawn(reconcile.run(stop.clone()));
        let sweeping = Sweeping::new(&self.config, proxy.clone());
        metrics.collect(Box::new(sweeping.told()));
        tasks.spawn(sweeping.run(stop.clone()));
        let autonomy = Autonomy::new(&self.config, proxy.clone(), self.flushing.clone());
        let autonomy = Arc::new(autonomy);
        metrics.collect(Box::new(autonomy.told()));
        tasks.spawn(autonomy.clone().run(stop.clone()));
        self.certificates
            .keep(&self.config, &self.upstream, &tasks, &stop);
        registry.start();
        if let Some(address) = self.pod_address.clone() {
            tasks.spawn(look_after(address, stop.clone()));
        }
        let (clients, admin) = (self.local_addrs(), self.admin_addr());
        tracing::info!(?clients, ?admin, ca_file = ?self.certificates.authority(), "the hub serves");
        if let Some(admin) = self.admin {
            let admin_state = admin::Admin {
                registry,
                upstream: self.upstream.clone(),
                store: self.store.clone(),
                metrics,
                autonomy,
            };
            tasks.spawn(admin::serve(
                admin,
                Arc::new(admin_state),
                tasks.clone(),
                stop.clone(),
            ));
        }
        let listening = listen::Listening {
            tls: Arc::new(tls),
            node: self.config.node_name.clone(),
            proxy,
            door: Door::new(self.config.limits.clone()),
            streams: self.config.limits.streams(),
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
            end: stop.clone(),
            drain: self.config.drain,
        };
        listening.serve(self.listeners).await;
        tracing::info!("the hub has drained");
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        Ok(())
    }

    fn tls(&self, authenticator: Arc<Authenticator>) -> Result<rustls::ServerConfig, Error> {
        let node = self.config.node_name.clone();
        let verifier = NodeVerifier::new(self.verifier.clone(), node, authenticator);
        tls::server_config(self.certificates.presented(), Some(Arc::new(verifier)))
            .map_err(|error| Error::Certificate(error.into()))
    }

    async fn open(&self, tasks: &TaskTracker, stop: &CancellationToken) -> Result<Opened, Error> {
        let keeping = Keeping {
            upstream: self.upstream.clone(),
            object_limit: self.config.object_limit,
            has_node_identity: self.config.upstream.client_certificate.is_some()
                || self.config.bootstrap_token_file.is_some(),
        };
        let window = Limit {
            steps: self.config.window_events,
            bytes: self.config.window_bytes,
        };
        let (mirrors, bounds, verdicts) = sweep::retention(&self.config);
        let (store, tasks, stop) = (self.store.clone(), tasks.clone(), stop.clone());
        let (clock, limit) = (self.config.clock, self.config.verdict_limit);
        let mint = self.mint.clone();
        let open = move || {
            let now = Instant::now();
            let documents = Documents::open(store.clone(), bounds, now)?;
            let authenticator =
                Authenticator::open(store.clone(), tasks.clone(), clock, limit, mint)?;
            let authenticator = Arc::new(authenticator);
            let verdicts = Verdicts::open(
                store.clone(),
                tasks.clone(),
                authenticator.clone(),
                verdicts,
                now,
            )?;
            let registry =
                Registry::open(store.clone(), (window, mirrors), keeping, tasks, stop, now)?;
            Ok(Opened {
                truth: Arc::new(Truth::recall(&registry)),
                outbox: Arc::new(Outbox::open(store)?),
                registry: Arc::new(registry),
                verdicts,
                authenticator,
                documents,
            })
        };
        tokio::task::spawn_blocking(open)
            .await
            .expect("reading the store does not panic")
            .map_err(Error::Store)
    }
}

/// What the store remembers.
struct Opened {
    registry: Arc<Registry>,
    verdicts: Verdicts,
    authenticator: Arc<Authenticator>,
    truth: Arc<Truth>,
    outbox: Arc<Outbox>,
    documents: Documents,
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

/// Puts the pods' address back where it was taken away, and takes it away at the end.
async fn look_after(address: PodAddress, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOKED_AFTER_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        change(&address, PodAddress::ensure, "pods may not reach the hub").await;
    }
    change(&address, PodAddress::remove, "the pods' address stays").await;
}

async fn change(
    address: &PodAddress,
    how: fn(&PodAddress) -> Result<(), InterfaceError>,
    otherwise: &str,
) {
    let address = address.clone();
    let changed = tokio::task::spawn_blocking(move || how(&address)).await;
    if let Err(error) = changed.expect("netlink does not panic") {
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(error, "{otherwise}");
    }
}
