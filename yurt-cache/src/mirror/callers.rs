//! Who asked for a mirror's scope, and with whose identity it was fetched.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::Mirror;
use crate::api::request::Verb;
use crate::identity::Caller;
use crate::limits::Tenant;

#[derive(Default)]
pub(super) struct Callers {
    /// Whose share the mirror is of: who asked first, or the node as soon as it asks.
    owner: Option<Tenant>,
    /// Who asked for this scope, the latest first: with whose identity it may be fetched.
    asked: VecDeque<Caller>,
    /// As whom the cloud let it be listed, and when.
    listed_as: Option<(Caller, Instant)>,
    /// As whom it let it be watched.
    watched_as: Option<(Caller, Instant)>,
    was_watched: bool,
}

impl Mirror {
    /// Notes that somebody asked, and as whom the scope may be fetched.
    pub(crate) fn note_use(&self, caller: &Caller, now: Instant) {
        self.state.write().used = now;
        if caller.is_of_hub() {
            return;
        }
        let mut callers = self.callers.lock();
        if *caller == Caller::Node {
            callers.owner = Some(Tenant::Node);
        }
        callers.owner.get_or_insert_with(|| caller.tenant());
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

    /// Returns whose share it is of. One of which nobody knows is counted to nobody's.
    pub(crate) fn owner(&self) -> Tenant {
        let owner = self.callers.lock().owner.clone();
        owner.unwrap_or_else(|| Tenant::Caller("".into()))
    }

    /// Notes whose share it was of before a restart.
    pub(super) fn note_owner(&self, id: &str) {
        let owner = Tenant::of(id);
        self.callers.lock().owner = Some(owner);
    }

    /// Returns whether others than its owner have asked lately.
    pub(crate) fn is_shared(&self) -> bool {
        let callers = self.callers.lock();
        let is_other = |one: &Caller| match (&callers.owner, one) {
            (Some(Tenant::Node), Caller::Node) => false,
            (Some(Tenant::Caller(id)), Caller::Token(_)) => **id != *one.id(),
            _ => true,
        };
        callers.asked.iter().any(is_other)
    }

    /// Returns who asked lately.
    pub(crate) fn callers(&self) -> Vec<Caller> {
        self.callers.lock().asked.iter().cloned().collect()
    }

    /// Returns when the cloud let this caller's account list, or watch, the scope: the last time, if nobody else has
    /// taken over since and it was not refused.
    pub(crate) fn fetched_at(&self, caller: &Caller, verb: Verb) -> Option<Instant> {
        let callers = self.callers.lock();
        let (one, at) = match verb {
            Verb::List => callers.listed_as.as_ref(),
            Verb::Watch => callers.watched_as.as_ref(),
            Verb::Get | Verb::Write => None,
        }?;
        (one.id() == caller.id()).then_some(*at)
    }

    /// Returns with whose identity it was watched, and listed.
    pub(crate) fn fetched_as(&self) -> [Option<Caller>; 2] {
        let callers = self.callers.lock();
        let identity = |one: &Option<(Caller, Instant)>| one.as_ref().map(|(one, _)| one.clone());
        [identity(&callers.watched_as), identity(&callers.listed_as)]
    }

    pub(crate) fn note_listed_as(&self, caller: &Caller, now: Instant) {
        let mut callers = self.callers.lock();
        callers.forget_but(caller);
        callers.listed_as = Some((caller.clone(), now));
    }

    pub(crate) fn note_watched_as(&self, caller: &Caller, now: Instant) {
        let mut callers = self.callers.lock();
        callers.forget_but(caller);
        callers.watched_as = Some((caller.clone(), now));
        callers.was_watched = true;
    }

    /// Notes that the cloud does not let this caller fetch it any more.
    pub(crate) fn note_refused_as(&self, caller: &Caller) {
        let mut callers = self.callers.lock();
        let Callers {
            listed_as,
            watched_as,
            ..
        } = &mut *callers;
        for fetched_as in [listed_as, watched_as] {
            fetched_as.take_if(|(one, _)| one.id() == caller.id());
        }
    }

    /// Returns whether its watch was open since the hub started.
    pub(crate) fn was_watched(&self) -> bool {
        self.callers.lock().was_watched
    }
}

impl Callers {
    /// Who has fetched it and is not who follows it now may have lost the right to.
    fn forget_but(&mut self, caller: &Caller) {
        for fetched_as in [&mut self.listed_as, &mut self.watched_as] {
            fetched_as.take_if(|(one, _)| one.id() != caller.id());
        }
    }
}
