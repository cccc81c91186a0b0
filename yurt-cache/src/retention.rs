//! What is kept and what goes: what a restart of the node needs, and the plan of what goes of the rest.

pub(crate) mod pinned;
pub(crate) mod plan;
pub(crate) mod pod;

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) use self::pinned::{Needed, Needs, is_always_kept};
pub use self::plan::Budget;
pub(crate) use self::plan::{Bounds, Entry, Held, plan};
use crate::api::Resource;

/// How long and how much is kept.
#[derive(Clone, Debug)]
pub(crate) struct Retention {
    /// How long a mirror stays that nobody asks for.
    pub(crate) mirror_idle: Duration,
    /// How long an object stays that nobody reads by name.
    pub(crate) age: Duration,
    /// What is kept of objects read by name.
    pub(crate) by_name: Budget,
    /// What is kept of any kind, and of those that are named: `deployments.apps`.
    pub(crate) per_kind: Budget,
    pub(crate) kinds: BTreeMap<String, Budget>,
}

impl Retention {
    /// Returns what is kept of a kind.
    pub(crate) fn of(&self, resource: &Resource) -> Budget {
        let own = self.kinds.get(&resource.to_string());
        own.copied().unwrap_or(self.per_kind)
    }
}
