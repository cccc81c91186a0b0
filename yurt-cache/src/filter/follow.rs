//! Keeps what filters know of the surroundings true: Services, the node's pool and its members, each from a
//! mirror like anything else, and only what an enabled filter has been asked for.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use yurt_core::name::NodeName;
use yurt_core::store::{Batch, Store};

use self::source::{Source, labelled};
use crate::api::{ObjectKey, Resource, Scope, Within};
use crate::filter::chain::Filters;
use crate::filter::context::{
    Affected, Context, Facts, Pool, Services, nodes_of_bucket, nodes_of_pool, pool_of_node,
    service_facts,
};
use crate::filter::{FilterConfig, FilterName, is_affected, may_concern};
use crate::follow::local::LocalError;
use crate::follow::registry::Registry;
use crate::mirror::Mirror;
use crate::store::layout::FILTER_CONTEXT;
use crate::tasks::blocking;

/// How often a mirror that cannot be is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// The label of NodeBuckets that names their pool.
const BUCKET_POOL: &str = "openyurt.io/pool-name";

/// What filters knew and did when clients last looked.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    rules: String,
    context: Context,
}

/// What filters are told at the start.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) node: NodeName,
    /// The node's pool, where the configuration names it.
    pub(crate) pool_name: Option<String>,
    pub(crate) filters: FilterConfig,
    /// Where pods reach the hub.
    pub(crate) hub: Option<SocketAddr>,
}

/// The task that keeps the filters' context.
pub(crate) struct ContextFollower {
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    filters: Arc<Filters>,
    saved: Option<Saved>,
    rules: String,
    /// The pool that the configuration names.
    pool_name: Option<String>,
    /// What is known, also where it is not yet enough to let the filters know.
    latest: Context,
    services: Source<Facts>,
    node: Source<String>,
    pool: Option<Source<Vec<String>>>,
    buckets: Option<Source<Vec<String>>>,
}

impl ContextFollower {
    /// Reads what filters knew last. Blocks on the store.
    pub(crate) fn open(given: Given, registry: Arc<Registry>, store: Arc<dyn Store>) -> Self {
        let Given {
            node,
            pool_name,
            filters,
            hub,
        } = given;
        let node = node.to_string();
        let saved = store.get(FILTER_CONTEXT.as_bytes()).ok().flatten();
        let saved = saved
            .and_then(|bytes| serde_json::from_slice::<Saved>(&bytes).ok())
            .filter(|saved| saved.context.node == node);
        let known = saved.as_ref().map(|saved| saved.context.clone());
        let known = known.unwrap_or_default();
        let context = Context {
            hub,
            node: node.clone(),
            pool: pool_name.clone().map_or(known.pool, Pool::Of),
            ..known
        };
        let rules = rules(&filters);
        Self {
            registry,
            store,
            filters: Arc::new(Filters::new(filters, context.clone())),
            latest: context,
            saved,
            rules,
            pool_name,
            services: Source::new(Scope::all(Resource::core("services")), service_facts),
            node: Source::new(
                Scope::all(Resource::core("nodes")).named(&node),
                pool_of_node,
            ),
            pool: None,
            buckets: None,
        }
    }

    /// Returns the filters, which know what is found here.
    pub(crate) fn filters(&self) -> &Arc<Filters> {
        &self.filters
    }

