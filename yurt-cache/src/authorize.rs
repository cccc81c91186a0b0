//! May this caller see this? The cloud is asked with the caller's own identity; its word is remembered
//! and honoured while the cloud is away.

mod access;
mod callers;
mod contact_time;
mod doubt;
mod keeping;
mod local_write;
mod open_watches;
mod permit;
mod review;
mod sharing;
mod upkeep;
mod verdict;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use yurt_core::store::{Result, Store};

pub(crate) use self::access::Access;
use self::callers::Callers;
use self::contact_time::ContactTime;
use self::doubt::Doubted;
use self::keeping::Needed;
pub(crate) use self::keeping::Retention;
pub(crate) use self::local_write::{LocalWrite, local_write};
pub(crate) use self::open_watches::LastingPermit;
use self::open_watches::OpenWatches;
pub(crate) use self::permit::Permit;
use self::review::{Refusal, ask};
use self::verdict::Verdict;
use crate::codec::Status;
use crate::identity::{Authenticator, Caller, later};
use crate::store::layout;
use crate::store::table::{Place, Rows, Table};
use crate::tasks::Tasks;
use crate::upstream::{Link, Reach, Upstream};

/// How often a verdict that stands is written again, so that it does not seem older than it is after a restart.
const WRITTEN_EVERY: Duration = Duration::from_secs(6 * 3_600);

/// For how long the cloud may have been there without confirming a right that counts while it is away.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(24 * 3_600);

/// How often the cloud is asked where the link breaks under the question, and how long is waited to know whether it is
/// gone.
const ATTEMPTS: u32 = 3;
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// When whoever could not be asked about may come again.
const RETRY: Duration = Duration::from_secs(1);

const PLACE: Place = Place {
    prefix: layout::VERDICTS,
    row: "a verdict",
};

/// What the cloud said of who may see what.
#[derive(Debug)]
pub(crate) struct Verdicts {
    known: Table<Verdict>,
    tasks: Tasks,
    authenticator: Arc<Authenticator>,
    upstream: Upstream,
    retention: Retention,
    /// Those without which a restart would not be answered, as far as is known.
    needed: Mutex<Needed>,
    /// When the store was opened: nothing is known of uses before.
    opened: Instant,
    contact: ContactTime,
    callers: Callers,
    watches: OpenWatches,
    doubted: Doubted,
    /// What is being asked beside an answer.
    asking: Mutex<HashSet<Arc<str>>>,
}

/// For whom the cloud is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// For somebody who wants to know it.
    Request,
    /// For later; it does not make what nobody uses look used.
    Upkeep,
}

impl Verdicts {
    /// Opens what the store remembers. Blocks on the store.
    pub(crate) fn open(
        store: Arc<dyn Store>,
        tasks: Tasks,
        authenticator: Arc<Authenticator>,
        upstream: Upstream,
        retention: Retention,
    ) -> Result<Self> {
        let contact = ContactTime::open(store.clone());
        let opened = Instant::now();
        let read = |value: &Bytes| Verdict::parse(value, contact.total(opened));
        Ok(Self {
            known: Table::open(PLACE, store, tasks.clone(), usize::MAX, read)?,
            tasks,
            authenticator,
            upstream,
            retention,
            needed: Mutex::default(),
            opened,
            contact,
            callers: Callers::default(),
            watches: OpenWatches::default(),
            doubted: Doubted::default(),
            asking: Mutex::default(),
        })
    }

    /// Permits it if the caller may do it. The cloud is asked unless it is known to be away, or has said so less than
    /// a minute ago; then what it said counts, and is asked again beside the answer before that minute is over.
    ///
    /// # Errors
    /// As `check_offline` while the cloud is away. 403 if the cloud says no, 401 if it does not know the caller; what
    /// the cloud said when asked in vain; 503 if the link broke at each question.
    pub(crate) async fn authorize(
        self: &Arc<Self>,
        caller: &Caller,
        access: &Access,
        link: Link,
    ) -> std::result::Result<Permit, Status> {
        if link == Link::Cut {
            return self.check_offline(caller, access);
        }
        if !self.is_online() {
            // What was allowed before this process counts until the cloud is there.
            if let Ok(permit) = self.check_offline(caller, access) {
                self.ask_beside(caller, access);
                return Ok(permit);
            }
        }
        let known = self.known(caller, access);
        if let Some(verdict) = known.filter(Verdict::is_fresh)
            && self.authenticator.is_current(caller)
        {
            if verdict.is_allowed && verdict.is_due() {
                self.ask_beside(caller, access);
            }
            return verdict.permit(access);
        }
        match self.confirm(caller, access, Purpose::Request).await {
            Ok(verdict) => verdict.permit(access),
            Err(Some(status)) => Err(status),
            Err(None) => self.check_offline(caller, access),
        }
    }

