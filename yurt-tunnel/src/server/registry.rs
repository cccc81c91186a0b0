//! The connected agents and other servers, and the sum of their counters.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;
use yurt_core::name::NodeName;
use yurt_core::transport::{Opener, State};

use crate::admin::scrape::Totals;

/// Sessions of one agent: two while it moves from one to the next, and some that are dead unnoticed.
const MAX_SESSIONS: usize = 8;

/// How long closing all sessions may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Whose a session is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Member {
    /// The agent of a node.
    Agent(NodeName),
    /// Another server.
    Peer,
}

/// A session in the registry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Later sessions have greater numbers.
    pub(super) number: u64,
    /// The transport's name.
    pub(super) transport: &'static str,
    /// The session.
    pub(super) session: Arc<dyn Opener>,
    /// The process at its other end, once that has named itself.
    process: Option<String>,
}

/// All sessions.
#[derive(Debug)]
pub(super) struct Registry(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    next: u64,
    members: HashMap<Member, Vec<Entry>>,
    /// The counters of closed sessions.
    past: Totals,
}

impl Registry {
    pub(super) fn new(past: Totals) -> Self {
        Self(Mutex::new(Inner {
            next: 0,
            members: HashMap::new(),
            past,
        }))
    }

    /// Adds a session and returns its number, and the oldest session of the same agent if it has too many.
    pub(super) fn add(
        &self,
        member: Member,
        transport: &'static str,
        session: Arc<dyn Opener>,
    ) -> (u64, Option<Arc<dyn Opener>>) {
        let mut inner = self.0.lock();
        inner.next += 1;
        let number = inner.next;
        let entry = Entry {
            number,
            transport,
            session,
            process: None,
        };
        let is_agent = matches!(member, Member::Agent(_));
        let entries = inner.members.entry(member).or_default();
        entries.push(entry);
        let is_crowded = is_agent && entries.len() > MAX_SESSIONS;
        (number, is_crowded.then(|| entries[0].session.clone()))
    }

    /// Notes which process is at the other end of a session, and returns the member's older sessions with other
    /// processes, which may have been killed.
    pub(super) fn note_process(
        &self,
        member: &Member,
        number: u64,
        process: String,
    ) -> Vec<Arc<dyn Opener>> {
        let mut inner = self.0.lock();
        let entries = inner.members.get_mut(member);
        let entries = entries.map(Vec::as_mut_slice).unwrap_or_default();
        let is_another = |entry: &&mut Entry| {
            let other = entry.process.as_ref();
            entry.number < number && other.is_some_and(|other| *other != process)
        };
        let others = entries.iter_mut().filter(is_another);
        let others = others.map(|entry| entry.session.clone()).collect();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.number == number) {
            entry.process = Some(process);
        }
        others
    }

    /// Removes one session; others of the same member stay.
    pub(super) fn remove(&self, member: &Member, number: u64) {
        let mut inner = self.0.lock();
        let Some(entries) = inner.members.get_mut(member) else {
            return;
        };
        let Some(at) = entries.iter().position(|entry| entry.number == number) else {
            return;
        };
        let entry = entries.remove(at);
        if entries.is_empty() {
            inner.members.remove(member);
        }
        let last = entry.session.stats();
        inner.past.add_past(entry.transport, &last);
    }

    /// Returns a member's sessions that take streams, the newest first: the member has chosen that one, and older ones
    /// may be dead unnoticed.
    #[must_use]
    pub(super) fn open_sessions(&self, member: &Member) -> Vec<Arc<dyn Opener>> {
        let inner = self.0.lock();
        let entries = inner.members.get(member).into_iter().flatten().rev();
        let open = entries.filter(|entry| *entry.session.state().borrow() == State::Open);
        open.map(|entry| entry.session.clone()).collect()
    }

    /// Returns every session with its member.
    #[must_use]
    pub(super) fn all(&self) -> Vec<(Member, Entry)> {
        let inner = self.0.lock();
        let members = inner.members.iter();
        members
            .flat_map(|(member, entries)| {
                entries.iter().map(|entry| (member.clone(), entry.clone()))
            })
            .collect()
    }

    /// Returns every session.
    #[must_use]
    pub(super) fn sessions(&self) -> Vec<Arc<dyn Opener>> {
        let inner = self.0.lock();
        let entries = inner.members.values().flatten();
        entries.map(|entry| entry.session.clone()).collect()
    }

    /// Closes every session.
    pub(super) async fn close(&self) {
        let mut closing = JoinSet::new();
        for session in self.sessions() {
            closing.spawn(async move { session.close("the server has shut down").await });
        }
        // A dead peer must not hold up the shutdown.
        let closed = async { while closing.join_next().await.is_some() {} };
        let _ = timeout(CLOSE_LIMIT, closed).await;
    }

    /// Returns the sum of all sessions' counters, including closed ones.
    #[must_use]
    pub(super) fn totals(&self) -> Totals {
        // A session that is removed meanwhile must not be in neither: counters do not go back.
        let inner = self.0.lock();
        let mut totals = inner.past.clone();
        for entry in inner.members.values().flatten() {
            totals.add(entry.transport, &entry.session.stats());
        }
        totals
    }
}
