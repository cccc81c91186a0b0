//! Requests under way, counted by who made them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Limits, Tenant};

/// Refusals that wait for one caller; each is a request that costs next to nothing.
const REFUSALS: usize = 256;

/// Shares without a request under way are looked through when there are so many.
const IDLE_SHARES: usize = 1_024;

/// How much a caller may save up while it asks nothing: this long at its rate.
const BURST: Duration = Duration::from_secs(1);

/// What is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestClass {
    /// A request that ends soon.
    Request,
    /// A watch, or another one that lasts.
    Watch,
    /// One that is refused, but not at once.
    Refusal,
}

/// Everybody's requests.
#[derive(Debug)]
pub(crate) struct Shares {
    limits: Limits,
    held: Mutex<HashMap<Tenant, Share>>,
}

#[derive(Debug, Default)]
struct Share {
    requests: usize,
    watches: usize,
    refusals: usize,
    /// When all that was asked so far has had its turn.
    due: Option<Instant>,
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It has its place; its turn is after this long.
    Admitted(RequestGuard, Duration),
    /// The caller holds its share already: it is told so, but not at once, lest it asks again at once.
    Refused(RequestGuard),
    /// The caller goes on asking while it is refused.
    Overrun,
}

/// A request's place; it is free again when the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct RequestGuard {
    _held: Option<Arc<Held>>,
}

#[derive(Debug)]
struct Held {
    shares: Arc<Shares>,
    tenant: Tenant,
    class: RequestClass,
}

impl Shares {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            held: Mutex::default(),
        })
    }

    /// Gives a request its place, if its maker has one left.
    pub(crate) fn begin(
        self: &Arc<Self>,
        tenant: &Tenant,
        class: RequestClass,
        now: Instant,
    ) -> Admission {
        if *tenant == Tenant::Node {
            return Admission::Admitted(RequestGuard { _held: None }, Duration::ZERO);
        }
        let place = |class| {
            let held = Held {
                shares: self.clone(),
                tenant: tenant.clone(),
                class,
            };
            RequestGuard {
                _held: Some(Arc::new(held)),
            }
        };
        let mut held = self.held.lock();
        if held.len() >= IDLE_SHARES {
            held.retain(|_, share| share.is_held() || share.due.is_some_and(|due| due > now));
        }
        let share = held.entry(tenant.clone()).or_default();
        if share.count(class) < self.limits.of(class) {
            let wait = share.take_turn(self.limits.caller_rate, now);
            *share.count_mut(class) += 1;
            return Admission::Admitted(place(class), wait);
        }
        if share.refusals < REFUSALS {
            share.refusals += 1;
            return Admission::Refused(place(RequestClass::Refusal));
        }
        Admission::Overrun
    }

    fn release(&self, tenant: &Tenant, class: RequestClass) {
        if let Some(share) = self.held.lock().get_mut(tenant) {
            let count = share.count_mut(class);
            *count = count.saturating_sub(1);
        }
    }
}

impl Limits {
    /// All that one caller may have under way.
    pub(crate) fn streams(&self) -> u32 {
        u32::try_from(self.caller_requests + self.caller_watches).unwrap_or(u32::MAX)
    }

    fn of(&self, class: RequestClass) -> usize {
        match class {
            RequestClass::Request => self.caller_requests,
            RequestClass::Watch => self.caller_watches,
            RequestClass::Refusal => REFUSALS,
        }
    }
}

impl Share {
    fn is_held(&self) -> bool {
        self.requests + self.watches + self.refusals > 0
    }

    fn count(&self, class: RequestClass) -> usize {
        match class {
            RequestClass::Request => self.requests,
            RequestClass::Watch => self.watches,
            RequestClass::Refusal => self.refusals,
        }
    }

    fn count_mut(&mut self, class: RequestClass) -> &mut usize {
        match class {
            RequestClass::Request => &mut self.requests,
            RequestClass::Watch => &mut self.watches,
            RequestClass::Refusal => &mut self.refusals,
        }
    }

