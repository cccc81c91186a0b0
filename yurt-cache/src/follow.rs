//! How mirrors follow the cloud: which there are, what each fetches next, the lists and watches themselves,
//! and the proof that one has caught up.
//!
//! `plan` decides and is pure; `run` does what it says; `barrier` proves; `registry` finds and starts;
//! `sweep` ends what nobody needs.

mod aggregated;
mod barrier;
pub(crate) mod definition;
mod list;
pub(crate) mod local;
mod plan;
pub(crate) mod registry;
mod restored;
mod run;
pub(crate) mod share;
pub(crate) mod source;
pub(crate) mod sweep;
mod watching;
mod windows;

use tokio::sync::{Notify, Semaphore, watch};

use self::barrier::Barrier;
use self::restored::Revisions;
use crate::limits::Tenant;
use crate::upstream::Upstream;

/// Lists that are fetched at the same time, so that not all mirrors of a node list at once after a cut: for callers, and
/// for the node, which waits for nobody else's.
const LISTS: usize = 8;
const LISTS_OF_NODE: usize = 4;

/// What all followers share.
#[derive(Clone, Debug)]
pub(crate) struct FollowerConfig {
    pub(crate) upstream: Upstream,
    /// Bytes that one object may have.
    pub(crate) object_limit: usize,
    /// The hub has a client certificate of its node to fetch with.
    pub(crate) has_node_identity: bool,
}

/// Followers take turns where the cloud would feel all of them at once.
#[derive(Debug)]
pub(crate) struct Turns {
    lists: Semaphore,
    lists_of_node: Semaphore,
    revisions: Revisions,
}

impl Turns {
    /// Returns where lists of a mirror wait that is this tenant's.
    fn lists_of(&self, owner: &Tenant) -> &Semaphore {
        match owner {
            Tenant::Node => &self.lists_of_node,
            Tenant::Caller(_) | Tenant::Anonymous(_) => &self.lists,
        }
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            lists: Semaphore::new(LISTS),
            lists_of_node: Semaphore::new(LISTS_OF_NODE),
            revisions: Revisions::default(),
        }
    }
}

/// What requests and the follower of a mirror tell each other.
#[derive(Debug, Default)]
pub(crate) struct Following {
    barrier: Barrier,
    /// The watch is to be opened again: it did not bring what the cloud has.
    reopen: Notify,
    /// A mirror that is synced cannot follow now: the cloud refuses, or the store takes nothing.
    refused: watch::Sender<bool>,
}

impl Following {
    /// Returns when it is known that the mirror cannot follow now.
    pub(crate) async fn refused(&self) {
        let mut refused = self.refused.subscribe();
        if refused.wait_for(|refused| *refused).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
