//! Connections in the making and in the hands of their drivers, all owned by `Upstream::run`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::dial::{self, DialError, Driver, Tasks};
use super::files::{Current, Offer, TlsFiles};
use super::pick::Health;
use super::pool::{Connection, Dialing, Permit, Taken};
use super::set::{Server, Set};
use super::streams::Purpose;
use super::{Credential, UpstreamConfig};
use crate::tasks::{self, contained};

/// What every part of the upstream shares.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: UpstreamConfig,
    pub(super) set: Set,
    pub(super) files: Arc<TlsFiles>,
    /// Every task; `Upstream::run` waits for them.
    pub(super) tasks: tasks::Tasks,
    pub(super) stop: CancellationToken,
}

/// Why there is no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoStream {
    /// The server is not there.
    Down,
    /// Others use them.
    InUse,
}

impl Shared {
    /// A stream to a server: on an open connection, else on one dialled once for all who wait.
    ///
    /// # Errors
    /// If the dial failed or the server went down meanwhile; or if its streams are in use, for long or by whom they are for.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        index: usize,
        credential: Credential,
        purpose: &Purpose,
    ) -> Result<Permit, NoStream> {
        let server = self.set.server(index);
        let (Health::Up, epoch) = self.set.state(index) else {
            return Err(NoStream::Down);
        };
        let mut is_full = false;
        let pool = server.pool(credential);
        let failed = pool.failed_dials();
        let found = async {
            loop {
                let changed = pool.changed();
                match pool.take(self.files.generation(), purpose) {
                    Taken::Stream(permit) => return Ok(permit),
                    Taken::NoShare => return Err(NoStream::InUse),
                    Taken::Full => {
                        is_full = true;
                        changed.await;
                        continue;
                    }
                    Taken::Dial => is_full = false,
                }
                // A runtime that ends drops each dial as it is begun: who dialled again and again would never leave its
                // thread. The first that fails may be a dial of the server's previous epoch.
                if pool.failed_dials() > failed + 1 {
                    return Err(NoStream::Down);
                }
                if let Some(dialing) = pool.begin_dial() {
                    let shared = self.clone();
                    let epoch = epoch.clone();
                    self.tasks.spawn(async move {
                        shared.dial_more(index, credential, epoch, dialing).await;
                    });
                }
                changed.await;
            }
        };
        let found = timeout(self.config.connect_timeout * 2, found);
        match epoch.run_until_cancelled(found).await {
            Some(Ok(found)) => found,
            Some(Err(_)) if is_full => Err(NoStream::InUse),
            Some(Err(_)) | None => Err(NoStream::Down),
        }
    }

    /// Dials for those who wait; a failure is the server's, unless it may be a stranger's.
    async fn dial_more(
        self: Arc<Self>,
        index: usize,
        credential: Credential,
        epoch: CancellationToken,
        dialing: Dialing,
    ) {
        let within = self.config.connect_timeout;
        let pool = self.set.server(index).pool(credential);
        match self.dial(index, credential, &epoch, within).await {
            Ok(connection) => pool.add(connection),
            // One of many dials that fails says little of a server to which there are connections: it is probed.
            Err(error) if credential == Credential::Stranger || pool.has_open() => {
                tracing::debug!(%error, ?credential, "no further connection");
                self.set.server(index).probe_now.notify_one();
            }
            Err(error) => self.set.mark_down(index, &epoch, &error),
        }
        drop(dialing);
    }

    /// Opens a connection, which is driven from then on and closed when `epoch` ends.
    pub(super) async fn dial(
        self: &Arc<Self>,
        index: usize,
        credential: Credential,
        epoch: &CancellationToken,
        within: Duration,
    ) -> Result<Arc<Connection>, DialError> {
        let tls = self.read_files(credential, Offer::Any).await?;
        let began = Instant::now();
        let generation = tls.generation;
        let tasks = Tasks {
            all: tasks::Tasks::default(),
            closed: epoch.child_token(),
        };
        // A dial that is dropped half-way takes the tasks that hyper has spawned with it.
        let guard = tasks.closed.clone().drop_guard();
        let server = self.set.server(index);
        let free = server.pool(credential).notify();
        let address = &server.address;
        let config = &self.config;
        let dialled = dial::open(
            address,
            tls,
            credential,
            config,
            tasks.clone(),
            free.clone(),
        );
        let dialled = epoch
            .run_until_cancelled(timeout(within, dialled))
            .await
            .ok_or(DialError::GivenUp)?
            .map_err(|_| DialError::TimedOut(within))??;
        server.note_dial(began.elapsed());
        let connection = Connection::new(dialled.sender, generation, guard.disarm(), free);
        let shared = self.clone();
        let driven = connection.clone();
        self.tasks.spawn(async move {
            let server = shared.set.server(index);
            let pause = shared.config.probe_interval;
            drive(dialled.driver, driven, tasks, (server, credential), pause).await;
        });
        Ok(connection)
    }

    /// The TLS configuration as the files have it now.
    pub(super) async fn read_files(
        &self,
        credential: Credential,
        offer: Offer,
    ) -> Result<Current, DialError> {
        let files = self.files.clone();
        tasks::blocking(move || Ok(files.current(credential, offer))).await
    }
}

/// Carries a connection until it is over, and asks for a probe unless we closed it: at once if it broke. If the server
/// ended it in order, as it does to connections that nobody uses, that is no alarm; but for the node's there has to be
/// another, by which the server's pulse is felt, after a pause. Strangers alarm nobody.
async fn drive(
    driver: Driver,
    connection: Arc<Connection>,
    tasks: Tasks,
    (server, credential): (&Server, Credential),
    pause: Duration,
) {
    let ended = tasks.closed.run_until_cancelled(contained(driver)).await;
    server.pool(credential).remove(&connection);
    let broken: Option<&(dyn std::error::Error + 'static)> = match &ended {
        Some(Ok(Err(error))) => Some(error),
        Some(Err(panicked)) => Some(panicked),
        Some(Ok(Ok(()))) | None => None,
    };
    // A server that closes an idle connection of HTTP/1.1 does not always do it in order.
    let was_idle = connection.is_http1() && connection.is_idle();
    if let Some(error) = broken.filter(|_| !was_idle) {
        tracing::debug!(server = %server.address.authority, error, "a connection broke");
        // A request that was just being sent would otherwise wait for an answer for ever.
        connection.close();
        if credential != Credential::Stranger {
            server.probe_now.notify_one();
        }
    }
    // After a GOAWAY what is in flight goes on, in hyper's own tasks.
    tasks.all.close();
    tasks.all.wait().await;
    let ended_by_server = tasks.closed.run_until_cancelled(sleep(pause)).await;
    // A server of HTTP/1.1 closes each idle connection in its time, and has its pulse felt anyway.
    let is_pulse = credential == Credential::Node && !connection.is_http1();
    if is_pulse && ended_by_server.is_some() {
        server.probe_now.notify_one();
    }
    connection.close();
}
