//! What a caller sees of an object that means something else at the edge: pods find the hub where the API
//! server was, traffic stays in the pool. Pure surgery on JSON trees, in a fixed order; never the network.

pub(crate) mod chain;
mod config;
pub(crate) mod context;
mod discardcloudservice;
pub(crate) mod follow;
mod forwardkubesvctraffic;
mod inclusterconfig;
mod masterservice;
mod nodeportisolation;
pub(crate) mod seen;
mod serviceenvupdater;
mod servicetopology;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::{Map, Value};

use self::context::{Affected, Context};
use crate::api::Resource;

pub use self::config::{CallerName, FilterConfig, FilterName, InvalidCaller, UnknownFilter};

/// Changes or hides objects of one purpose.
pub(crate) trait Filter: fmt::Debug + Sync {
    /// Returns whether objects of a resource can concern it.
    fn concerns(&self, resource: &Resource) -> bool;

    /// Returns what it has to know of the surroundings before it can decide.
    fn needs(&self) -> Need;

    /// Returns whether it may hide an object.
    fn may_hide(&self) -> bool;

    /// Returns whether an object, by its bytes, may concern it: cheap, and yes where in doubt.
    fn may_concern(&self, object: &[u8], context: &Context) -> bool;

    /// Filters one object. The same object and context give the same result, and a second time changes nothing.
    ///
    /// # Errors
    /// If it cannot decide; then nobody may see the object.
    fn apply(&self, object: &mut Value, context: &Context) -> Result<Outcome, Undecided>;
}

/// What a filter did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Keep,
    Changed,
    Drop,
}

/// What a filter has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Nothing,
    /// Where pods reach the hub: without it the filter does nothing.
    Hub,
    /// What Services say, and the pool if one of them speaks of pools.
    Services,
}

/// Why a filter cannot decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undecided {
    #[error("{0} is not what the API says it is")]
    Malformed(&'static str),
    #[error("{0} is not known yet")]
    Unknown(&'static str),
}

/// Returns the filter of a name.
fn filter(name: FilterName) -> &'static dyn Filter {
    match name {
        FilterName::ServiceTopology => &servicetopology::ServiceTopology,
        FilterName::MasterService => &masterservice::MasterService,
        FilterName::DiscardCloudService => &discardcloudservice::DiscardCloudService,
        FilterName::InClusterConfig => &inclusterconfig::InClusterConfig,
        FilterName::NodePortIsolation => &nodeportisolation::NodePortIsolation,
        FilterName::ForwardKubeSvcTraffic => &forwardkubesvctraffic::ForwardKubeSvcTraffic,
        FilterName::ServiceEnvUpdater => &serviceenvupdater::ServiceEnvUpdater,
    }
}

impl FilterName {
    /// Returns whether objects of a resource can concern the filter.
    pub(crate) fn concerns(self, resource: &Resource) -> bool {
        filter(self).concerns(resource)
    }
}

/// Returns whether an object may concern any filter.
pub(crate) fn may_concern(resource: &Resource, object: &[u8], context: &Context) -> bool {
    let mut filters = FilterName::ALL.into_iter().map(filter);
    filters.any(|filter| filter.concerns(resource) && filter.may_concern(object, context))
}

/// Returns whether an object looks different after a change of the surroundings.
pub(crate) fn is_affected(
    resource: &Resource,
    key: &str,
    object: &[u8],
    affected: &Affected,
) -> bool {
    if is_service(resource) {
        return affected.services.contains(key);
    }
    FilterName::ServiceTopology.concerns(resource)
        && servicetopology::service_of_bytes(object)
            .is_some_and(|service| affected.endpoints.contains(&service))
}

// === what filters read and write of a tree ===

/// Returns namespace and name of an object.
fn names(object: &Value) -> (&str, &str) {
    let of = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    (of("namespace"), of("name"))
}

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][key].as_str()
}

fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"][key].as_str()
}

/// Sets a field; returns whether that changed it.
fn set(fields: &mut Map<String, Value>, name: &str, value: Value) -> bool {
    let is_changed = fields.get(name) != Some(&value);
    if is_changed {
        fields.insert(name.to_owned(), value);
    }
    is_changed
}

/// Returns the array behind a field; none if there is no such field.
fn array<'a>(
    parent: &'a mut Value,
    name: &str,
    path: &'static str,
) -> Result<&'a mut [Value], Undecided> {
    match parent.get_mut(name) {
        None | Some(Value::Null) => Ok(&mut []),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(Undecided::Malformed(path)),
    }
}

fn outcome(is_changed: bool) -> Outcome {
    if is_changed {
        Outcome::Changed
    } else {
        Outcome::Keep
    }
}

fn is_service(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "services"
}

fn is_endpoint_slice(resource: &Resource) -> bool {
    resource.group == "discovery.k8s.io" && resource.plural == "endpointslices"
}

fn contains(object: &[u8], text: &str) -> bool {
    memchr::memmem::find(object, text.as_bytes()).is_some()
}
