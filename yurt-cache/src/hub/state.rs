//! What the hub knows and whom it asks. Its tasks and its proxy each take of it what they need.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Error, Hub, boot, sweep};
use crate::authorize::Verdicts;
use crate::discovery::Documents;
use crate::follow::FollowerConfig;
use crate::follow::registry::{self, Registry};
use crate::follow::share::Seats;
use crate::identity::clock::{Clock, Clocks};
use crate::identity::contact::Contact;
use crate::identity::{Authenticator, IssuedTokens, TokensIn};
use crate::mirror::window::Limit;
use crate::outbox::Outbox;
use crate::overlay::local_pods::LocalPods;
use crate::store::layout;
use crate::tasks::{Tasks, blocking};
use crate::upstream::Upstream;

/// A mirror's events take an eighth of what all may.
const WINDOWS: usize = 8;

/// The cloud, and what the store remembers.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) upstream: Upstream,
    pub(super) registry: Arc<Registry>,
    pub(super) verdicts: Arc<Verdicts>,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) local_pods: Arc<LocalPods>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) documents: Documents,
}

impl Hub {
    /// Opens what the store remembers.
    pub(super) async fn open(
        &self,
        tasks: &Tasks,
        stop: &CancellationToken,
    ) -> Result<State, Error> {
        let follower = FollowerConfig {
            upstream: self.upstream.clone(),
            object_limit: self.config.object_limit,
            has_node_identity: self.config.upstream.client_certificate.is_some()
                || self.config.bootstrap_token_file.is_some(),
        };
        let (retention, bounds, verdicts) = sweep::retention(&self.config);
        let limits = registry::Limits {
            window: Limit {
                steps: self.config.window_events,
                bytes: self.config.window_bytes / WINDOWS,
            },
            windows: self.config.window_bytes,
            retention,
            seats: Seats {
                all: self.config.limits.mirrors,
                of_caller: self.config.limits.caller_mirrors,
            },
        };
        let (store, tasks, stop) = (self.store.clone(), tasks.clone(), stop.clone());
        let limit = self.config.verdict_limit;
        let clocks = Clocks {
            wall: self.config.clock,
            uptime: self.config.uptime,
        };
        let (local_issuer, upstream) = (self.local_issuer.clone(), self.upstream.clone());
        let node = self.config.node_name.clone();
        let boot_id_file = self.config.boot_id_file.clone();
        let sealed = self.sealed.clone();
        let of_caller = self.config.limits.caller_documents;
        let open = move || {
            layout::check(&*store)?;
            sealed.reseal()?;
            let now = Instant::now();
            let documents = Documents::open(store.clone(), bounds, of_caller, now)?;
            let tokens_in = if sealed.can_seal() {
                TokensIn::Store
            } else {
                TokensIn::Memory
            };
            let issued = IssuedTokens::open(store.clone(), tasks.clone(), tokens_in)?;
            let makers = (issued, local_issuer);
            let contact = Arc::new(Contact::open(store.clone())?);
            let clock = Clock::open(store.clone(), clocks, &boot_id_file, contact.last());
            let times = (Arc::new(clock), contact);
            let authenticator =
                Authenticator::open(store.clone(), tasks.clone(), times, limit, makers)?;
            let authenticator = Arc::new(authenticator);
            let verdicts = Verdicts::open(
                store.clone(),
                tasks.clone(),
                authenticator.clone(),
                upstream.clone(),
                verdicts,
            )?;
            let registry = Registry::open(store.clone(), limits, follower, tasks, stop, now)?;
            let local_pods = boot::recall(&registry, &*store, &node, &boot_id_file);
            Ok(State {
                upstream,
                local_pods: Arc::new(local_pods),
                outbox: Arc::new(Outbox::open(store)?),
                registry: Arc::new(registry),
                verdicts: Arc::new(verdicts),
                authenticator,
                documents,
            })
        };
        blocking(open).await.map_err(Error::Store)
    }
}
