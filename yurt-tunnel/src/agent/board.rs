//! The sessions that this agent has, for whoever wants to see them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use yurt_core::transport::{Acceptor, Stats};

use crate::admin::scrape::Totals;

/// Every session, and what those that are over have counted.
#[derive(Debug)]
pub(super) struct Board(Mutex<Entries>);

#[derive(Debug)]
struct Entries {
    next: u64,
    sessions: BTreeMap<u64, Entry>,
    past: Totals,
}

#[derive(Debug)]
struct Entry {
    server: SocketAddr,
    transport: &'static str,
    session: Weak<dyn Acceptor>,
    is_leaving: bool,
    answered: Option<Instant>,
    rest: Duration,
}

/// A session as it is seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) server: SocketAddr,
    pub(super) transport: &'static str,
    /// Whether it takes no new streams.
    pub(super) is_leaving: bool,
    /// How long ago the server has answered.
    pub(super) answered: Option<Duration>,
    /// How long it is not asked after that.
    pub(super) rest: Duration,
    pub(super) stats: Stats,
}

/// A session's place on the board; dropped, it is taken off.
#[derive(Debug)]
pub(super) struct Place {
    board: Arc<Board>,
    id: u64,
    session: Arc<dyn Acceptor>,
}

impl Board {
    pub(super) fn new(past: Totals) -> Self {
        Self(Mutex::new(Entries {
            next: 0,
            sessions: BTreeMap::new(),
            past,
        }))
    }

    /// Returns every session.
    pub(super) fn sessions(&self) -> Vec<Arc<dyn Acceptor>> {
        let entries = self.0.lock();
        let sessions = entries.sessions.values();
        sessions
            .filter_map(|entry| entry.session.upgrade())
            .collect()
    }

    pub(super) fn enter(
        self: &Arc<Self>,
        (server, transport): (SocketAddr, &'static str),
        session: Arc<dyn Acceptor>,
    ) -> Place {
        let mut entries = self.0.lock();
        let id = entries.next;
        entries.next += 1;
        let entry = Entry {
            server,
            transport,
            session: Arc::downgrade(&session),
            is_leaving: false,
            answered: None,
            rest: Duration::ZERO,
        };
        entries.sessions.insert(id, entry);
        Place {
            board: self.clone(),
            id,
            session,
        }
    }

    /// Returns every session, and what all have counted since the start.
    pub(super) fn look(&self, now: Instant) -> (Vec<Seen>, Totals) {
        let entries = self.0.lock();
        let mut totals = entries.past.clone();
        let see = |entry: &Entry| {
            let stats = entry.session.upgrade()?.stats();
            totals.add(entry.transport, &stats);
            Some(Seen {
                server: entry.server,
                transport: entry.transport,
                is_leaving: entry.is_leaving,
                answered: entry.answered.map(|at| now.saturating_duration_since(at)),
                rest: entry.rest,
                stats,
            })
        };
        let seen = entries.sessions.values().filter_map(see).collect();
        (seen, totals)
    }
}

impl Place {
    /// Notes that the server has answered and is not asked for so long.
    pub(super) fn answered(&self, now: Instant, rest: Duration) {
        self.change(|entry| (entry.answered, entry.rest) = (Some(now), rest));
    }

    /// Notes that the server was asked, whatever it was to rest, and has not answered.
    pub(super) fn silent(&self) {
        self.change(|entry| entry.rest = Duration::ZERO);
    }

    pub(super) fn leaving(&self) {
        self.change(|entry| entry.is_leaving = true);
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.board.0.lock().sessions.get_mut(&self.id) {
            change(entry);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let stats = self.session.stats();
        let mut entries = self.board.0.lock();
        if let Some(entry) = entries.sessions.remove(&self.id) {
            entries.past.add_past(entry.transport, &stats);
        }
    }
}