    /// Follows the surroundings until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        self.tell_of_the_time_between().await;
        let mut needed = self.filters.needs_services();
        tokio::select! {
            () = stop.cancelled() => return,
            // The sender lives as long as this.
            _ = needed.wait_for(|needed| *needed) => {}
        }
        let mut retries = tokio::time::interval(RETRY);
        loop {
            self.look().await;
            tokio::select! {
                () = stop.cancelled() => return,
                _ = retries.tick() => self.forget_what_failed(),
                () = self.services.changed() => {}
                () = self.node.changed() => {}
                () = source::changed(&mut self.pool) => {}
                () = source::changed(&mut self.buckets) => {}
            }
        }
    }

    /// What was configured or learned since clients last looked reaches them as events.
    async fn tell_of_the_time_between(&mut self) {
        let context = self.filters.context();
        match self.saved.take() {
            Some(saved) if saved.rules == self.rules && saved.context.hub == context.hub => {
                self.touch(Touched::Affected(saved.context.affected(&context)))
                    .await;
            }
            Some(_) | None => self.touch(Touched::Everything).await,
        }
        self.save(&context).await;
    }

    /// Returns whether anything was started.
    fn start_what_is_needed(&mut self) -> bool {
        let now = Instant::now();
        let mut is_more = self.services.start(&self.registry, now);
        if self.pool_name.is_none() && self.latest.needs_pool() {
            is_more |= self.node.start(&self.registry, now);
        }
        match &self.latest.pool {
            Pool::Of(pool) if self.latest.needs_members() => {
                let pool = pool.clone();
                is_more |= self.start_members(&pool, now);
            }
            Pool::Of(_) | Pool::None | Pool::Unknown => (self.pool, self.buckets) = (None, None),
        }
        is_more
    }

    /// NodePools say who is in a pool, and NodeBuckets where there are none of them.
    fn start_members(&mut self, pool: &str, now: Instant) -> bool {
        let pools = Resource::new("apps.openyurt.io", "v1beta2", "nodepools");
        let scope = Scope::all(pools).named(pool);
        if self
            .pool
            .as_ref()
            .is_none_or(|source| !source.is_of(&scope))
        {
            (self.pool, self.buckets) = (None, None);
        }
        let pools = self
            .pool
            .get_or_insert_with(|| Source::new(scope, nodes_of_pool));
        let mut is_more = pools.start(&self.registry, now);
        if pools.is_refused() || pools.is_empty() {
            let scope = Scope::all(Resource::new("apps.openyurt.io", "v1alpha1", "nodebuckets"));
            let scope = labelled(scope, BUCKET_POOL, pool);
            let buckets = self
                .buckets
                .get_or_insert_with(|| Source::new(scope, nodes_of_bucket));
            is_more |= buckets.start(&self.registry, now);
        }
        is_more
    }

    fn forget_what_failed(&mut self) {
        self.services.forget_if_failed();
        self.node.forget_if_failed();
        let pools = [&mut self.pool, &mut self.buckets];
        pools
            .into_iter()
            .flatten()
            .for_each(Source::forget_if_failed);
    }

    /// Takes over what the mirrors show.
    async fn look(&mut self) {
        // What is known may make more necessary.
        while {
            self.services.advance().await;
            self.node.advance().await;
            for source in [&mut self.pool, &mut self.buckets].into_iter().flatten() {
                source.advance().await;
            }
            self.latest = self.context();
            self.start_what_is_needed()
        } {}
        let told = self.filters.context();
        if self.latest == *told {
            return;
        }
        // Filters that can decide go on with what they know until they can again.
        if told.is_complete() && !self.latest.is_complete() && !self.is_hopeless() {
            return;
        }
        let members = self.latest.members.as_ref().map(BTreeSet::len);
        tracing::info!(pool = ?self.latest.pool, ?members, "filters know of new surroundings");
        self.filters.publish(self.latest.clone());
        self.touch(Touched::Affected(told.affected(&self.latest)))
            .await;
        self.save(&self.latest).await;
    }

    /// Returns whether the cloud does not say what is missing.
    fn is_hopeless(&self) -> bool {
        let is_refused =
            |source: &Option<Source<_>>| source.as_ref().is_some_and(Source::is_refused);
        self.node.is_refused() || (is_refused(&self.pool) && is_refused(&self.buckets))
    }

    /// Puts together what is known; where a mirror shows nothing yet, what was known stays.
    fn context(&self) -> Context {
        let old = &self.latest;
        let pool = match (&self.pool_name, self.node.held()) {
            (Some(pool), _) => Pool::Of(pool.clone()),
            (None, Some(node)) => node.values().next().cloned().map_or(Pool::None, Pool::Of),
            (None, None) => old.pool.clone(),
        };
        let services = self
            .services
            .held()
            .map(|held| Services::of(held.iter().map(|(key, facts)| (&**key, *facts))));
        let members = self.members().or_else(|| old.members.clone());
        Context {
            hub: old.hub,
            node: old.node.clone(),
            services: services.or_else(|| old.services.clone()),
            members: members.filter(|_| pool == old.pool),
            pool,
        }
    }

    /// Returns the members of the pool that its sources are about.
    fn members(&self) -> Option<BTreeSet<String>> {
        let pool = self.pool.as_ref()?.held().filter(|pool| !pool.is_empty());
        let buckets = || self.buckets.as_ref()?.held();
        let nodes = pool.or_else(buckets)?;
        Some(nodes.values().flatten().cloned().collect())
    }

    /// Lets watchers see again what looks different now.
    async fn touch(&self, touched: Touched) {
        if touched.is_nothing() {
            return;
        }
        let (registry, context) = (self.registry.clone(), self.filters.context());
        let touching = move || {
            let mut keys: BTreeMap<Resource, BTreeSet<ObjectKey>> = BTreeMap::new();
            for mirror in registry.all().iter().filter(|mirror| mirror.is_synced()) {
                let resource = mirror.scope.resource.clone();
                keys.entry(resource)
                    .or_default()
                    .extend(touched.keys(mirror, &context).map_err(LocalError::Store)?);
            }
            for (resource, keys) in keys {
                registry.touch(&resource, &Vec::from_iter(keys))?;
            }
            Ok::<(), LocalError>(())
        };
        if let Err(error) = blocking(touching).await {
            tracing::warn!(%error, "watchers are not told of new surroundings");
        }
    }

    async fn save(&self, context: &Context) {
        let saved = Saved {
            rules: self.rules.clone(),
            context: context.clone(),
        };
        let saved = serde_json::to_vec(&saved).expect("a struct of plain fields is JSON");
        let store = self.store.clone();
        let write = move || {
            let mut batch = Batch::new();
            batch.put(FILTER_CONTEXT, saved);
            store.write(batch)
        };
        if let Err(error) = blocking(write).await {
            tracing::warn!(%error, "what filters know is not remembered");
        }
    }
}