    /// Returns how long the next request waits for its turn.
    fn take_turn(&mut self, rate: u32, now: Instant) -> Duration {
        let due = self.due.map_or(now, |due| due.max(now));
        self.due = Some(due + Duration::from_secs(1) / rate.max(1));
        due.duration_since(now).saturating_sub(BURST)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shares.release(&self.tenant, self.class);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares() -> Arc<Shares> {
        Shares::new(Limits {
            caller_requests: 2,
            caller_watches: 1,
            caller_rate: 10,
            ..Limits::default()
        })
    }

    fn caller(name: &str) -> Tenant {
        Tenant::Caller(name.into())
    }

    /// The place if there is one.
    fn begin(shares: &Arc<Shares>, tenant: &Tenant, class: RequestClass) -> Option<RequestGuard> {
        match shares.begin(tenant, class, Instant::now()) {
            Admission::Admitted(place, _) => Some(place),
            Admission::Refused(_) | Admission::Overrun => None,
        }
    }

    #[test]
    fn a_share_is_full_for_its_holder_alone_until_a_place_is_free() {
        let shares = shares();
        let (a, b) = (caller("a"), caller("b"));
        let first = begin(&shares, &a, RequestClass::Request).unwrap();
        let _second = begin(&shares, &a, RequestClass::Request).unwrap();
        assert!(begin(&shares, &a, RequestClass::Request).is_none());
        let _watch = begin(&shares, &a, RequestClass::Watch).unwrap();
        assert!(begin(&shares, &a, RequestClass::Watch).is_none());
        begin(&shares, &b, RequestClass::Request).unwrap();
        begin(&shares, &b, RequestClass::Watch).unwrap();
        let copy = first.clone();
        drop(first);
        assert!(begin(&shares, &a, RequestClass::Request).is_none());
        drop(copy);
        begin(&shares, &a, RequestClass::Request).unwrap();
    }

    #[test]
    fn the_node_is_not_bounded() {
        let shares = shares();
        let all: Vec<_> = (0..1_000)
            .map(|_| begin(&shares, &Tenant::Node, RequestClass::Watch).unwrap())
            .collect();
        assert_eq!(all.len(), 1_000);
        assert!(shares.held.lock().is_empty());
    }

    #[test]
    fn who_goes_on_asking_while_it_is_refused_is_told_apart() {
        let shares = shares();
        let a = caller("a");
        let _held = begin(&shares, &a, RequestClass::Watch).unwrap();
        let now = Instant::now();
        let refused: Vec<_> = (0..REFUSALS)
            .map(|_| shares.begin(&a, RequestClass::Watch, now))
            .collect();
        assert!(
            refused
                .iter()
                .all(|begun| matches!(begun, Admission::Refused(_)))
        );
        assert!(matches!(
            shares.begin(&a, RequestClass::Watch, now),
            Admission::Overrun
        ));
        drop(refused);
        assert!(matches!(
            shares.begin(&a, RequestClass::Watch, now),
            Admission::Refused(_)
        ));
    }

    #[test]
    fn beyond_a_burst_requests_come_at_the_rate() {
        let shares = shares();
        let (a, now) = (caller("a"), Instant::now());
        let wait = |now| match shares.begin(&a, RequestClass::Request, now) {
            Admission::Admitted(_, wait) => wait.as_millis(),
            Admission::Refused(_) | Admission::Overrun => panic!("nothing is held"),
        };
        let waits: Vec<_> = (0..14).map(|_| wait(now)).collect();
        assert_eq!(waits[..11], [0; 11]);
        assert_eq!(waits[11..], [100, 200, 300]);
        assert_eq!(wait(now + Duration::from_secs(10)), 0);
    }

    #[test]
    fn shares_of_who_is_gone_are_forgotten() {
        let shares = shares();
        let now = Instant::now();
        for number in 0..IDLE_SHARES {
            shares.begin(&caller(&number.to_string()), RequestClass::Request, now);
        }
        let later = now + Duration::from_secs(10);
        shares.begin(&caller("last"), RequestClass::Request, later);
        assert_eq!(shares.held.lock().len(), 1);
    }
}
