//! What the hub knows of the cloud: whether it is there, and for how long it has been away.

use std::time::Duration;

use http::Response;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::Proxy;
use super::exchange::{Exchange, Speaks};
use crate::answer;
use crate::api::request::Verb;
use crate::api::{elapsed, human};
use crate::authorize::local_write;
use crate::body::Body;
use crate::codec::Status;
use crate::upstream::{Link, Reach};

/// How long after its start a hub that was stopped while cut off takes itself for cut off still, before it
/// answers what the cloud should.
const STILL_CUT: Duration = Duration::from_millis(400);

/// How long after its start a hub that was stopped while online waits for the cloud's first answer before it
/// shows what it remembers.
const FIRST_PROBE: Duration = Duration::from_secs(1);

/// How long it takes at most to see that the cloud is gone, once a connection to it broke.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// How long at most a write that the node can stand behind waits for a hub to know whether the cloud is there: as long
/// as a connection that nobody answers.
const WRITE_WAITS: Duration = Duration::from_secs(5);

impl Proxy {
    /// Returns the link as it is for a caller: who comes with a token of the hub's own, or with a certificate that is
    /// not valid now, is nobody to the cloud.
    pub(super) async fn link_of(&self, exchange: &Exchange) -> Result<Link, Status> {
        let Exchange { caller, api, .. } = exchange;
        if caller.is_of_hub() {
            let is_online = matches!(*self.reach().borrow(), Reach::Online);
            self.authenticator.check_own(is_online)?;
            return Ok(Link::Cut);
        }
        if exchange.speaks == Speaks::WithTheNode {
            return Ok(Link::Cut);
        }
        if !self.is_reach_unknown() {
            return Ok(self.link());
        }
        let mut reach = self.reach();
        let is_known = reach.wait_for(|reach| !matches!(reach, Reach::Unknown));
        let (contact, takes_any) = (&self.authenticator.contact, api.takes_any_version());
        if api.verb == Verb::Write {
            if local_write(api, caller, &self.node).is_none() {
                return Ok(self.link());
            }
            // One that the node can stand behind waits to be decided; a node that was cut off is still, as for a read.
            let wait = if contact.was_cut() {
                STILL_CUT
            } else {
                WRITE_WAITS
            };
            let _known_or_not = timeout(wait, is_known).await;
            return Ok(self.link_as_before());
        }
        let wait = match (contact.was_cut(), takes_any) {
            (true, true) => Duration::ZERO,
            (true, false) => STILL_CUT,
            // What was deleted meanwhile is not shown, if the cloud is there to say so.
            (false, true) => FIRST_PROBE,
            (false, false) => return Ok(self.link()),
        };
        let wait = wait.saturating_sub(contact.open_for(Instant::now()));
        let _known_or_not = timeout(wait, is_known).await;
        Ok(self.link_as_before())
    }

    /// Returns the link; while nobody knows it, a hub that was cut off when it stopped is still.
    fn link_as_before(&self) -> Link {
        if self.authenticator.contact.was_cut() && self.is_reach_unknown() {
            Link::Cut
        } else {
            self.link()
        }
    }

    pub(super) fn link(&self) -> Link {
        match *self.reach().borrow() {
            Reach::CutOff { .. } => Link::Cut,
            Reach::Unknown | Reach::Online => Link::Up,
        }
    }

    /// Returns whether the cloud is there although a connection to it broke; that takes a moment to be seen.
    pub(super) async fn is_still_there(&self) -> bool {
        let mut reach = self.reach();
        let gone = reach.wait_for(|reach| *reach != Reach::Online);
        timeout(GONE_WITHIN, gone).await.is_err()
    }

    /// Returns for how long the cloud has been away, `None` while it is there.
    pub(super) fn since(&self) -> Option<Duration> {
        match *self.reach().borrow() {
            Reach::CutOff { since } => {
                // A hub that has started since then knows only of its own failures.
                let last = self.authenticator.contact.last();
                let since = last.map_or(since, |last| last.min(since));
                Some(elapsed(since, self.authenticator.now()))
            }
            Reach::Unknown => {
                let contact = &self.authenticator.contact;
                let since = contact.was_cut().then(|| contact.last()).flatten();
                since.map(|since| elapsed(since, self.authenticator.now()))
            }
            Reach::Online => None,
        }
    }

    /// Returns whether the hub has just started and has not heard of the cloud yet.
    pub(super) fn is_reach_unknown(&self) -> bool {
        matches!(*self.reach().borrow(), Reach::Unknown)
    }

    fn reach(&self) -> watch::Receiver<Reach> {
        self.upstream.reach()
    }

    /// Says of an answer how old it is, while the cloud is away.
    pub(super) fn warn_of_age(&self, response: &mut Response<Body>, link: Link) {
        if link == Link::Cut
            && let Some(since) = self.since()
        {
            let age = human(since);
            answer::warn(
                response,
                &format!("the cloud is not reachable: this is what the node knew {age} ago"),
            );
        }
    }

    /// Refuses what cannot be answered while the cloud is away.
    pub(super) fn unavailable(&self, why: &str, retry_after: Option<Duration>) -> Status {
        let since = self
            .since()
            .map_or_else(String::new, |since| format!(" for {}", human(since)));
        Status::unavailable(
            format!("the cloud is not reachable{since}, and {why}"),
            retry_after,
        )
    }
}
