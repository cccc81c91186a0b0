//! The API servers, what is known of each, and what that says about the cloud.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::dial::Address;
use super::pick::{self, Health};
use super::pool::Pool;
use super::{Credential, Order, Reach, ServerHealth};

/// One API server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: Address,
    node: Arc<Pool>,
    bearer: Arc<Pool>,
    stranger: Arc<Pool>,
    /// How long the last connection took to come up, in microseconds.
    dialled_in: AtomicU64,
    /// Cancelled when the server goes down, with every connection and dial of the time until then.
    epoch: Mutex<CancellationToken>,
    /// Something broke: the server is to be probed.
    pub(super) probe_now: Notify,
    pub(super) requests: AtomicU64,
    pub(super) failures: AtomicU64,
}

impl Server {
    /// The connections under a credential.
    pub(super) fn pool(&self, credential: Credential) -> &Arc<Pool> {
        match credential {
            Credential::Node => &self.node,
            Credential::Bearer => &self.bearer,
            Credential::Stranger => &self.stranger,
        }
    }

    /// Notes how long a connection took to come up.
    pub(super) fn note_dial(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.dialled_in.store(took, Ordering::Relaxed);
    }

    /// Returns how long the last one took.
    pub(super) fn dialled_in(&self) -> Duration {
        Duration::from_micros(self.dialled_in.load(Ordering::Relaxed))
    }
}

/// All API servers.
#[derive(Debug)]
pub(super) struct Set {
    servers: Vec<Server>,
    order: Order,
    turn: AtomicUsize,
    health: Mutex<Vec<Health>>,
    reach: watch::Sender<Reach>,
    /// What time it is by the cloud, and when it said so.
    time: Mutex<Option<(Timestamp, Instant)>>,
    stop: CancellationToken,
}

impl Set {
    /// Knows nothing of the servers yet; `stop` ends every epoch.
    pub(super) fn new(addresses: Vec<Address>, order: Order, stop: CancellationToken) -> Self {
        let server = |address| Server {
            address,
            node: Arc::default(),
            bearer: Arc::default(),
            stranger: Arc::new(Pool::exclusive()),
            dialled_in: AtomicU64::new(0),
            epoch: Mutex::new(stop.child_token()),
            probe_now: Notify::new(),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        };
        Self {
            health: Mutex::new(vec![Health::Unknown; addresses.len()]),
            servers: addresses.into_iter().map(server).collect(),
            order,
            turn: AtomicUsize::new(0),
            reach: watch::Sender::new(Reach::Unknown),
            time: Mutex::new(None),
            stop,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.servers.len()
    }

    /// One of them, by its place in the configuration.
    pub(super) fn server(&self, index: usize) -> &Server {
        &self.servers[index]
    }

    /// What is known of one, and what ends when it goes down from that.
    pub(super) fn state(&self, index: usize) -> (Health, CancellationToken) {
        let epoch = self.servers[index].epoch.lock();
        (self.health.lock()[index], epoch.clone())
    }

    /// Whom to ask next, and whom after that.
    pub(super) fn candidates(&self) -> Vec<usize> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        pick::candidates(&self.health.lock(), self.order, turn)
    }

    /// Whether the cloud can be reached, now and later.
    pub(super) fn reach(&self) -> watch::Receiver<Reach> {
        self.reach.subscribe()
    }

    /// Every server with its figures.
    pub(super) fn report(&self) -> Vec<ServerHealth> {
        let health = self.health.lock();
        let both = self.servers.iter().zip(health.iter());
        both.map(|(server, health)| ServerHealth {
            url: server.address.url.clone(),
            is_up: *health == Health::Up,
            requests: server.requests.load(Ordering::Relaxed),
            failures: server.failures.load(Ordering::Relaxed),
        })
        .collect()
    }

    /// Notes what time it is by a server's word.
    pub(super) fn note_time(&self, at: Timestamp, now: Instant) {
        *self.time.lock() = Some((at, now));
    }

    /// Returns what time it is by the last word on it, once.
    pub(super) fn take_time(&self, now: Instant) -> Option<Timestamp> {
        let (at, then) = self.time.lock().take()?;
        at.checked_add(now.duration_since(then)).ok()
    }

    /// Notes that a server answered during that epoch; too late if the epoch is over.
    pub(super) fn mark_up(&self, index: usize, epoch: &CancellationToken) {
        let _current = self.servers[index].epoch.lock();
        if !epoch.is_cancelled() && self.mark(index, Health::Up) {
            info!(server = %self.servers[index].address.authority, "the API server is up");
        }
    }

    /// Notes that a server failed during that epoch, and closes its connections; old news if the
    /// epoch is over.
    pub(super) fn mark_down(
        &self,
        index: usize,
        epoch: &CancellationToken,
        reason: &(dyn std::error::Error + 'static),
    ) {
        let server = &self.servers[index];
        {
            let mut current = server.epoch.lock();
            if epoch.is_cancelled() || !self.mark(index, Health::Down) {
                return;
            }
            *current = self.stop.child_token();
            // Under the lock: who comes second must find the epoch over.
            epoch.cancel();
        }
        warn!(server = %server.address.authority, reason, "the API server is down");
    }

    fn mark(&self, index: usize, now: Health) -> bool {
        let mut health = self.health.lock();
        if health[index] == now {
            return false;
        }
        health[index] = now;
        self.reach.send_if_modified(|reach| {
            let before = *reach;
            *reach = pick::reach(&health, before, Timestamp::now());
            *reach != before
        });
        true
    }
}
