//! Closes sessions whose peer would no longer be accepted.
//!
//! A handshake verifies a certificate once, and a session may last for months.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::warn;
use yurt_core::transport::{Peer, Session};

use crate::identity::{Credentials, Current, Refusal};

/// How often certificates are verified again: an expired one is used no longer than this.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// By then every handshake that began with the former authorities has ended.
const HANDSHAKES_END: Duration = Duration::from_secs(30);

/// The peers of an end of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peers {
    /// Agents, and servers that connect as clients: their certificates must stay valid.
    Clients,
    /// Servers, whose authority must be trusted. One whose certificate has expired still serves.
    Servers,
}

/// Verifies every session periodically, and at once when the trusted authorities change.
pub(crate) async fn run<S: Session + ?Sized + 'static>(
    peers: Peers,
    credentials: Credentials,
    sessions: impl Fn() -> Vec<Arc<S>>,
    refused: impl Fn(Refusal),
) {
    let mut current = credentials.watch();
    let mut known = current.borrow().clone();
    let mut closing = JoinSet::new();
    let mut next = Instant::now() + CHECK_EVERY;
    let mut recheck_until = None;
    loop {
        tokio::select! {
            () = sleep_until(next) => {}
            Ok(()) = current.changed() => {}
            Some(_) = closing.join_next() => continue,
        }
        let now = Instant::now();
        next = now + CHECK_EVERY;
        let trusted = current.borrow_and_update().clone();
        if !trusted.has_authorities_of(&known) {
            recheck_until = Some(now + HANDSHAKES_END);
        }
        known = trusted.clone();
        let is_recheck = recheck_until.is_some_and(|until| now <= until);
        let trusted = is_recheck.then_some(trusted);
        for (session, refusal) in rejected(peers, sessions(), trusted).await {
            let (user, remote) = (&session.peer().user, session.remote());
            warn!(user, %remote, %refusal, "closing the session of a peer that is no longer accepted");
            refused(refusal);
            closing.spawn(async move { session.close(&format!("it has {refusal}")).await });
        }
    }
}

/// Returns the sessions whose peers would not be accepted now.
#[expect(clippy::disallowed_methods, reason = "where the clock comes from")]
async fn rejected<S: Session + ?Sized + 'static>(
    peers: Peers,
    sessions: Vec<Arc<S>>,
    trusted: Option<Arc<Current>>,
) -> Vec<(Arc<S>, Refusal)> {
    let now = SystemTime::now();
    let is_quick = trusted.is_none();
    let judge_all = move || {
        let judge = |session: Arc<S>| {
            let refusal = judge(peers, session.peer(), trusted.as_deref(), now).err()?;
            Some((session, refusal))
        };
        sessions.into_iter().filter_map(judge).collect()
    };
    if is_quick {
        return judge_all();
    }
    // Thousands of signatures take seconds. An error means that the runtime is shutting down.
    spawn_blocking(judge_all).await.unwrap_or_default()
}

/// Whether a peer may stay connected.
fn judge(
    peers: Peers,
    peer: &Peer,
    trusted: Option<&Current>,
    now: SystemTime,
) -> Result<(), Refusal> {
    match peers {
        Peers::Clients if peer.expires < now => Err(Refusal::Expired),
        Peers::Clients => trusted.map_or(Ok(()), |trusted| trusted.reverify_client(peer, now)),
        Peers::Servers => trusted.map_or(Ok(()), |trusted| trusted.reverify_server(peer, now)),
    }
}
