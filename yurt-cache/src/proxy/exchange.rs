//! A request and what the hub knows of it beside its words.

use crate::api::Scope;
use crate::api::request::{ApiRequest, Path, Target, Verb};
use crate::authorize::Access;
use crate::codec::{FieldSelector, LabelSelector, Status};
use crate::filter::chain::FilterChain;
use crate::identity::{Authenticator, Caller};
use crate::limits::RequestGuard;

/// One request on its way through the hub. The link to the cloud is no part of it: it may break underway.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) caller: Caller,
    pub(crate) api: ApiRequest,
    pub(crate) speaks: Speaks,
    /// What it lists or watches, if it does; or why that cannot be read.
    pub(crate) scope: Result<Option<Scope>, Status>,
    /// The filters that the answer has to pass.
    pub(crate) chain: Option<FilterChain>,
    /// Its share of the hub, as long as it lasts.
    pub(crate) place: Option<RequestGuard>,
}

/// With whom a caller speaks through the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    WithTheCloud,
    /// The cloud would not take its own certificate, and the hub does not lend it another.
    WithTheNode,
}

impl Exchange {
    pub(crate) fn new(caller: Caller, api: ApiRequest) -> Self {
        Self {
            caller,
            speaks: Speaks::WithTheCloud,
            scope: scope(&api),
            api,
            chain: None,
            place: None,
        }
    }

    /// Makes of it a request that only the cloud can answer, and whose answer is its caller's alone.
    pub(crate) fn keep_to_caller(&mut self) {
        self.api.target = Target::Other;
        self.scope = Ok(None);
    }

    /// What a caller whom the cloud would not take is told of all that the hub cannot answer by itself.
    pub(super) fn asks_for_renewal(&self) -> Status {
        match self.speaks {
            Speaks::WithTheCloud => Authenticator::asks_for_renewal(),
            Speaks::WithTheNode => Status::unauthorized().saying(
                "the node's client certificate is not valid now, and its key is not the one that the hub has: renew it",
            ),
        }
    }

    /// Returns what it lists or watches.
    pub(crate) fn scope(&self) -> Option<&Scope> {
        self.scope.as_ref().ok()?.as_ref()
    }
}

/// Returns the scope of a list or a watch; `None` for other requests.
fn scope(api: &ApiRequest) -> Result<Option<Scope>, Status> {
    let is_collection = matches!(api.verb, Verb::List | Verb::Watch);
    let Some(path) = api
        .path()
        .filter(|path| path.subresource.is_none() && is_collection)
    else {
        return Ok(None);
    };
    let labels = LabelSelector::parse(&api.options.labels)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    let mut fields = FieldSelector::parse(&api.options.fields)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    // A watch in the old style names one object: `k8s.io/apiserver/pkg/endpoints/handlers/get.go`, `ListResource`.
    if let Some(name) = &path.name {
        if fields.is_everything() {
            fields = FieldSelector::equal("metadata.name", name);
        } else if fields.exact("metadata.name") != Some(name) {
            let why = "fieldSelector metadata.name doesn't match requested name";
            return Err(Status::bad_request(why));
        }
    }
    Ok(Some(Scope {
        resource: path.resource.clone(),
        namespace: path.namespace.clone(),
        labels,
        fields,
    }))
}

/// Returns the read that a path names.
pub(super) fn access(verb: &'static str, path: &Path) -> Access {
    Access {
        verb,
        resource: path.resource.clone(),
        namespace: path.namespace.clone(),
        name: path.name.clone(),
        subresource: path.subresource.clone(),
        labels: String::new(),
        fields: String::new(),
    }
}

/// Returns the read of a scope that a list or a watch is.
pub(super) fn scope_access(api: &ApiRequest, scope: &Scope) -> Access {
    let verb = if api.verb == Verb::Watch {
        "watch"
    } else {
        "list"
    };
    Access::to_scope(verb, scope)
}
