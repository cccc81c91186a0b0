//! Asks the cloud again, while it is there, what it said of callers: for watches that are open, for rights that a
//! refusal casts doubt on, and for all that is kept for when it is away.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Access, Purpose, Verdicts};
use crate::codec::Status;
use crate::identity::{Authenticator, Caller};
use crate::tasks::blocking;
use crate::upstream::Reach;

/// How often is looked what is due.
const LOOKED_EVERY: Duration = Duration::from_secs(15);

/// How often the cloud is asked about a watch that is open; when its token has expired, and when the link is back.
const WATCHES_ASKED_EVERY: Duration = Duration::from_secs(300);
const SOONER: Duration = Duration::from_secs(60);

/// How often the cloud is asked about what is kept: it counts for days while the cloud is away.
const KEPT_ASKED_EVERY: Duration = Duration::from_secs(3_600);

/// How often about the Secrets of others than the node.
const SECRETS_ASKED_EVERY: Duration = Duration::from_secs(120);

/// Questions at the same time, and the pause between: all nodes of a site may have been away together.
const AT_ONCE: usize = 4;
const PAUSE: Duration = Duration::from_millis(250);

/// How many questions there are in one go, before it is looked again what is due.
const IN_ONE_GO: usize = 200;

/// How long one may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

impl Verdicts {
    /// Keeps what is known in step with the cloud until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep_up()).await;
    }

    async fn keep_up(self: &Arc<Self>) {
        let mut reach = self.upstream.reach();
        let mut back = Instant::now();
        let mut was_online = false;
        loop {
            let is_online = matches!(*reach.borrow_and_update(), Reach::Online);
            let now = Instant::now();
            if is_online && !was_online {
                back = now;
            }
            was_online = is_online;
            self.note_contact(is_online, now).await;
            self.end_watches_of_expired(is_online);
            let is_more = is_online && self.ask_what_is_due(back).await;
            if is_more {
                continue;
            }
            tokio::select! {
                () = sleep(LOOKED_EVERY) => {}
                () = self.doubted.is_there.notified() => {}
                changed = reach.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn note_contact(self: &Arc<Self>, is_online: bool, now: Instant) {
        if !self.contact.note(is_online, now) {
            return;
        }
        let verdicts = self.clone();
        if let Err(error) = blocking(move || verdicts.contact.write()).await {
            tracing::warn!(%error, "how long the cloud was there is not remembered");
        }
    }

    /// Ends watches whose callers do not count any more: those with tokens of the hub's own, and while cut off all.
    fn end_watches_of_expired(&self, is_online: bool) {
        let counts = |caller: &Caller| self.authenticator.check_offline(caller).is_ok();
        let own_count = self.authenticator.check_own(is_online).is_ok();
        let is_over = |caller: &Caller| caller.is_of_hub() && !(own_count && counts(caller));
        let refusal = Authenticator::asks_for_renewal();
        self.watches.end(|caller, _| is_over(caller), &refusal);
        if !is_online {
            self.watches
                .end(|caller, _| !counts(caller), &Status::unauthorized());
        }
    }

    /// Asks about what is due; returns whether there is more.
    async fn ask_what_is_due(self: &Arc<Self>, back: Instant) -> bool {
        let now = Instant::now();
        let mut due = self.doubted.due(now);
        due.extend(self.due_watches(now, back));
        due.extend(self.due_verdicts(now));
        let is_more = due.len() > IN_ONE_GO;
        due.truncate(IN_ONE_GO);
        for some in due.chunks(AT_ONCE) {
            join_all(some.iter().map(|(caller, access)| self.ask(caller, access))).await;
            if !self.is_online() {
                return false;
            }
            sleep(PAUSE).await;
        }
        is_more
    }

    async fn ask(self: &Arc<Self>, caller: &Caller, access: &Access) {
        let asked = self.confirm(caller, access, Purpose::Upkeep);
        // What it says is remembered, and ends what it has to.
        match timeout(ANSWERED_WITHIN, asked).await {
            // The link is gone: it is asked when it is back.
            Ok(Err(None)) => return,
            Ok(Err(Some(_))) | Err(_) => self.note_tried(caller, access),
            Ok(Ok(_)) => {}
        }
        self.watches.checked(caller, access, Instant::now());
    }

    /// A cloud that does not answer, or to which it makes no sense, is not asked the same again and again.
    pub(super) fn note_tried(&self, caller: &Caller, access: &Access) {
        let key = access.key(caller.id());
        if let Some(verdict) = self.known.rows().get_mut(&*key) {
            verdict.tried = Some(Instant::now());
        }
    }

    fn due_watches(&self, now: Instant, back: Instant) -> Vec<(Caller, Access)> {
        let time = self.authenticator.time();
        self.watches.due(|caller, checked| {
            let since = now.duration_since(checked);
            let every = if checked < back || caller.has_expired(time) {
                SOONER
            } else {
                WATCHES_ASKED_EVERY
            };
            since >= every && !caller.is_of_hub()
        })
    }

    /// Returns whom the cloud has not been asked about for long: Secrets first.
    pub(super) fn due_verdicts(&self, now: Instant) -> Vec<(Caller, Access)> {
        let time = self.authenticator.time();
        let mut due = Vec::new();
        for (key, verdict) in self.known.rows().iter().filter(|(_, one)| one.is_allowed) {
            let asked = verdict.said.max(verdict.tried).unwrap_or(self.opened);
            let age = now.duration_since(asked);
            let Some((id, text)) = key.split_once('/') else {
                continue;
            };
            let is_sensitive = id != Caller::Node.id() && Access::is_to_secrets_as_text(text);
            let every = if is_sensitive {
                SECRETS_ASKED_EVERY
            } else {
                KEPT_ASKED_EVERY
            };
            if age < every {
                continue;
            }
            let asked_as = self.callers.find(id, time);
            if let Some((caller, access)) = asked_as.zip(Access::parse(text)) {
                due.push((is_sensitive, caller, access));
            }
        }
        due.sort_by_key(|(is_sensitive, ..)| !is_sensitive);
        due.into_iter()
            .map(|(_, caller, access)| (caller, access))
            .collect()
    }
}