/// What watchers have to see again.
enum Touched {
    /// All that a filter may concern.
    Everything,
    Affected(Affected),
}

impl Touched {
    fn is_nothing(&self) -> bool {
        match self {
            Self::Everything => false,
            Self::Affected(affected) => *affected == Affected::default(),
        }
    }

    /// Returns the keys of a mirror. Blocks on the store.
    fn keys(&self, mirror: &Mirror, context: &Context) -> yurt_core::store::Result<Vec<ObjectKey>> {
        let resource = &mirror.scope.resource;
        if !FilterName::ALL.iter().any(|name| name.concerns(resource)) {
            return Ok(Vec::new());
        }
        let snapshot = mirror.view(Within::Everything).snapshot;
        let mut keys = Vec::new();
        for item in &snapshot.items {
            let body = snapshot.read(item)?;
            let is_touched = match self {
                Self::Everything => may_concern(resource, &body, context),
                Self::Affected(affected) => is_affected(resource, &item.key, &body, affected),
            };
            if is_touched {
                keys.push(item.key.clone());
            }
        }
        Ok(keys)
    }
}

/// Writes which filter is for whom, to tell one configuration from another.
fn rules(config: &FilterConfig) -> String {
    let rule = |name: FilterName| {
        let callers: Vec<String> = config.callers(name).map(ToString::to_string).collect();
        format!("{name}={};", callers.join(","))
    };
    FilterName::ALL.map(rule).concat()
}