    /// Learns what the cloud says of it, for when it is away.
    pub(crate) async fn learn(self: &Arc<Self>, caller: &Caller, access: &Access) {
        // There is nobody to tell.
        let _remembered = self.confirm(caller, access, Purpose::Request).await;
    }

    /// Makes a permit last for a watch: until the cloud says otherwise.
    pub(crate) fn lasting(
        &self,
        permit: Permit,
        caller: &Caller,
        access: &Access,
    ) -> LastingPermit {
        self.watches.open(permit, caller, access, Instant::now())
    }

    fn is_online(&self) -> bool {
        matches!(*self.upstream.reach().borrow(), Reach::Online)
    }

    /// Asks the cloud beside an answer, once at a time.
    fn ask_beside(self: &Arc<Self>, caller: &Caller, access: &Access) {
        let key: Arc<str> = access.key(caller.id()).into();
        if !self.asking.lock().insert(key.clone()) {
            return;
        }
        let (verdicts, caller, access) = (self.clone(), caller.clone(), access.clone());
        self.tasks.spawn(async move {
            // What it says is remembered, for the next request.
            verdicts.learn(&caller, &access).await;
            verdicts.asking.lock().remove(&key);
        });
    }

    /// Asks the cloud and remembers what it says. A question that the end of a connection caught is asked again: that
    /// is no refusal.
    ///
    /// # Errors
    /// What the cloud said when asked in vain, 503 if the link broke at each question; `None` if the cloud is away.
    async fn confirm(
        &self,
        caller: &Caller,
        access: &Access,
        purpose: Purpose,
    ) -> std::result::Result<Verdict, Option<Status>> {
        for attempt in 0..ATTEMPTS {
            match ask(&self.upstream, caller, access).await {
                Ok(is_allowed) => {
                    self.authenticator.recognised(caller);
                    return Ok(self.remember(caller, access, is_allowed, purpose));
                }
                Err(Refusal::Status(status)) => {
                    if status.code == StatusCode::UNAUTHORIZED {
                        self.refused(caller);
                    }
                    return Err(Some(status));
                }
                Err(Refusal::Unreachable) if self.is_gone(attempt).await => return Err(None),
                Err(Refusal::Unreachable) => {}
            }
        }
        let why = "the link to the cloud broke each time that it was asked what the caller may do";
        Err(Some(Status::unavailable(why.to_owned(), Some(RETRY))))
    }

    /// Returns whether the cloud is away; at the first broken connection that is not waited for.
    async fn is_gone(&self, attempt: u32) -> bool {
        let mut reach = self.upstream.reach();
        let wait = if attempt == 0 {
            Duration::ZERO
        } else {
            GONE_WITHIN
        };
        let gone = reach.wait_for(|reach| *reach != Reach::Online);
        timeout(wait, gone).await.is_ok()
    }

    /// Permits it if the cloud said, when it was last there, that the caller may do it.
    ///
    /// # Errors
    /// 401 for a caller who does not count while the cloud is away, 403 for what it never allowed, or too long ago.
    pub(crate) fn check_offline(
        &self,
        caller: &Caller,
        access: &Access,
    ) -> std::result::Result<Permit, Status> {
        self.authenticator.check_offline(caller)?;
        let said = self.said(caller, access);
        if let Some(verdict) = said.as_ref().filter(|verdict| verdict.is_allowed) {
            return verdict.permit(access);
        }
        // Who may do it to all may do it to some; a refusal counts until the cloud has said more.
        let is_later = |verdict: &Verdict| {
            let refused = said.as_ref();
            refused.is_none_or(|refused| refused.said_at < verdict.said_at)
        };
        let wider = access.wider();
        let wider = wider.iter().filter(|wider| wider.verb == access.verb);
        let mut wider = wider.filter_map(|wider| self.said(caller, wider));
        if wider.any(|verdict| verdict.is_allowed && is_later(&verdict)) {
            return Ok(Permit::new());
        }
        match said {
            Some(refused) => refused.permit(access),
            None => Err(access.forbidden("and the cloud is not reachable to ask")),
        }
    }

    /// Returns what the cloud said, if that counts while it is away.
    fn said(&self, caller: &Caller, access: &Access) -> Option<Verdict> {
        let keys = caller.ids().map(|id| access.key(id));
        let keys: Vec<String> = keys.collect();
        let (now, contact) = (
            self.authenticator.time(),
            self.contact.total(Instant::now()),
        );
        let limit = if access.is_to_secrets() {
            self.retention.secret_limit.min(self.retention.limit)
        } else {
            self.retention.limit
        };
        // The node's own right is not a matter of time: nobody else could renew it here.
        let counts = |verdict: &&Verdict| {
            let is_in_time = later(verdict.said_at, limit) >= now
                && contact.saturating_sub(verdict.contact) <= CONFIRMED_WITHIN;
            (*caller == Caller::Node || is_in_time) && verdict.is_of(caller.account_uid())
        };
        let known = self.known.rows();
        let said = keys.iter().filter_map(|key| known.get(key.as_str()));
        let last = said.filter(counts).max_by_key(|verdict| verdict.said_at);
        last.cloned()
    }

