//! A hub's life: it opens what the store remembers, starts its tasks, serves, and drains. It ends with an error if a
//! task ends that it cannot be without.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::autonomy::Autonomy;
use super::budgets::Budgets;
use super::interface::{InterfaceError, PodAddress};
use super::state::State;
use super::sweep::Sweeping;
use super::{Error, Hub, admin, listen};
use crate::filter::follow::{ContextFollower, Given};
use crate::identity::{IdentityCollector, NodeVerifier, contact, issuer};
use crate::limits::{Connections, Shares};
use crate::metrics::Metrics;
use crate::outbox::OutboxCollector;
use crate::overlay::reconcile::Reconcile;
use crate::proxy::unread::{self, Unread};
use crate::proxy::{Proxy, PublicAnswers};
use crate::tasks::{Children, Ended, Tasks, blocking};
use crate::tls;

/// How often the pods' address is put back, if it is gone.
const LOOKED_AFTER_EVERY: Duration = Duration::from_secs(60);

/// What the hub's tasks share, and who ends them.
struct Running {
    state: State,
    proxy: Arc<Proxy>,
    metrics: Arc<Metrics>,
    children: Children,
    connections: Arc<Connections>,
    /// Tasks that come and go with requests, connections and mirrors.
    tasks: Tasks,
    /// Lets running requests end.
    shutdown: CancellationToken,
    /// Ends everything.
    stop: CancellationToken,
}

