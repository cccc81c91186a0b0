//! Sessions that were let in once are ended when they would not be let in any more.
//!
//! A handshake looks at a certificate once, and a session may last for months.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::warn;
use yurt_core::transport::{Peer, Session};

use crate::identity::{Credentials, Current, Refusal};

/// How often certificates are looked at: none is used for longer after it has expired.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A handshake that began under the authorities of before has ended by then.
const SUSPICION: Duration = Duration::from_secs(30);

/// Whom an end of the tunnel has sessions with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peers {
    /// Agents, and servers that come as clients: they have to have a valid certificate all the time.
    Clients,
    /// Servers, whose authority has to be believed. While one cannot renew its certificate it still serves.
    Servers,
}

/// Looks at every session, again and again, and at once when other authorities are believed.
pub(crate) async fn keep<S: Session + ?Sized + 'static>(
    peers: Peers,
    credentials: Credentials,
    sessions: impl Fn() -> Vec<Arc<S>>,
    refused: impl Fn(Refusal),
) {
    let mut current = credentials.watch();
    let mut known = current.borrow().clone();
    let mut closing = JoinSet::new();
    let mut next = Instant::now() + LOOK_EVERY;
    let mut suspicious_until = None;
    loop {
        tokio::select! {
            () = sleep_until(next) => {}
            Ok(()) = current.changed() => {}
            Some(_) = closing.join_next() => continue,
        }
        let now = Instant::now();
        next = now + LOOK_EVERY;
        let trusted = current.borrow_and_update().clone();
        if !trusted.has_authorities_of(&known) {
            suspicious_until = Some(now + SUSPICION);
        }
        known = trusted.clone();
        let is_suspicious = suspicious_until.is_some_and(|until| now <= until);
        let trusted = is_suspicious.then_some(trusted);
        for (session, refusal) in not_believed(peers, sessions(), trusted).await {
            let (user, remote) = (&session.peer().user, session.remote());
            warn!(user, %remote, %refusal, "a peer is believed no more");
            refused(refusal);
            closing.spawn(async move { session.close(&format!("it has {refusal}")).await });
        }
    }
}

/// Returns the sessions whose peers would not be believed now.
#[expect(clippy::disallowed_methods, reason = "where the clock comes from")]
async fn not_believed<S: Session + ?Sized + 'static>(
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
    // Thousands of signatures take seconds; an error is a runtime that is going.
    spawn_blocking(judge_all).await.unwrap_or_default()
}

/// Whether a peer may stay.
fn judge(
    peers: Peers,
    peer: &Peer,
    trusted: Option<&Current>,
    now: SystemTime,
) -> Result<(), Refusal> {
    match peers {
        Peers::Clients if peer.expires < now => Err(Refusal::Expired),
        Peers::Clients => trusted.map_or(Ok(()), |trusted| trusted.vouch_for_client(peer, now)),
        Peers::Servers => trusted.map_or(Ok(()), |trusted| trusted.vouch_for_server(peer, now)),
    }
}
