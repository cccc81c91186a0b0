//! A read that is decided on: what it is called in the store, and how it is refused.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::api::{Resource, Scope};
use crate::codec::{Status, Subject};

/// The longest description of an access that is kept as text; selectors may be of any length.
const KEY_LEN: usize = 512;

/// What is asked for.
const READS: [&str; 3] = ["get", "list", "watch"];

/// How an access review names them all.
const ANY_VERSION: &str = "*";

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

    /// Reads one from what it is known under, behind the caller; `None` of what was too long to be kept as text. Which
    /// version of the API was asked for is not kept: all show the same objects.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(7, '/');
        let verb = parts.next()?;
        let verb = READS.into_iter().find(|read| *read == verb)?;
        let mut next = || parts.next().map(str::to_owned);
        let (group, plural) = (next()?, next()?);
        let (subresource, namespace, name) = (next()?, next()?, next()?);
        let (labels, fields) = parts.next()?.rsplit_once('/')?;
        let some = |text: String| (!text.is_empty()).then_some(text);
        Some(Self {
            verb,
            resource: Resource {
                group,
                version: ANY_VERSION.to_owned(),
                plural,
            },
            namespace: some(namespace),
            name: some(name),
            subresource: some(subresource),
            labels: labels.to_owned(),
            fields: fields.replace("%2F", "/").replace("%25", "%"),
        })
    }

    /// Returns the reads that show more than this one, and all of it.
    pub(super) fn wider(&self) -> Vec<Self> {
        let to_all = Self {
            name: None,
            labels: String::new(),
            fields: String::new(),
            ..self.clone()
        };
        let everywhere = Self {
            namespace: None,
            ..to_all.clone()
        };
        let mut wider = vec![to_all, everywhere];
        wider.dedup();
        let is_less = |one: &Self| {
            (&one.namespace, &one.name, &one.labels, &one.fields)
                != (&self.namespace, &self.name, &self.labels, &self.fields)
        };
        let wider = wider.into_iter().filter(is_less);
        let as_verbs = |one: Self| {
            READS.map(|verb| Self {
                verb,
                ..one.clone()
            })
        };
        wider.flat_map(as_verbs).collect()
    }

    /// Returns whether it shows Secrets.
    pub(super) fn is_to_secrets(&self) -> bool {
        self.resource.group.is_empty() && self.resource.plural == "secrets"
    }

    /// Returns the same of what is known of it as text.
    pub(super) fn is_to_secrets_as_text(text: &str) -> bool {
        let mut parts = text.split('/').skip(1);
        parts.next() == Some("") && parts.next() == Some("secrets")
    }

    /// Returns what is to be got to try it out, for who may not ask; `None` of what cannot be tried.
    pub(super) fn trial(&self) -> Option<String> {
        if self.resource.version == ANY_VERSION {
            return None;
        }
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut path = self.resource.path(self.namespace.as_deref());
        if self.verb == "get" {
            path = format!("{path}/{}", encode(self.name.as_deref()?));
            if let Some(subresource) = &self.subresource {
                path = format!("{path}/{subresource}");
            }
            return Some(path);
        }
        let least = match self.verb {
            "list" => "limit=1",
            _ => "watch=1&timeoutSeconds=1",
        };
        path = format!("{path}?{least}");
        for (name, value) in [
            ("labelSelector", &self.labels),
            ("fieldSelector", &self.fields),
        ] {
            if !value.is_empty() {
                path = format!("{path}&{name}={}", encode(value));
            }
        }
        Some(path)
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
    fn an_access_is_read_from_what_it_is_known_under() {
        let one =
            |verb, namespace: Option<&str>, name: Option<&str>, labels: &str, fields: &str| {
                Access {
                    verb,
                    resource: Resource::new("apps", ANY_VERSION, "deployments"),
                    namespace: namespace.map(str::to_owned),
                    name: name.map(str::to_owned),
                    subresource: None,
                    labels: labels.to_owned(),
                    fields: fields.to_owned(),
                }
            };
        for access in [
            one("list", None, None, "", ""),
            one(
                "watch",
                Some("a"),
                None,
                "x/y=z,!q/r",
                "metadata.name=a%2Fb/c",
            ),
            one("get", Some("a"), Some("b"), "", ""),
        ] {
            let key = access.key("node");
            let (_, text) = key.split_once('/').unwrap();
            assert_eq!(Access::is_to_secrets_as_text(text), access.is_to_secrets());
            assert_eq!(Access::parse(text), Some(access));
        }
        for bad in ["", "list", "delete//pods/////", "0123456789abcdef"] {
            assert_eq!(Access::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_shows_more_is_what_a_refusal_casts_doubt_on() {
        let keys = |access: &Access| {
            let wider = access.wider();
            let keys: Vec<String> = wider.iter().map(|one| one.key("i")).collect();
            keys
        };
        let place = Scope::all(Resource::core("secrets")).in_namespace(Some("a".to_owned()));
        let list = Access::to_scope("list", &place);
        let everywhere = [
            "i/get//secrets/////",
            "i/list//secrets/////",
            "i/watch//secrets/////",
        ];
        assert_eq!(keys(&list), everywhere);
        let named = Access {
            name: Some("s".to_owned()),
            ..list.clone()
        };
        let there = [
            "i/get//secrets//a///",
            "i/list//secrets//a///",
            "i/watch//secrets//a///",
        ];
        assert_eq!(keys(&named), [there, everywhere].concat());
        let all = Access::to_scope("list", &Scope::all(Resource::core("secrets")));
        assert!(all.wider().is_empty());
    }

    #[test]
    fn what_may_not_be_asked_for_is_tried_with_the_least() {
        let scope = pods_scope(&"n".parse().unwrap());
        let trial = |verb| Access::to_scope(verb, &scope).trial();
        let list = "/api/v1/pods?limit=1&fieldSelector=spec%2EnodeName%3Dn";
        assert_eq!(trial("list").as_deref(), Some(list));
        let watch = "/api/v1/pods?watch=1&timeoutSeconds=1&fieldSelector=spec%2EnodeName%3Dn";
        assert_eq!(trial("watch").as_deref(), Some(watch));
        assert_eq!(trial("get"), None);
        let one = Access {
            name: Some("p".to_owned()),
            ..Access::to_scope("get", &Scope::all(Resource::core("pods")))
        };
        assert_eq!(one.trial().as_deref(), Some("/api/v1/pods/p"));
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