    /// Returns whether the cloud has said anything of just this.
    pub(crate) fn is_judged(&self, caller: &Caller, access: &Access) -> bool {
        self.known(caller, access).is_some()
    }

    /// Notes that the cloud has just let the caller do it.
    pub(crate) fn grant(&self, caller: &Caller, access: &Access) {
        self.authenticator.recognised(caller);
        self.remember(caller, access, true, Purpose::Request);
    }

    /// Notes that the cloud let the caller's account do it at that time, unless it has said more since.
    pub(crate) fn granted_at(&self, caller: &Caller, access: &Access, at: Instant) {
        let known = self.known(caller, access);
        if known
            .and_then(|verdict| verdict.said)
            .is_none_or(|said| said < at)
        {
            self.note(caller, access, (true, at), Purpose::Request);
        }
    }

    /// Notes that the cloud, which knows the caller, has just not let it do it.
    pub(crate) fn deny(&self, caller: &Caller, access: &Access) {
        self.authenticator.recognised_in_refusal(caller);
        self.remember(caller, access, false, Purpose::Request);
    }

    /// Notes that the cloud has just refused the caller with 401: its watches end.
    pub(crate) fn refused(&self, caller: &Caller) {
        self.authenticator.refused(caller);
        self.callers.forget(caller);
        if *caller != Caller::Node {
            let refusal = Status::unauthorized();
            self.watches.end(|one, _| one == caller, &refusal);
        }
    }

    /// Returns whether the cloud has said something not too long ago, good enough for when it is away.
    pub(crate) fn is_asked(&self, caller: &Caller, access: &Access) -> bool {
        let known = self.known(caller, access);
        known.is_some_and(|verdict| verdict.is_learned())
    }

    fn known(&self, caller: &Caller, access: &Access) -> Option<Verdict> {
        let key = access.key(caller.id());
        let known = self.known.rows().get(&*key).cloned();
        known.filter(|verdict| verdict.is_of(caller.account_uid()))
    }

    fn remember(
        &self,
        caller: &Caller,
        access: &Access,
        is_allowed: bool,
        purpose: Purpose,
    ) -> Verdict {
        if purpose == Purpose::Request {
            self.callers.note(caller);
        }
        // Who was refused it before is told nothing new of its rights to more.
        let known = self.known(caller, access);
        let is_new = known.is_none_or(|before| before.is_allowed);
        let verdict = self.note(caller, access, (is_allowed, Instant::now()), purpose);
        if !is_allowed {
            if is_new {
                self.doubt(caller, access);
            }
            let is_over =
                |one: &Caller, watched: &Access| one.id() == caller.id() && watched == access;
            self.watches.end(is_over, &access.forbidden(""));
        }
        verdict
    }

    /// Notes what the cloud said, and when.
    fn note(
        &self,
        caller: &Caller,
        access: &Access,
        (is_allowed, said): (bool, Instant),
        purpose: Purpose,
    ) -> Verdict {
        let now = Instant::now();
        let time = self.authenticator.time();
        let said_at = time.checked_sub(now.duration_since(said)).unwrap_or(time);
        let known = self.known(caller, access);
        let was_allowed = known.as_ref().is_some_and(|before| before.is_allowed);
        let asked = match purpose {
            Purpose::Request => Some(now),
            Purpose::Upkeep => known.as_ref().and_then(|before| before.asked),
        };
        let stands = known.filter(|before| {
            before.is_allowed == is_allowed
                && before.account.as_deref() == caller.account_uid()
                && later(before.written, WRITTEN_EVERY) > said_at
        });
        let verdict = Verdict {
            is_allowed,
            asked,
            said: Some(said),
            tried: None,
            said_at,
            contact: self.contact.total(now),
            account: caller.account_uid().map(Arc::from),
            written: stands.as_ref().map_or(said_at, |before| before.written),
        };
        let key: Arc<str> = access.key(caller.id()).into();
        let room = |known: &Rows<Verdict>| {
            let gone = self.room(known, &key, &verdict, now).ok()?;
            Some(gone.into_iter().collect())
        };
        let inserted = self.known.insert_if(key.clone(), verdict.clone(), room);
        let Some(mut changed) = inserted else {
            return verdict;
        };
        // A denial of what was never allowed is as good as nothing after a restart.
        let is_worth_it = is_allowed || was_allowed || self.takes_back(caller, access);
        if stands.is_none() && is_worth_it {
            changed.push(key);
        }
        self.save(changed);
        verdict
    }

    fn save(&self, changed: Vec<Arc<str>>) {
        if !changed.is_empty() {
            let write = |_: &str, verdict: &Verdict| Some(verdict.text().into());
            self.known.save(changed, write);
        }
    }
}

#[cfg(test)]
mod tests;
