//! The hub: assembly, listeners, shutdown.

mod admin;
mod autonomy;
mod certificates;
mod config;
mod interface;
mod listen;
mod survey;
mod sweep;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::danger::ClientCertVerifier;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use yurt_core::store::Store;

use self::autonomy::Autonomy;
use self::certificates::Certificates;
use self::interface::{InterfaceError, PodAddress};
use self::sweep::Sweeping;
use crate::authorize::Verdicts;
use crate::discovery::Documents;
use crate::filter::follow::{Given, Surroundings};
use crate::follow::FollowerConfig;
use crate::follow::registry::Registry;
use crate::identity::{Authenticator, Figures, Mint, NodeVerifier, contact, issuer};
use crate::limits::{Door, Shares};
use crate::metrics::Metrics;
use crate::mirror::window::Limit;
use crate::outbox::{self, Outbox};
use crate::overlay::reconcile::Reconcile;
use crate::overlay::truth::Truth;
use crate::proxy::Proxy;
use crate::store::synced::Flushing;
use crate::tls;
use crate::upstream::Upstream;

pub use self::config::{Config, Error, ServingSigner};
pub use crate::filter::{CallerName, FilterConfig, FilterName, InvalidCaller, UnknownFilter};
pub use crate::limits::Limits;
pub use crate::retention::Budget;
pub use crate::upstream::{Order, UpstreamConfig};

/// How often the pods' address is put back, if it is gone.
const LOOKED_AFTER_EVERY: Duration = Duration::from_secs(60);

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
        let follower = FollowerConfig {
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
                Registry::open(store.clone(), (window, mirrors), follower, tasks, stop, now)?;
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
