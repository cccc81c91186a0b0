//! The filters between one caller and one resource, and how an object passes them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use super::context::Context;
use super::{CallerName, Filter, FilterConfig, FilterName, Need, Outcome, Undecided, filter};
use crate::api::Resource;
use crate::codec::Status;
use crate::identity::Caller;

/// Which filters there are between whom and what, and what they know.
#[derive(Debug)]
pub(crate) struct Filters {
    config: FilterConfig,
    contexts: watch::Sender<Arc<Context>>,
    /// Somebody asked for what needs to know what Services say.
    needs_services: watch::Sender<bool>,
}

/// The filters between one caller and one resource, in their order.
#[derive(Clone)]
pub(crate) struct FilterChain {
    filters: Arc<[Known]>,
    context: Arc<Context>,
    contexts: watch::Receiver<Arc<Context>>,
}

#[derive(Clone, Copy)]
struct Known {
    name: FilterName,
    filter: &'static dyn Filter,
}

/// An object after the filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filtered {
    /// As it was, or changed.
    Shown(Bytes),
    Hidden,
}

/// Which filter could not decide, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the filter {filter} cannot decide what may be seen here")]
pub(crate) struct FilterChainError {
    filter: FilterName,
    source: Undecided,
}

impl Filters {
    pub(crate) fn new(config: FilterConfig, context: Context) -> Self {
        Self {
            config,
            contexts: watch::Sender::new(Arc::new(context)),
            needs_services: watch::Sender::new(false),
        }
    }

    /// Returns the filters between a caller and a resource; `None` if there are none.
    pub(crate) fn for_caller(&self, caller: &Caller, resource: &Resource) -> Option<FilterChain> {
        let has_hub = self.contexts.borrow().hub.is_some();
        let may_act = |filter: &dyn Filter| {
            filter.concerns(resource) && (has_hub || filter.needs() != Need::Hub)
        };
        let known = FilterName::ALL.map(|name| Known {
            name,
            filter: filter(name),
        });
        if !known.iter().any(|known| may_act(known.filter)) {
            return None;
        }
        let caller = name_of(caller)?;
        let filters: Vec<Known> = known
            .into_iter()
            .filter(|known| may_act(known.filter) && self.config.is_for(known.name, &caller))
            .collect();
        if filters.is_empty() {
            return None;
        }
        if filters
            .iter()
            .any(|known| known.filter.needs() == Need::Services)
        {
            self.needs_services
                .send_if_modified(|needs| !std::mem::replace(needs, true));
        }
        let contexts = self.contexts.subscribe();
        let context = contexts.borrow().clone();
        Some(FilterChain {
            filters: filters.into(),
            context,
            contexts,
        })
    }

    /// Returns what filters know.
    pub(crate) fn context(&self) -> Arc<Context> {
        self.contexts.borrow().clone()
    }

    /// Lets every filter know of new surroundings.
    pub(crate) fn publish(&self, context: Context) {
        self.contexts.send_replace(Arc::new(context));
    }

    /// Returns when somebody has asked for what needs to know what Services say.
    pub(crate) fn needs_services(&self) -> watch::Receiver<bool> {
        self.needs_services.subscribe()
    }
}

/// Returns how configurations name a caller. A token's subject is what it says itself; whoever lies sees
/// other addresses of what it may see anyway.
fn name_of(caller: &Caller) -> Option<CallerName> {
    match caller {
        Caller::Node => Some(CallerName::Node),
        Caller::Token(_) => caller.claims_to_be()?.parse().ok(),
    }
}

impl FilterChain {
    /// Takes over what is known now.
    pub(crate) fn renew(&mut self) {
        self.context = self.contexts.borrow().clone();
    }

    /// Returns whether a filter may hide an object.
    pub(crate) fn may_hide(&self) -> bool {
        self.filters.iter().any(|known| known.filter.may_hide())
    }

    /// Returns when everything is known that the filters need.
    pub(crate) async fn ready(&mut self) {
        if self
            .filters
            .iter()
            .any(|known| known.filter.needs() == Need::Services)
        {
            // The sender lives as long as the hub.
            let _ended = self
                .contexts
                .wait_for(|context| context.is_complete())
                .await;
        }
        self.renew();
    }

    /// Filters one object; what no filter changes stays byte for byte.
    ///
    /// # Errors
    /// If a filter cannot decide; then nobody may see the object.
    pub(crate) fn apply(&self, object: &Bytes) -> Result<Filtered, FilterChainError> {
        let mut tree: Option<Value> = None;
        let mut is_changed = false;
        for Known { name, filter } in &*self.filters {
            if tree.is_none() && !filter.may_concern(object, &self.context) {
                continue;
            }
            let failed = |source| FilterChainError {
                filter: *name,
                source,
            };
            let tree = match &mut tree {
                Some(tree) => tree,
                None => {
                    let read = serde_json::from_slice(object);
                    tree.insert(read.map_err(|_| failed(Undecided::Malformed("the object")))?)
                }
            };
            match filter.apply(tree, &self.context).map_err(failed)? {
                Outcome::Keep => {}
                Outcome::Changed => is_changed = true,
                Outcome::Drop => return Ok(Filtered::Hidden),
            }
        }
        Ok(Filtered::Shown(match tree.filter(|_| is_changed) {
            Some(tree) => tree.to_string().into(),
            None => object.clone(),
        }))
    }
}

impl fmt::Debug for FilterChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.filters.iter().map(|known| known.name.as_str());
        f.debug_list().entries(names).finish()
    }
}

impl From<FilterChainError> for Status {
    fn from(error: FilterChainError) -> Self {
        tracing::warn!(%error, reason = %error.source, "a request is refused");
        Self::unavailable(format!("{error}: {}", error.source), None)
    }
}
