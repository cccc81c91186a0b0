//! Whether a mirror can answer for what is asked: its history, its scope, its selectors.

use crate::api::request::{ApiRequest, Revision, Verb};
use crate::api::{Resource, Scope};
use crate::codec::fields::Selectable;
use crate::codec::{Status, fields};
use crate::mirror::Mirror;

/// Returns whether a mirror can answer for a scope, besides its history.
pub(super) fn can_answer(mirror: &Mirror, scope: &Scope) -> bool {
    !mirror.is_suspect() && !is_misplaced(mirror, scope) && unsupported(mirror, scope).is_none()
}

/// Returns whether a namespace is asked for of what has none.
pub(super) fn is_misplaced(mirror: &Mirror, scope: &Scope) -> bool {
    scope.namespace.is_some() && mirror.scope.namespace.is_none() && mirror.kind.is_cluster_scoped()
}

/// Refuses selectors of a narrower scope that the mirror cannot evaluate.
pub(super) fn unsupported(mirror: &Mirror, scope: &Scope) -> Option<Status> {
    if scope.is_same(&mirror.scope) {
        return None;
    }
    let custom = mirror.kind.custom();
    let Resource {
        group,
        version,
        plural,
    } = &scope.resource;
    let of = Selectable {
        group,
        version,
        resource: plural,
        is_namespaced: scope.namespace.is_some() || mirror.kind.is_namespaced(),
        custom: custom.is_defined.then_some(&custom.selectable),
    };
    let error = fields::check(&scope.fields, &of).err()?;
    Some(Status::bad_request(error.to_string()))
}

/// Returns the revision at which a watch begins, if the mirror's history does not go back so far.
pub(super) fn lost(mirror: &Mirror, api: &ApiRequest) -> Option<u64> {
    match (api.verb, &api.options.revision, api.options.initial_events) {
        (Verb::Watch, Revision::At(revision), None | Some(false)) => {
            (!mirror.has_history_since(*revision)).then_some(*revision)
        }
        _ => None,
    }
}
