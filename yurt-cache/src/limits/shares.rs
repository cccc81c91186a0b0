//! Requests under way, counted by who made them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Holder, Limits};

/// Refusals that wait for one caller; each is a request that costs next to nothing.
const REFUSALS: usize = 256;

/// Shares without a request under way are looked through when there are so many.
const IDLE_SHARES: usize = 1_024;

/// How much a caller may save up while it asks nothing: this long at its rate.
const BURST: Duration = Duration::from_secs(1);

/// What is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
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
    held: Mutex<HashMap<Holder, Share>>,
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
pub(crate) enum Begun {
    /// It has its place; its turn is after this long.
    Placed(Place, Duration),
    /// The caller holds its share already: it is told so, but not at once, lest it asks again at once.
    Refused(Place),
    /// The caller goes on asking while it is refused.
    Overrun,
}

/// A request's place; it is free again when the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    _held: Option<Arc<Held>>,
}

#[derive(Debug)]
struct Held {
    shares: Arc<Shares>,
    holder: Holder,
    what: What,
}

impl Shares {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            held: Mutex::default(),
        })
    }

    /// Gives a request its place, if its maker has one left.
    pub(crate) fn begin(self: &Arc<Self>, holder: &Holder, what: What, now: Instant) -> Begun {
        if *holder == Holder::Node {
            return Begun::Placed(Place { _held: None }, Duration::ZERO);
        }
        let place = |what| {
            let held = Held {
                shares: self.clone(),
                holder: holder.clone(),
                what,
            };
            Place {
                _held: Some(Arc::new(held)),
            }
        };
        let mut held = self.held.lock();
        if held.len() >= IDLE_SHARES {
            held.retain(|_, share| share.is_held() || share.due.is_some_and(|due| due > now));
        }
        let share = held.entry(holder.clone()).or_default();
        if share.count(what) < self.limits.of(what) {
            let wait = share.take_turn(self.limits.caller_rate, now);
            *share.count_mut(what) += 1;
            return Begun::Placed(place(what), wait);
        }
        if share.refusals < REFUSALS {
            share.refusals += 1;
            return Begun::Refused(place(What::Refusal));
        }
        Begun::Overrun
    }

    fn release(&self, holder: &Holder, what: What) {
        if let Some(share) = self.held.lock().get_mut(holder) {
            let count = share.count_mut(what);
            *count = count.saturating_sub(1);
        }
    }
}

impl Limits {
    /// All that one caller may have under way.
    pub(crate) fn streams(&self) -> u32 {
        u32::try_from(self.caller_requests + self.caller_watches).unwrap_or(u32::MAX)
    }

    fn of(&self, what: What) -> usize {
        match what {
            What::Request => self.caller_requests,
            What::Watch => self.caller_watches,
            What::Refusal => REFUSALS,
        }
    }
}

impl Share {
    fn is_held(&self) -> bool {
        self.requests + self.watches + self.refusals > 0
    }

    fn count(&self, what: What) -> usize {
        match what {
            What::Request => self.requests,
            What::Watch => self.watches,
            What::Refusal => self.refusals,
        }
    }

    fn count_mut(&mut self, what: What) -> &mut usize {
        match what {
            What::Request => &mut self.requests,
            What::Watch => &mut self.watches,
            What::Refusal => &mut self.refusals,
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
        self.shares.release(&self.holder, self.what);
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

    fn caller(name: &str) -> Holder {
        Holder::Caller(name.into())
    }

    /// The place if there is one.
    fn begin(shares: &Arc<Shares>, holder: &Holder, what: What) -> Option<Place> {
        match shares.begin(holder, what, Instant::now()) {
            Begun::Placed(place, _) => Some(place),
            Begun::Refused(_) | Begun::Overrun => None,
        }
    }

    #[test]
    fn a_share_is_full_for_its_holder_alone_until_a_place_is_free() {
        let shares = shares();
        let (a, b) = (caller("a"), caller("b"));
        let first = begin(&shares, &a, What::Request).unwrap();
        let _second = begin(&shares, &a, What::Request).unwrap();
        assert!(begin(&shares, &a, What::Request).is_none());
        let _watch = begin(&shares, &a, What::Watch).unwrap();
        assert!(begin(&shares, &a, What::Watch).is_none());
        begin(&shares, &b, What::Request).unwrap();
        begin(&shares, &b, What::Watch).unwrap();
        let copy = first.clone();
        drop(first);
        assert!(begin(&shares, &a, What::Request).is_none());
        drop(copy);
        begin(&shares, &a, What::Request).unwrap();
    }

    #[test]
    fn the_node_is_not_bounded() {
        let shares = shares();
        let all: Vec<_> = (0..1_000)
            .map(|_| begin(&shares, &Holder::Node, What::Watch).unwrap())
            .collect();
        assert_eq!(all.len(), 1_000);
        assert!(shares.held.lock().is_empty());
    }

    #[test]
    fn who_goes_on_asking_while_it_is_refused_is_told_apart() {
        let shares = shares();
        let a = caller("a");
        let _held = begin(&shares, &a, What::Watch).unwrap();
        let now = Instant::now();
        let refused: Vec<_> = (0..REFUSALS)
            .map(|_| shares.begin(&a, What::Watch, now))
            .collect();
        assert!(
            refused
                .iter()
                .all(|begun| matches!(begun, Begun::Refused(_)))
        );
        assert!(matches!(shares.begin(&a, What::Watch, now), Begun::Overrun));
        drop(refused);
        assert!(matches!(
            shares.begin(&a, What::Watch, now),
            Begun::Refused(_)
        ));
    }

    #[test]
    fn beyond_a_burst_requests_come_at_the_rate() {
        let shares = shares();
        let (a, now) = (caller("a"), Instant::now());
        let wait = |now| match shares.begin(&a, What::Request, now) {
            Begun::Placed(_, wait) => wait.as_millis(),
            Begun::Refused(_) | Begun::Overrun => panic!("nothing is held"),
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
            shares.begin(&caller(&number.to_string()), What::Request, now);
        }
        let later = now + Duration::from_secs(10);
        shares.begin(&caller("last"), What::Request, later);
        assert_eq!(shares.held.lock().len(), 1);
    }
}