impl Hub {
    /// Serves until `shutdown`, then lets running requests end. When it returns nothing of the hub is left.
    ///
    /// # Errors
    /// If what the store remembers cannot be read at the start, or if a task ends that the hub cannot be without.
    ///
    /// # Cancel safety
    /// Dropping it ends everything at once; what was answered is in the store, up to the last sync.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let stop = CancellationToken::new();
        // Whatever ends this future ends its tasks.
        let _guard = stop.clone().drop_guard();
        let tasks = Tasks::default();
        let state = self.open(&tasks, &stop).await?;
        let tls = self.tls()?;
        let filter_context = self.filter_context(&state).await?;
        let metrics = self.metrics(&state);
        // Its own, so that a hub that has to end can say so to its listeners.
        let shutdown = shutdown.child_token();
        let mut running = Running {
            proxy: self.proxy(
                &state,
                &filter_context,
                &metrics,
                (&tasks, &shutdown, &stop),
            ),
            state,
            metrics,
            children: Children::default(),
            connections: Connections::new(self.config.limits.clone()),
            tasks,
            shutdown,
            stop,
        };
        // Before the listeners go to those who serve them.
        let (clients, admin) = (self.local_addrs(), self.admin_addr());
        running.start("filter context", |stop| filter_context.run(stop));
        self.start(&mut running);
        let ca_file = self.certificates.authority();
        tracing::info!(?clients, ?admin, ?ca_file, "the hub serves");
        let listening = self.listening(tls, &running);
        let listeners = std::mem::take(&mut self.listeners);
        let served = running.serve(listening, listeners).await;
        running.end().await;
        served
    }

    fn tls(&self) -> Result<rustls::ServerConfig, Error> {
        let config = tls::server_config(self.certificates.presented());
        config.map_err(|error| Error::Certificate(error.into()))
    }

    async fn filter_context(&self, state: &State) -> Result<ContextFollower, Error> {
        let given = Given {
            node: self.config.node_name.clone(),
            pool_name: self.config.pool_name.clone(),
            filters: self.config.filters.clone(),
            hub: self.pod_addr(),
        };
        let (mirrors, store) = (state.registry.clone(), self.store.clone());
        let open = move || Ok(ContextFollower::open(given, mirrors, store));
        blocking(open).await.map_err(Error::Store)
    }

    fn metrics(&self, state: &State) -> Arc<Metrics> {
        let metrics = Metrics::new();
        metrics.observe(
            state.registry.clone(),
            self.upstream.clone(),
            self.store.clone(),
        );
        metrics.collect(Box::new(IdentityCollector(state.authenticator.clone())));
        metrics.collect(Box::new(OutboxCollector(state.outbox.clone())));
        Arc::new(metrics)
    }

    fn proxy(
        &self,
        state: &State,
        filter_context: &ContextFollower,
        metrics: &Arc<Metrics>,
        (tasks, shutdown, stop): (&Tasks, &CancellationToken, &CancellationToken),
    ) -> Arc<Proxy> {
        Arc::new(Proxy {
            node: self.config.node_name.clone(),
            registry: state.registry.clone(),
            upstream: state.upstream.clone(),
            verdicts: state.verdicts.clone(),
            documents: state.documents.clone(),
            public_answers: PublicAnswers::default(),
            authenticator: state.authenticator.clone(),
            local_pods: state.local_pods.clone(),
            outbox: state.outbox.clone(),
            filters: filter_context.filters().clone(),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            stop: shutdown.clone(),
            end: stop.clone(),
            object_limit: self.config.object_limit,
            clock: self.config.clock,
            shares: Shares::new(self.config.limits.clone()),
            unread: Unread::new(self.config.limits.unread, unread::HELD),
            body_limit: self.config.limits.body_bytes,
        })
    }

    /// Starts what the hub cannot be without.
    fn start(&mut self, running: &mut Running) {
        let state = running.state.clone();
        let upstream = state.upstream.clone();
        running.start("upstream", |stop| upstream.clone().run(stop));
        let flushing = self.flushing.clone();
        running.start("flushing", |stop| flushing.run(stop));
        let (authenticator, limit) = (state.authenticator.clone(), self.config.verdict_limit);
        let times = (authenticator.contact.clone(), authenticator.clock.clone());
        running.start("contact", |stop| {
            contact::run(times, upstream.clone(), limit, stop)
        });
        running.start("issuer", |stop| {
            issuer::run(state.authenticator.clone(), upstream.clone(), stop)
        });
        let verdicts = state.verdicts.clone();
        running.start("verdicts", |stop| verdicts.run(stop));
        let reconcile = Reconcile {
            registry: state.registry.clone(),
            local_pods: state.local_pods.clone(),
            outbox: state.outbox.clone(),
            upstream: upstream.clone(),
            store: self.store.clone(),
        };
        running.start("reconcile", |stop| reconcile.run(stop));
        let sweeping = Sweeping::new(&self.config, &state);
        running.metrics.collect(Box::new(sweeping.collector()));
        let budgets = Budgets {
            limits: self.config.limits.clone(),
            registry: state.registry.clone(),
            upstream: upstream.clone(),
            verdicts: state.verdicts.clone(),
            documents: state.documents.clone(),
            connections: running.connections.clone(),
            unread: running.proxy.unread.clone(),
        };
        running.metrics.collect(Box::new(budgets));
        running.start("sweeping", |stop| sweeping.run(stop));
        let (children, stop) = (&mut running.children, &running.stop);
        self.certificates
            .start(&self.config, &self.upstream, children, stop);
        let rereading = self.certificates.reread(&self.config, &self.client_ca);
        running.start("certificate files", |stop| rereading.run(stop));
        state.registry.start();
        running.start("windows", |stop| {
            state.registry.clone().balance_windows(stop)
        });
        let unread = running.proxy.unread.clone();
        running.start("unread answers", |stop| unread.run(stop));
        if let Some(address) = self.pod_address.clone() {
            running.start("pod address", |stop| look_after(address, stop));
        }
        self.start_administration(running);
    }

    fn start_administration(&mut self, running: &mut Running) {
        let state = running.state.clone();
        let autonomy = Autonomy::new(&self.config, state.clone(), self.flushing.clone());
        let autonomy = Arc::new(autonomy);
        running.metrics.collect(Box::new(autonomy.collector()));
        let looking = autonomy.clone();
        running.start("autonomy", |stop| looking.run(stop));
        let Some(listener) = self.admin.take() else {
            return;
        };
        let admin = admin::Admin {
            registry: state.registry,
            upstream: state.upstream,
            store: self.store.clone(),
            metrics: running.metrics.clone(),
            autonomy,
        };
        let tasks = running.tasks.clone();
        running.start("administration", |stop| {
            admin::serve(listener, Arc::new(admin), tasks, stop)
        });
    }

    fn listening(&self, tls: rustls::ServerConfig, running: &Running) -> listen::Listening {
        let (node, authenticator) = (
            self.config.node_name.clone(),
            running.state.authenticator.clone(),
        );
        listen::Listening {
            tls: Arc::new(tls),
            verifier: Arc::new(NodeVerifier::new(
                self.client_ca.clone(),
                node.clone(),
                authenticator,
            )),
            node,
            proxy: running.proxy.clone(),
            authenticator: running.state.authenticator.clone(),
            metrics: running.metrics.clone(),
            connections: running.connections.clone(),
            heads: listen::LargeHeads::new(),
            streams: self.config.limits.streams(),
            tasks: running.tasks.clone(),
            shutdown: running.shutdown.clone(),
            end: running.stop.clone(),
            drain: self.config.drain,
        }
    }
}

impl Running {
    fn start<F>(&mut self, task: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.children.spawn(task, run(self.stop.clone()));
    }

    /// Serves until the shutdown, or until a task has ended that is needed.
    async fn serve(
        &mut self,
        listening: listen::Listening,
        listeners: Vec<TcpListener>,
    ) -> Result<(), Error> {
        let mut serving = std::pin::pin!(listening.serve(listeners));
        let ended = tokio::select! {
            served = serving.as_mut() => {
                tracing::info!("the hub has drained");
                return served;
            }
            ended = self.children.next_ended() => ended,
        };
        tracing::error!(
            task = ended.task,
            "the hub ends: it cannot be without this task"
        );
        self.shutdown.cancel();
        self.stop.cancel();
        // Nobody is waited for: every connection has heard of it.
        let _served = serving.await;
        Err(lost(ended))
    }

    async fn end(self) {
        self.stop.cancel();
        self.children.join().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn lost(ended: Ended) -> Error {
    let task = ended.task;
    let source = match ended.panicked {
        Some(panicked) => panicked.into(),
        None => "it ended while the hub runs".into(),
    };
    Error::Task { task, source }
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
    if let Err(error) = blocking(move || how(&address)).await {
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(error, "{otherwise}");
    }
}
