//! What a mirror covers: one resource, in one namespace or all, by selectors.

use std::fmt;

use crate::codec::{FieldSelector, LabelSelector};

/// A resource as its paths name it: group, version and plural. The core group is the empty text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
}

impl Resource {
    /// Returns `v1` or `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Returns the path of the collection.
    pub(crate) fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            "/api"
        } else {
            "/apis"
        };
        let api_version = self.api_version();
        match namespace {
            Some(namespace) => format!(
                "{root}/{api_version}/namespaces/{namespace}/{}",
                self.plural
            ),
            None => format!("{root}/{api_version}/{}", self.plural),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            write!(f, "{}", self.plural)
        } else {
            write!(f, "{}.{}", self.plural, self.group)
        }
    }
}

/// A set of objects that one upstream list and watch can name.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) resource: Resource,
    pub(crate) namespace: Option<String>,
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
}

impl Scope {
    /// Returns whether every object of `narrow` is one of `self`, as far as the texts tell.
    pub(crate) fn covers(&self, narrow: &Self) -> bool {
        self.resource == narrow.resource
            && (self.namespace.is_none() || self.namespace == narrow.namespace)
            && (self.labels.is_everything() || self.labels.to_string() == narrow.labels.to_string())
            && (self.fields.is_everything() || self.fields.to_string() == narrow.fields.to_string())
    }

    /// Returns whether both name the same set.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    /// Returns the one name that the scope is about, if it is about one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    /// Returns the text that tells scopes apart; also shown in metrics and logs.
    pub(crate) fn identity(&self) -> String {
        let mut text = format!("{}/{}", self.resource.api_version(), self.resource.plural);
        if let Some(namespace) = &self.namespace {
            text = format!("{text} in {namespace}");
        }
        let labels = self.labels.to_string();
        if !labels.is_empty() {
            text = format!("{text} with {labels}");
        }
        let fields = self.fields.to_string();
        if !fields.is_empty() {
            text = format!("{text} where {fields}");
        }
        text
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.identity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(namespace: Option<&str>, labels: &str, fields: &str) -> Scope {
        Scope {
            resource: Resource {
                group: String::new(),
                version: "v1".into(),
                plural: "pods".into(),
            },
            namespace: namespace.map(str::to_owned),
            labels: LabelSelector::parse(labels).unwrap(),
            fields: FieldSelector::parse(fields).unwrap(),
        }
    }

    #[test]
    fn a_wider_scope_covers_a_narrower_one_and_never_the_other_way() {
        let all = scope(None, "", "");
        let one = scope(Some("a"), "", "");
        let selected = scope(Some("a"), "app=x", "");
        let named = scope(Some("a"), "", "metadata.name=n");
        for (wide, narrow) in [
            (&all, &one),
            (&all, &selected),
            (&one, &selected),
            (&one, &named),
            (&all, &named),
        ] {
            assert!(wide.covers(narrow), "{wide} covers {narrow}");
            assert!(!narrow.covers(wide), "{narrow} does not cover {wide}");
        }
        assert!(!selected.covers(&scope(Some("a"), "app=y", "")));
        assert!(!one.covers(&scope(Some("b"), "", "")));
        assert!(selected.covers(&selected) && selected.is_same(&selected));
    }

    #[test]
    fn the_path_names_group_and_namespace() {
        let deployments = Resource {
            group: "apps".into(),
            version: "v1".into(),
            plural: "deployments".into(),
        };
        assert_eq!(
            deployments.path(Some("x")),
            "/apis/apps/v1/namespaces/x/deployments"
        );
        assert_eq!(scope(None, "", "").resource.path(None), "/api/v1/pods");
    }
}
