//! Sessions that were let in once are sent away when they would not be let in any more.
//!
//! A handshake looks at a certificate once, and a session may last for months.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::warn;
use yurt_core::transport::{Opener, Peer};

use super::Shared;
use crate::identity::{Credentials, Current, Refusal};

/// How often certificates are looked at: none is used for longer after it has expired.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A handshake that began under the authorities of before has ended by then.
const SUSPICION: Duration = Duration::from_secs(30);

type Session = Arc<dyn Opener>;

/// Looks at every session, again and again, and at once when other authorities are believed.
pub(super) async fn keep(shared: Arc<Shared>, credentials: Credentials) {
    let mut current = credentials.watch();
    let mut closing = JoinSet::new();
    let mut next = Instant::now() + LOOK_EVERY;
    let mut suspicious_until = None;
    loop {
        tokio::select! {
            () = sleep_until(next) => {}
            Ok(()) = current.changed() => suspicious_until = Some(Instant::now() + SUSPICION),
            Some(_) = closing.join_next() => continue,
        }
        let now = Instant::now();
        next = now + LOOK_EVERY;
        let trusted = current.borrow_and_update().clone();
        let trusted = suspicious_until
            .is_some_and(|until| now <= until)
            .then_some(trusted);
        for (session, refusal) in not_believed(&shared, trusted).await {
            let (user, remote) = (&session.peer().user, session.remote());
            warn!(user, %remote, %refusal, "a peer is sent away");
            shared.figures.refused(refusal);
            closing.spawn(async move { session.close(&format!("it has {refusal}")).await });
        }
    }
}

/// Returns the sessions whose peers would not be let in now.
async fn not_believed(shared: &Shared, trusted: Option<Arc<Current>>) -> Vec<(Session, Refusal)> {
    let sessions = shared.registry.all().into_iter();
    let sessions: Vec<_> = sessions.map(|(_, entry)| entry.session).collect();
    let now = SystemTime::now();
    // Thousands of signatures take seconds.
    let judged = spawn_blocking(move || {
        let judge = |session: Session| {
            let refusal = judge(session.peer(), trusted.as_deref(), now).err()?;
            Some((session, refusal))
        };
        sessions.into_iter().filter_map(judge).collect()
    });
    // An error is a runtime that is going.
    judged.await.unwrap_or_default()
}

/// Whether a peer may stay: its certificate has not expired, and those who are believed now vouch for it.
fn judge(peer: &Peer, trusted: Option<&Current>, now: SystemTime) -> Result<(), Refusal> {
    if peer.expires < now {
        return Err(Refusal::Expired);
    }
    trusted.map_or(Ok(()), |trusted| trusted.vouch_for(peer, now))
}
