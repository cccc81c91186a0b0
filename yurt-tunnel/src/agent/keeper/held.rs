//! The session of a link that takes new streams, and what is heard of it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use yurt_core::transport::{Acceptor, ErrorKind, State};

use crate::agent::board::Place;
use crate::agent::pulse::{Beat, Pulse};
use crate::agent::quality::Quality;
use crate::agent::want::Current;

/// The session that takes new streams.
pub(super) struct Held {
    pub(super) session: Arc<dyn Acceptor>,
    pub(super) state: watch::Receiver<State>,
    /// The state that is known: a session may have ended before anybody looked.
    pub(super) seen: State,
    pub(super) streams: watch::Receiver<usize>,
    pub(super) is_used: bool,
    pub(super) pulse: Pulse,
    pub(super) quality: Quality,
    /// Another way is looked for, as this one loses most of what is sent.
    pub(super) is_poor: bool,
    /// The node's address has changed, and the server was not heard since.
    pub(super) has_moved: bool,
    pub(super) place: Place,
    pub(super) lane: usize,
    pub(super) certificate: u64,
    pub(super) since: Instant,
    pub(super) renew_at: Option<Instant>,
    pub(super) probe_at: Option<Instant>,
}

/// What is heard of a session.
pub(super) enum News {
    Changed(State),
    Beat(Beat),
    /// The first stream has begun, or the last has ended.
    Used(bool),
}

impl Held {
    /// Returns what happens next to the session, if there is one.
    pub(super) async fn next(held: &mut Option<Self>) -> News {
        let Some(held) = held else {
            return std::future::pending().await;
        };
        let seen = held.seen.clone();
        let was_used = held.is_used;
        tokio::select! {
            Ok(_) = held.streams.wait_for(|count| (*count > 0) != was_used) => {
                held.is_used = !was_used;
                News::Used(held.is_used)
            }
            changed = held.state.wait_for(|state| *state != seen) => {
                // Whoever knew the state may be gone, and the session with it.
                held.seen = changed.map_or_else(|_| dropped(), |state| state.clone());
                News::Changed(held.seen.clone())
            }
            beat = held.pulse.beat() => News::Beat(beat),
        }
    }

    pub(super) fn situation(&self) -> Current {
        Current {
            certificate: self.certificate,
            is_silent: self.pulse.is_silent(),
            is_poor: self.is_poor,
            renew_at: self.renew_at,
            probe_at: self.probe_at,
        }
    }
}

fn dropped() -> State {
    State::Closed {
        kind: ErrorKind::Closed,
        reason: "the transport has dropped it".to_owned(),
    }
}
