//! May this caller see this? The cloud is asked with the caller's own identity; its word is remembered
//! and honoured while the cloud is away.

mod access;
mod keeping;
mod local_write;
mod permit;
mod review;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::time::Instant;
use yurt_core::store::{Result, Store};

pub(crate) use self::access::Access;
pub(crate) use self::keeping::Retention;
use self::keeping::{Needed, Pressure};
pub(crate) use self::local_write::{LocalWrite, local_write};
pub(crate) use self::permit::Permit;
use self::review::{Refusal, ask};
use self::verdict::Verdict;
use crate::codec::Status;
use crate::identity::{Authenticator, Caller, later};
use crate::store::layout;
use crate::store::table::{Place, Rows, Table};
use crate::tasks::Tasks;
use crate::upstream::{Link, Reach, Upstream};

/// How often a verdict that stands is written again, so that it does not seem older than it is: it counts for
/// weeks while the cloud is away.
const WRITTEN_EVERY: Duration = Duration::from_secs(24 * 3_600);

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
        let read = |value: &Bytes| Verdict::parse(value);
        Ok(Self {
            known: Table::open(PLACE, store, tasks.clone(), usize::MAX, read)?,
            tasks,
            authenticator,
            upstream,
            retention,
            needed: Mutex::default(),
            opened: Instant::now(),
        })
    }

    /// Counts them.
    pub(crate) fn len(&self) -> usize {
        self.known.rows().len()
    }

    /// Permits it if the caller may do it. The cloud is asked unless it is known to be away, or has said so not
    /// long ago; then what it said counts and is asked again beside the answer.
    ///
    /// # Errors
    /// As `check` and `check_offline`.
    pub(crate) async fn authorize(
        self: &Arc<Self>,
        caller: &Caller,
        access: &Access,
        link: Link,
    ) -> std::result::Result<Permit, Status> {
        if link == Link::Cut {
            return self.check_offline(caller, access);
        }
        let is_online = matches!(*self.upstream.reach().borrow(), Reach::Online);
        let Some(permit) = self.allowed_lately(caller, access, is_online) else {
            return self.check(caller, access).await;
        };
        if !self.is_fresh(caller, access) {
            let (verdicts, caller, access) = (self.clone(), caller.clone(), access.clone());
            self.tasks.spawn(async move {
                // What it says is remembered, for the next request.
                let _verdict = verdicts.check(&caller, &access).await;
            });
        }
        Ok(permit)
    }

    /// Permits it if the caller may do it; asks the cloud unless it has said so lately.
    ///
    /// # Errors
    /// 403 if the cloud says no, 401 if it does not know the caller; what the cloud said when asked in vain.
    pub(crate) async fn check(
        &self,
        caller: &Caller,
        access: &Access,
    ) -> std::result::Result<Permit, Status> {
        let known = self.known(caller, access);
        let is_current = self.authenticator.is_current(caller);
        if let Some(verdict) = known.filter(|verdict| is_current && verdict.is_fresh()) {
            return verdict.permit(access);
        }
        match ask(&self.upstream, caller, access).await {
            Ok(is_allowed) => {
                self.authenticator.recognised(caller);
                self.remember(caller, access, is_allowed).permit(access)
            }
            Err(Refusal::Status(status)) => {
                if status.code == StatusCode::UNAUTHORIZED {
                    self.authenticator.refused(caller);
                }
                Err(status)
            }
            Err(Refusal::Unreachable) => self.check_offline(caller, access),
        }
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
        if let Some(verdict) = said.filter(|verdict| verdict.is_allowed) {
            return verdict.permit(access);
        }
        // Who may do it to all may do it to some.
        let to_all = Access {
            name: None,
            labels: String::new(),
            fields: String::new(),
            ..access.clone()
        };
        let everywhere = Access {
            namespace: None,
            ..to_all.clone()
        };
        // A refusal counts until the cloud has said more.
        let is_later = |verdict: Verdict| said.is_none_or(|said| said.written < verdict.written);
        let allowed = [to_all, everywhere].iter().any(|access| {
            self.said(caller, access)
                .is_some_and(|verdict| verdict.is_allowed && is_later(verdict))
        });
        if allowed {
            return Ok(Permit::new());
        }
        if let Some(refusal) = said {
            return refusal.permit(access);
        }
        Err(access.forbidden("and the cloud is not reachable to ask"))
    }

    /// Returns the cloud's refusal, if it has said no; for what nobody here could answer anyway.
    ///
    /// # Errors
    /// 403 with it.
    pub(crate) fn check_denied(
        &self,
        caller: &Caller,
        access: &Access,
    ) -> std::result::Result<(), Status> {
        let said = self.said(caller, access);
        said.map_or(Ok(()), |verdict| verdict.permit(access).map(drop))
    }

    /// Returns what the cloud said, if that counts while it is away.
    fn said(&self, caller: &Caller, access: &Access) -> Option<Verdict> {
        let now = self.authenticator.time();
        let known = self.known.rows();
        let mut said = caller.ids().filter_map(|id| known.get(&*access.key(id)));
        // The node's own right is not a matter of time: nobody else could renew it here.
        let counts = |verdict: &&Verdict| {
            *caller == Caller::Node || later(verdict.written, self.retention.limit) >= now
        };
        said.find(counts).copied()
    }

    /// Permits what the cloud has allowed not long ago; what was allowed before this process counts until the
    /// cloud is there.
    fn allowed_lately(&self, caller: &Caller, access: &Access, is_online: bool) -> Option<Permit> {
        if !is_online {
            return self.check_offline(caller, access).ok();
        }
        let known = self.known(caller, access);
        let is_allowed = self.authenticator.is_current(caller)
            && known.is_some_and(|verdict| verdict.is_allowed && verdict.is_recent());
        is_allowed.then(Permit::new)
    }

    /// Returns whether the cloud has said anything of just this.
    pub(crate) fn is_judged(&self, caller: &Caller, access: &Access) -> bool {
        self.known(caller, access).is_some()
    }

    /// Returns whether the cloud need not be asked again yet.
    fn is_fresh(&self, caller: &Caller, access: &Access) -> bool {
        let known = self.known(caller, access);
        known.is_some_and(|verdict| verdict.is_fresh())
    }

    /// Notes that the cloud has just let the caller do it.
    pub(crate) fn grant(&self, caller: &Caller, access: &Access) -> Permit {
        self.authenticator.recognised(caller);
        self.remember(caller, access, true);
        Permit::new()
    }

    /// Notes that the cloud, which knows the caller, has just not let it do it.
    pub(crate) fn deny(&self, caller: &Caller, access: &Access) {
        self.authenticator.recognised(caller);
        self.remember(caller, access, false);
    }

    /// Returns whether the cloud has said something not too long ago, good enough for when it is away.
    pub(crate) fn is_asked(&self, caller: &Caller, access: &Access) -> bool {
        let known = self.known(caller, access);
        known.is_some_and(|verdict| verdict.is_learned())
    }

    fn known(&self, caller: &Caller, access: &Access) -> Option<Verdict> {
        let key = access.key(caller.id());
        self.known.rows().get(&*key).copied()
    }

    fn remember(&self, caller: &Caller, access: &Access, is_allowed: bool) -> Verdict {
        let now = self.authenticator.time();
        let stands = self.known(caller, access).filter(|before| {
            before.is_allowed == is_allowed && later(before.written, WRITTEN_EVERY) > now
        });
        let verdict = Verdict {
            is_allowed,
            asked: Some(Instant::now()),
            written: stands.map_or(now, |before| before.written),
        };
        let evict = |known: &Rows<Verdict>| {
            if known.len() < self.retention.count {
                Vec::new()
            } else {
                self.unused(known, Instant::now(), Pressure::Room)
            }
        };
        let key: Arc<str> = access.key(caller.id()).into();
        let mut changed = self.known.insert(key.clone(), verdict, evict);
        if stands.is_none() {
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
