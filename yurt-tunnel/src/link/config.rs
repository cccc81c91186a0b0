//! What an end allows its peer.

use std::time::Duration;

use super::Buffers;
use crate::wire::{Hello, VERSION};

/// What an end allows its peer, and how long it waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many streams may be open at once.
    pub streams: u64,
    /// How many streams may wait to be accepted; more are refused.
    pub backlog: usize,
    /// How many bytes of a stream the peer may send before any is read.
    pub window: u64,
    /// How far that grows for a stream that is read as fast as it arrives.
    pub max_window: u64,
    /// What all windows may grow by together, those of other sessions with the same budget included.
    pub buffers: Buffers,
    /// The peer of a link with streams is asked for a sign of life after this silence.
    pub keep_alive: Duration,
    /// The peer of a link without streams is asked after this silence; agents ask before, as their NAT needs it.
    pub idle: Duration,
    /// The session is over after this silence, if the peer was asked.
    pub liveness: Duration,
}

impl Default for Config {
    /// A thousand streams, which cost 64 MiB when nobody reads any of them, and as much again for those that
    /// are read fast; silence is noticed after 5 s and ends the session after 30 s, so that a blackout of a
    /// quarter of a minute is lived through. Without streams nobody is asked for 5 minutes.
    fn default() -> Self {
        Self {
            streams: 1024,
            // An API server that restarts comes with all of its watches, logs and probes at once.
            backlog: 768,
            window: 64 << 10,
            max_window: 8 << 20,
            buffers: Buffers::default(),
            keep_alive: Duration::from_secs(5),
            idle: Duration::from_secs(300),
            liveness: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// Returns how many bytes an honest peer has sent unread at most, of all streams of a session.
    #[must_use]
    pub(crate) fn most_unread(&self) -> u64 {
        (self.streams.saturating_mul(self.window)).saturating_add(self.buffers.limit())
    }

    /// What to say first.
    #[must_use]
    pub fn hello(&self) -> Hello {
        Hello {
            version: VERSION,
            streams: self.streams,
            window: self.window,
            tells_ends: true,
            takes_credit_back: true,
        }
    }
}
