//! The watches that are open, by whose they are and what they show: what the cloud says of one counts for all that
//! have both in common.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Access, Permit};
use crate::codec::Status;
use crate::identity::Caller;

/// Every open watch.
#[derive(Debug, Default)]
pub(super) struct OpenWatches(Mutex<HashMap<(Caller, Access), Weak<Open>>>);

/// What watches of one caller and one access have in common.
#[derive(Debug)]
struct Open {
    ended: watch::Sender<Option<Status>>,
    /// When the cloud was asked last.
    checked: Mutex<Instant>,
}

/// An answer that lasts, as long as the caller may have it.
#[derive(Debug)]
pub(crate) struct LastingPermit {
    ended: watch::Receiver<Option<Status>>,
    /// It is open for so long.
    _open: Arc<Open>,
}

impl LastingPermit {
    /// Returns the refusal with which it has ended.
    pub(crate) fn refusal(&self) -> Option<Status> {
        self.ended.borrow().clone()
    }

    /// Returns when it ends, with the refusal.
    pub(crate) async fn refused(&mut self) -> Status {
        let ended = self.ended.wait_for(Option::is_some).await;
        let refusal = ended.ok().and_then(|ended| ended.clone());
        refusal.expect("it holds the sender, and waited for a refusal")
    }
}

impl OpenWatches {
    /// Makes a permit last.
    pub(super) fn open(
        &self,
        _permit: Permit,
        caller: &Caller,
        access: &Access,
        now: Instant,
    ) -> LastingPermit {
        let mut all = self.0.lock();
        let key = (caller.clone(), access.clone());
        let known = all.get(&key).and_then(Weak::upgrade);
        let open = known.unwrap_or_else(|| {
            let open = Arc::new(Open {
                ended: watch::Sender::default(),
                checked: Mutex::new(now),
            });
            all.insert(key, Arc::downgrade(&open));
            open
        });
        LastingPermit {
            ended: open.ended.subscribe(),
            _open: open,
        }
    }

    /// Returns those of whom `is_due` says so, by when the cloud was asked about them last.
    pub(super) fn due(&self, is_due: impl Fn(&Caller, Instant) -> bool) -> Vec<(Caller, Access)> {
        let mut all = self.0.lock();
        all.retain(|_, open| open.strong_count() > 0);
        let due = all.iter().filter(|((caller, _), open)| {
            let checked = open.upgrade().map(|open| *open.checked.lock());
            checked.is_some_and(|checked| is_due(caller, checked))
        });
        due.map(|(key, _)| key.clone()).collect()
    }

    /// Notes that the cloud was asked.
    pub(super) fn checked(&self, caller: &Caller, access: &Access, now: Instant) {
        let key = (caller.clone(), access.clone());
        if let Some(open) = self.0.lock().get(&key).and_then(Weak::upgrade) {
            *open.checked.lock() = now;
        }
    }

    /// Ends those that `is_over` names. Whoever opens another is judged anew.
    pub(super) fn end(&self, is_over: impl Fn(&Caller, &Access) -> bool, refusal: &Status) {
        self.0.lock().retain(|(caller, access), open| {
            let is_over = is_over(caller, access);
            if is_over && let Some(open) = open.upgrade() {
                open.ended.send_replace(Some(refusal.clone()));
            }
            !is_over && open.strong_count() > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Resource, Scope};
    use crate::identity::Token;

    fn access(plural: &str) -> Access {
        Access::to_scope("watch", &Scope::all(Resource::core(plural)))
    }

    #[tokio::test(start_paused = true)]
    async fn watches_of_one_caller_and_access_are_one_to_the_cloud_and_end_together() {
        let watches = OpenWatches::default();
        let caller = |token| Caller::Token(Token::new(token));
        let (a, b) = (caller("a"), caller("b"));
        let now = Instant::now();
        let open =
            |caller: &Caller, plural| watches.open(Permit::new(), caller, &access(plural), now);
        let mut held = [open(&a, "pods"), open(&a, "pods")];
        let (other, kept) = (open(&a, "nodes"), open(&b, "pods"));
        assert_eq!(watches.due(|_, _| true).len(), 3);
        drop(other);
        assert_eq!(watches.due(|_, _| true).len(), 2, "what is closed is gone");
        let pods = access("pods");
        watches.end(
            |caller, access| *caller == a && *access == pods,
            &Status::unauthorized(),
        );
        for one in &mut held {
            assert_eq!(one.refused().await.code, http::StatusCode::UNAUTHORIZED);
            assert!(one.refusal().is_some());
        }
        assert!(kept.refusal().is_none());
        assert!(open(&a, "pods").refusal().is_none(), "a new one is another");
    }

    #[tokio::test(start_paused = true)]
    async fn watches_that_have_ended_leave_nothing_behind_though_nobody_asks_for_what_is_due() {
        let watches = OpenWatches::default();
        let (node, now) = (Caller::Node, Instant::now());
        for number in 0..10 {
            let access = access(&format!("pods{number}"));
            drop(watches.open(Permit::new(), &node, &access, now));
        }
        let held = watches.open(Permit::new(), &node, &access("pods"), now);
        watches.end(|_, _| false, &Status::unauthorized());
        assert_eq!(watches.0.lock().len(), 1);
        assert!(held.refusal().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_is_due_by_when_the_cloud_was_asked() {
        let watches = OpenWatches::default();
        let (now, pods) = (Instant::now(), access("pods"));
        let _held = watches.open(Permit::new(), &Caller::Node, &pods, now);
        let later = now + std::time::Duration::from_secs(1);
        let is_old = |_: &Caller, checked: Instant| checked < later;
        assert_eq!(watches.due(is_old), [(Caller::Node, pods.clone())]);
        watches.checked(&Caller::Node, &pods, later);
        assert!(watches.due(is_old).is_empty());
    }
}
