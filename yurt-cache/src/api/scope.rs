//! A set of objects of one resource: in one namespace or all, by selectors.

use std::fmt;

use super::Resource;
use crate::codec::{FieldSelector, LabelSelector};

/// A set of objects that one upstream list and watch can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) resource: Resource,
    pub(crate) namespace: Option<String>,
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
}

impl Scope {
    /// Returns the scope of all objects of a resource.
    pub(crate) fn all(resource: Resource) -> Self {
        Self {
            resource,
            namespace: None,
            labels: LabelSelector::default(),
            fields: FieldSelector::default(),
        }
    }

    /// Narrows it to a namespace, if one is named.
    #[must_use]
    pub(crate) fn in_namespace(self, namespace: Option<String>) -> Self {
        Self { namespace, ..self }
    }

    /// Narrows it to the object with the name.
    #[must_use]
    pub(crate) fn named(self, name: &str) -> Self {
        self.with_field("metadata.name", name)
    }

    /// Narrows it to the objects of which one field has the value.
    #[must_use]
    pub(crate) fn with_field(self, field: &str, value: &str) -> Self {
        Self {
            fields: FieldSelector::equal(field, value),
            ..self
        }
    }

    /// Returns whether both name the same set.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    /// Returns the one name that the scope is about, if it is about one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    /// Returns whether keys alone decide: then an object leaves it with its end only.
    pub(crate) fn is_by_key(&self) -> bool {
        self.labels.is_everything() && self.fields.is_by_key()
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

    #[test]
    fn whoever_names_an_object_means_what_a_selector_with_the_name_says() {
        let where_is = |fields: &str| Scope {
            fields: FieldSelector::parse(fields).unwrap(),
            ..Scope::all(Resource::core("pods"))
        };
        let named = Scope::all(Resource::core("pods")).named("n");
        assert!(named.is_same(&where_is("metadata.name=n")));
        assert_eq!(named.name(), Some("n"));
        assert!(named.is_by_key() && where_is("metadata.namespace=a,metadata.name!=b").is_by_key());
        assert!(!where_is("metadata.name=n,spec.nodeName=a").is_by_key());
        let odd = Scope::all(Resource::core("pods")).named("a,b=c");
        assert_eq!(odd.name(), Some("a,b=c"));
        assert!(odd.is_same(&where_is("metadata.name=a\\,b\\=c")));
    }
}
