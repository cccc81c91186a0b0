//! Who is connected: the agent of which node, which other servers, and what they have cost so far.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;
use yurt_core::name::NodeName;
use yurt_core::transport::{Opener, State};

use crate::admin::scrape::Totals;

/// An agent has two while it moves from one to the next, and some that do not know yet that they are dead.
const MAX_SESSIONS: usize = 8;

/// How long the last words to all may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Whose a session is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Member {
    /// The agent of a node.
    Agent(NodeName),
    /// Another server.
    Peer,
}

/// A session, and when it came.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Each is greater than all before it.
    pub(super) number: u64,
    /// By which transport.
    pub(super) transport: &'static str,
    /// The session.
    pub(super) session: Arc<dyn Opener>,
    /// The name of the process at its other end, once that has said it.
    process: Option<String>,
}

/// All sessions.
#[derive(Debug)]
pub(super) struct Registry(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    next: u64,
    members: HashMap<Member, Vec<Entry>>,
    /// What sessions that are over had counted.
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

    /// Adds a session and returns its number, and a session of the same agent that is one too many.
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

    /// Notes which process is at the other end of a session, and returns the older sessions of another process of the
    /// same member: that may be gone without a word.
    pub(super) fn said(
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

    /// Takes one session out; others of the same member stay.
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

    /// Returns a member's sessions that take streams, the newest first: it is the one that the member has
    /// chosen, and an older one may not know yet that it is dead.
    #[must_use]
    pub(super) fn open(&self, member: &Member) -> Vec<Arc<dyn Opener>> {
        let inner = self.0.lock();
        let entries = inner.members.get(member).into_iter().flatten().rev();
        let open = entries.filter(|entry| *entry.session.state().borrow() == State::Open);
        open.map(|entry| entry.session.clone()).collect()
    }

    /// Returns every session with whose it is.
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

    /// Closes every session that there still is.
    pub(super) async fn close(&self) {
        let mut closing = JoinSet::new();
        for session in self.sessions() {
            closing.spawn(async move { session.close("the server is gone").await });
        }
        // A peer that does not listen any more must not hold up the end.
        let closed = async { while closing.join_next().await.is_some() {} };
        let _ = timeout(CLOSE_LIMIT, closed).await;
    }

    /// Returns what all sessions, those that are over included, have counted.
    #[must_use]
    pub(super) fn totals(&self) -> Totals {
        let mut totals = self.0.lock().past.clone();
        for (_, entry) in self.all() {
            totals.add(entry.transport, &entry.session.stats());
        }
        totals
    }
}
