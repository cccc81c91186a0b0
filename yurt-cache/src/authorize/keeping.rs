//! Which verdicts go, and which a restart needs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::sharing::{DENIALS, Rank, Room, Seat, Seats};
use super::{Access, Verdict, Verdicts};
use crate::api::{ObjectKey, Resource, Scope, split_key};
use crate::identity::Caller;
use crate::retention::{Bounds, Budget, Entry, Held, Needs, plan};
use crate::store::table::Rows;

/// How the keys of the node's own verdicts begin.
const NODES: &str = "node/";

/// For how long what the node asked counts as needed, whatever is known of its needs: they are looked up
/// every half minute.
const NEEDS_SEEN_WITHIN: Duration = Duration::from_secs(60);

/// How long and how many verdicts are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    /// How long one counts while the cloud is away.
    pub(crate) limit: Duration,
    /// The same of one on Secrets.
    pub(crate) secret_limit: Duration,
    /// How long one stays that nobody uses while it is there.
    pub(crate) age: Duration,
    /// How many that allow something there are at most, and of one caller.
    pub(crate) count: usize,
    pub(crate) of_caller: usize,
}

/// What a restart needs.
#[derive(Debug, Default)]
pub(super) struct Needed {
    keys: HashSet<String>,
    /// The user names of the service accounts of pods on the node.
    accounts: HashSet<String>,
}

impl Verdicts {
    /// Forgets what nobody has used for long, while the cloud is there; returns how many that were.
    pub(crate) fn sweep(&self, now: Instant, needs: &Needs) -> usize {
        *self.needed.lock() = Needed::of(needs);
        let gone = self.known.evict(|known| self.unused(known, now));
        let count = gone.len();
        self.save(gone);
        count
    }

    /// Returns whose place a new verdict takes, if it is to be remembered.
    ///
    /// # Errors
    /// If it is not, because others have all the places.
    pub(super) fn room(
        &self,
        known: &Rows<Verdict>,
        key: &str,
        verdict: &Verdict,
        now: Instant,
    ) -> Result<Option<Arc<str>>, NoRoom> {
        if known.contains_key(key) {
            return Ok(None);
        }
        let needed = self.needed.lock();
        let seats = Seats {
            all: self.retention.count,
            of_caller: self.retention.of_caller,
        };
        let new = self.seat(&needed, key, verdict, now);
        let same = || {
            let all = known.iter();
            all.filter(|(_, one)| one.is_allowed == verdict.is_allowed)
        };
        let own = same().filter(|(key, _)| caller_of(key) == new.caller);
        if seats.have_room(&new, same().count(), own.count()) {
            return Ok(None);
        }
        let keys: Vec<&Arc<str>> = known.keys().collect();
        let kept: Vec<Seat<'_>> = keys
            .iter()
            .map(|key| self.seat(&needed, key, &known[*key], now))
            .collect();
        match seats.enter(&kept, &new) {
            Room::Free => Ok(None),
            Room::InsteadOf(at) => Ok(Some(keys[at].clone())),
            Room::None => Err(NoRoom),
        }
    }

    fn seat<'a>(&self, needed: &Needed, key: &'a str, verdict: &Verdict, now: Instant) -> Seat<'a> {
        let idle = now.duration_since(verdict.asked.unwrap_or(self.opened));
        let is_of_node = key.starts_with(NODES);
        let is_new = verdict.asked.is_some() && idle < NEEDS_SEEN_WITHIN && is_of_node;
        Seat {
            caller: caller_of(key),
            rank: match is_of_node {
                true => Rank::OfNode,
                false if needed.is_of_pod(key) => Rank::OfPod,
                false => Rank::Other,
            },
            is_allowed: verdict.is_allowed,
            is_needed: verdict.is_allowed && (is_new || needed.keys.contains(key)),
            idle,
        }
    }

    /// Returns whether a denial has to be known after a restart: it takes back what is wider and was allowed.
    pub(super) fn takes_back(&self, caller: &Caller, access: &Access) -> bool {
        let known = self.known.rows();
        let is_allowed = |access: &Access| {
            let mut keys = caller.ids().map(|id| access.key(id));
            keys.any(|key| known.get(&*key).is_some_and(|verdict| verdict.is_allowed))
        };
        access.wider().iter().any(is_allowed)
    }

    /// Returns how many there are that allow something and may be, and how many denials.
    pub(crate) fn held(&self) -> [(usize, usize); 2] {
        let known = self.known.rows();
        let allowed = known.values().filter(|verdict| verdict.is_allowed).count();
        let denied = known.len() - allowed;
        [(allowed, self.retention.count), (denied, DENIALS)]
    }

    /// Returns what goes for its age.
    fn unused(&self, known: &Rows<Verdict>, now: Instant) -> Vec<Arc<str>> {
        let needed = self.needed.lock();
        let keys: Vec<Arc<str>> = known.keys().cloned().collect();
        let entry = |key: &Arc<str>| {
            let idle = now.duration_since(known[key].asked.unwrap_or(self.opened));
            // What a pod asked long ago it may need again.
            let is_young = needed.is_of_pod(key);
            Entry {
                idle: if is_young { Duration::ZERO } else { idle },
                held: Held::one(0),
                is_needed: needed.keys.contains(&**key),
            }
        };
        let entries: Vec<Entry> = keys.iter().map(entry).collect();
        let bounds = Bounds {
            age: self.retention.age,
            budget: Budget::new(usize::MAX, u64::MAX),
        };
        let total = Held {
            objects: keys.len(),
            bytes: 0,
        };
        let goes = plan(&entries, total, &bounds);
        goes.into_iter().map(|at| keys[at].clone()).collect()
    }
}

/// Returns whose verdict it is: no caller's id has a slash.
fn caller_of(key: &str) -> &str {
    key.split('/').next().unwrap_or(key)
}

/// Others have all the places.
#[derive(Debug)]
pub(super) struct NoRoom;

impl Needed {
    /// The kubelet lists and watches its scopes, and reads single objects.
    fn of(needs: &Needs) -> Self {
        let node = Caller::Node;
        let of_scope = |scope: Scope| {
            ["get", "list", "watch"].map(|verb| Access::to_scope(verb, &scope).key(node.id()))
        };
        let of_object = |(resource, key): (&Resource, &ObjectKey)| {
            let (namespace, name) = split_key(key);
            let access = Access {
                verb: "get",
                resource: resource.clone(),
                namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
                name: Some(name.to_owned()),
                subresource: None,
                labels: String::new(),
                fields: String::new(),
            };
            access.key(node.id())
        };
        let keys = needs.scopes().flat_map(of_scope);
        let accounts = needs.accounts.iter();
        Self {
            keys: keys.chain(needs.kept().map(of_object)).collect(),
            accounts: accounts.cloned().collect(),
        }
    }

    fn is_of_pod(&self, key: &str) -> bool {
        self.accounts.contains(caller_of(key))
    }
}
