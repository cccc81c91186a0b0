//! A read that is decided on: what it is called in the store, and how it is refused.

use sha2::{Digest, Sha256};

use crate::api::{Resource, Scope};
use crate::codec::{Status, Subject};

/// The longest description of an access that is kept as text; selectors may be of any length.
const KEY_LEN: usize = 512;

/// A read that somebody wants to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Access {
    pub(crate) verb: &'static str,
    pub(crate) resource: Resource,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    /// The selectors, canonical: who may list the pods of one node may not list all.
    pub(crate) labels: String,
    pub(crate) fields: String,
}

impl Access {
    /// The read of a whole scope.
    pub(crate) fn to_scope(verb: &'static str, scope: &Scope) -> Self {
        let is_selected = verb != "get";
        Self {
            verb,
            resource: scope.resource.clone(),
            namespace: scope.namespace.clone(),
            name: scope.name().map(str::to_owned),
            subresource: None,
            labels: if is_selected {
                scope.labels.to_string()
            } else {
                String::new()
            },
            fields: if is_selected {
                scope.fields.to_string()
            } else {
                String::new()
            },
        }
    }

    /// Returns under what it is known of the caller `id`.
    pub(super) fn key(&self, id: &str) -> String {
        // Labels may have slashes, so that nothing after them may.
        let fields = self.fields.replace('%', "%25").replace('/', "%2F");
        let parts = [
            self.verb,
            &self.resource.group,
            &self.resource.plural,
            self.subresource.as_deref().unwrap_or_default(),
            self.namespace.as_deref().unwrap_or_default(),
            self.name.as_deref().unwrap_or_default(),
            &self.labels,
            &fields,
        ];
        let text = parts.join("/");
        if text.len() <= KEY_LEN {
            return format!("{id}/{text}");
        }
        let digest = Sha256::digest(text.as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{id}/{digest}")
    }

    /// Refuses it.
    pub(super) fn forbidden(&self, addition: &str) -> Status {
        let place = self.namespace.as_ref().map_or_else(
            || "at the cluster scope".to_owned(),
            |namespace| format!("in the namespace {namespace:?}"),
        );
        let name = self.name.as_deref().unwrap_or_default();
        let why = format!(
            "the caller cannot {} resource {:?} in API group {:?} {place}",
            self.verb, self.resource.plural, self.resource.group
        );
        let why = if addition.is_empty() {
            why
        } else {
            format!("{why}, {addition}")
        };
        Status::forbidden(
            Subject {
                group: &self.resource.group,
                resource: &self.resource.plural,
                name,
            },
            &why,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::well_known::pods_scope;

    #[test]
    fn two_accesses_are_never_known_as_one() {
        let all = Access::to_scope("list", &Scope::all(Resource::core("pods")));
        let of = |labels: &str, fields: &str| {
            let (labels, fields) = (labels.to_owned(), fields.to_owned());
            let access = Access {
                labels,
                fields,
                ..all.clone()
            };
            access.key("node")
        };
        assert_ne!(of("a/b=c", ""), of("a", "b=c/"));
        assert_ne!(of("a", "b/c=d"), of("a/b", "c=d"));
        assert_ne!(of("", "a=b/c"), of("", "a=b%2Fc"));
    }

    #[test]
    fn what_an_earlier_hub_wrote_of_an_access_is_found() {
        let scope = pods_scope(&"n".parse().unwrap());
        let list = Access::to_scope("list", &scope);
        assert_eq!(list.key("node"), "node/list//pods/////spec.nodeName=n");
        let long = Access {
            labels: "x".repeat(KEY_LEN),
            ..list
        };
        assert_eq!(long.key("node").len(), "node/".len() + 64);
    }
}
