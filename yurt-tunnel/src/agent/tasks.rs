//! What goes on beside the links: names are resolved, certificates read again, changes noticed, servers remembered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use yurt_core::backoff::Backoff;
use yurt_core::error::Chain;

use super::Shared;
use super::memory::Memory;
use super::network::Changes;
use crate::identity::Credentials;

/// How often names are resolved when all is well.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);

/// How often at most.
const RESOLVE_PAUSE: Duration = Duration::from_secs(1);

/// How long a resolver may take.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// How often certificates are looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(5);

/// How often changes of the network are looked for where the kernel does not tell.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Resolves the servers' names: at intervals, and soon when a server cannot be reached or a name is new.
pub(super) async fn resolve(shared: Arc<Shared>) {
    let mut backoff = Backoff::new(RESOLVE_PAUSE, RESOLVE_EVERY);
    loop {
        if resolve_all(&shared).await {
            backoff.reset();
            sleep(RESOLVE_PAUSE).await;
            tokio::select! {
                () = sleep(RESOLVE_EVERY - RESOLVE_PAUSE) => {}
                () = shared.resolve_now.notified() => {}
            }
        } else {
            sleep(backoff.next_delay(0.5 + fastrand::f64() / 2.0)).await;
        }
    }
}

/// Resolves every name once, side by side, and returns whether all could be. The links see the servers of all
/// names at once: one that is found later would move links that have just been made.
async fn resolve_all(shared: &Shared) -> bool {
    let names = shared.known.lock().names();
    let mut lookups = JoinSet::new();
    for name in names {
        lookups.spawn(async move {
            let lookup = lookup_host((name.host.as_str(), name.port));
            let addresses = timeout(RESOLVE_LIMIT, lookup).await;
            let addresses = addresses.unwrap_or_else(|late| Err(late.into()));
            let addresses = addresses.map(Iterator::collect::<Vec<SocketAddr>>);
            (name, addresses)
        });
    }
    let mut is_complete = true;
    let mut found = Vec::new();
    while let Some(looked_up) = lookups.join_next().await {
        let (name, addresses) = looked_up.expect("a lookup does not panic");
        match addresses {
            Ok(addresses) => found.push((name, addresses)),
            Err(error) => {
                is_complete = false;
                tracing::warn!(%name, %error, "a server's name cannot be resolved");
            }
        }
    }
    let now = Instant::now();
    let up = shared.up();
    let is_changed = {
        let mut known = shared.known.lock();
        let before = known.servers();
        for (name, addresses) in found {
            known.resolved(&name, addresses, now, |server| up.contains(server));
        }
        known.expire(now, &up);
        known.servers() != before
    };
    if is_changed {
        shared.changed.notify_one();
    }
    shared.worth_keeping.notify_one();
    is_complete
}

/// Reads the certificates again and again; a change gives every session its successor.
pub(super) async fn reload(shared: Arc<Shared>, credentials: Credentials) {
    let mut complaint = None;
    loop {
        sleep(RELOAD_EVERY).await;
        let credentials = credentials.clone();
        let reloaded = tokio::task::spawn_blocking(move || credentials.reload());
        match reloaded.await.expect("reading certificates does not panic") {
            Ok(is_changed) => {
                complaint = None;
                if is_changed {
                    tracing::info!("there is a new certificate");
                    shared.certificate.send_modify(|number| *number += 1);
                }
            }
            Err(error) => {
                // A certificate and its key are replaced one after the other: once is no failure.
                let text = Chain(&error).to_string();
                if complaint.as_ref() != Some(&text) {
                    tracing::warn!(error = text, "the certificates cannot be read again");
                    complaint = Some(text);
                }
            }
        }
    }
}

/// Tells the links when the network has changed.
pub(super) async fn watch_network(shared: Arc<Shared>) {
    let tell = || shared.network.send_modify(|number| *number += 1);
    let told = async {
        let changes = Changes::new()?;
        loop {
            changes.next().await?;
            tell();
        }
    };
    let error: Result<(), std::io::Error> = told.await;
    if let Err(error) = error {
        tracing::warn!(%error, "the kernel does not tell of changes of the network: looked for");
    }
    loop {
        sleep(LOOK_EVERY).await;
        tell();
    }
}

/// Keeps on disk what a restart has to know, until `stop`, and then for the last time.
pub(super) async fn remember(shared: Arc<Shared>, memory: Memory, stop: CancellationToken) {
    let memory = Arc::new(Mutex::new(memory));
    loop {
        let is_last = tokio::select! {
            () = stop.cancelled() => true,
            () = shared.worth_keeping.notified() => false,
        };
        let (memory, remembered) = (memory.clone(), shared.remember());
        let kept = tokio::task::spawn_blocking(move || memory.lock().keep(&remembered));
        if let Err(error) = kept.await.expect("writing a file does not panic") {
            let error = Chain(&error).to_string();
            tracing::warn!(error, "the servers are not remembered");
        }
        if is_last {
            return;
        }
    }
}
