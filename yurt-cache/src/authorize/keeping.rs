//! Which verdicts go, and which a restart needs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

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
    /// How many there are at most.
    pub(crate) count: usize,
}

/// What a restart needs.
#[derive(Debug, Default)]
pub(super) struct Needed {
    keys: HashSet<String>,
    /// Service accounts of pods on the node, as their keys begin.
    accounts: Vec<String>,
}

impl Verdicts {
    /// Forgets what nobody has used for long, while the cloud is there; returns how many that were.
    pub(crate) fn sweep(&self, now: Instant, needs: &Needs) -> usize {
        *self.needed.lock() = Needed::of(needs);
        let gone = self
            .known
            .evict(|known| self.unused(known, now, Pressure::Age));
        let count = gone.len();
        self.save(gone);
        count
    }

    /// Returns what goes.
    pub(super) fn unused(
        &self,
        known: &Rows<Verdict>,
        now: Instant,
        pressure: Pressure,
    ) -> Vec<Arc<str>> {
        let needed = self.needed.lock();
        let keys: Vec<Arc<str>> = known.keys().cloned().collect();
        let entry = |key: &Arc<str>| {
            let asked = known[key].asked;
            let idle = now.duration_since(asked.unwrap_or(self.opened));
            let is_new = asked.is_some() && idle < NEEDS_SEEN_WITHIN && key.starts_with(NODES);
            // A pod that asks for much makes room for others, but what it asked long ago it may need again.
            let is_young = pressure == Pressure::Age && needed.is_of_pod(key);
            Entry {
                idle: if is_young { Duration::ZERO } else { idle },
                held: Held::one(0),
                is_needed: needed.keys.contains(&**key) || (is_new && pressure == Pressure::Room),
            }
        };
        let entries: Vec<Entry> = keys.iter().map(entry).collect();
        let objects = match pressure {
            Pressure::Age => self.retention.count,
            // So that not each of many new ones looks for room.
            Pressure::Room => self.retention.count / 4 * 3,
        };
        let bounds = Bounds {
            age: self.retention.age,
            budget: Budget::new(objects, u64::MAX),
        };
        let total = Held {
            objects: keys.len(),
            bytes: 0,
        };
        let goes = plan(&entries, total, &bounds);
        goes.into_iter().map(|at| keys[at].clone()).collect()
    }
}

/// Why verdicts are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pressure {
    Age,
    Room,
}

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
            accounts: accounts.map(|account| format!("{account}/")).collect(),
        }
    }

    fn is_of_pod(&self, key: &str) -> bool {
        self.accounts.iter().any(|account| key.starts_with(account))
    }
}
