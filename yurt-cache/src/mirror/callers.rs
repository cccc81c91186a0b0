//! Who asked for a mirror's scope, and with whose identity it was fetched.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::Mirror;
use crate::api::request::Verb;
use crate::identity::Caller;

#[derive(Default)]
pub(super) struct Callers {
    /// Who asked for this scope, the latest first: with whose identity it may be fetched.
    asked: VecDeque<Caller>,
    /// With whose identity it was listed.
    listed_as: Option<Caller>,
    /// With whose identity it was watched.
    watched_as: Option<Caller>,
}

impl Mirror {
    /// Notes that somebody asked, and as whom the scope may be fetched.
    pub(crate) fn note_use(&self, caller: &Caller, now: Instant) {
        self.state.write().used = now;
        if caller.is_of_hub() {
            return;
        }
        let mut callers = self.callers.lock();
        if callers.asked.front() == Some(caller) {
            return;
        }
        // Of the tokens of one account the newest lives longest.
        let known = callers.asked.len();
        callers.asked.retain(|one| one.id() != caller.id());
        let is_new = callers.asked.len() == known;
        callers.asked.push_front(caller.clone());
        callers.asked.truncate(4);
        drop(callers);
        if is_new {
            self.asked.notify_one();
        }
    }

    /// Returns who asked lately.
    pub(crate) fn callers(&self) -> Vec<Caller> {
        self.callers.lock().asked.iter().cloned().collect()
    }

    /// Returns whether the scope was listed, or watched, with this caller's own identity.
    pub(crate) fn is_fetched_as(&self, caller: &Caller, verb: Verb) -> bool {
        let callers = self.callers.lock();
        let is_caller =
            |one: &Option<Caller>| one.as_ref().is_some_and(|one| one.id() == caller.id());
        match verb {
            Verb::List => is_caller(&callers.listed_as),
            Verb::Watch => is_caller(&callers.watched_as),
            Verb::Get | Verb::Write => false,
        }
    }

    /// Returns with whose identity it was watched, and listed.
    pub(crate) fn fetched_as(&self) -> [Option<Caller>; 2] {
        let callers = self.callers.lock();
        [callers.watched_as.clone(), callers.listed_as.clone()]
    }

    pub(crate) fn note_listed_as(&self, caller: &Caller) {
        self.callers.lock().listed_as = Some(caller.clone());
    }

    pub(crate) fn note_watched_as(&self, caller: &Caller) {
        let mut callers = self.callers.lock();
        // Who has listed it and is not who follows it now may have lost the right to.
        callers.listed_as.take_if(|one| one.id() != caller.id());
        callers.watched_as = Some(caller.clone());
    }

    /// Returns whether its watch was open since the hub started.
    pub(crate) fn was_watched(&self) -> bool {
        self.callers.lock().watched_as.is_some()
    }
}
