//! Which objects of a mirror a request is about.

use std::borrow::Cow;

use super::{Scope, Within, split_key};
use crate::codec::fields::Attributes;
use crate::codec::{FieldSelector, LabelSelector};

/// What a request wants of a mirror that may hold more.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    namespace: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
    name: Option<String>,
    is_everything: bool,
}

impl Selection {
    /// Returns what `asked` wants of a mirror of `held`.
    pub(crate) fn new(asked: &Scope, held: &Scope) -> Self {
        Self {
            namespace: asked.namespace.clone(),
            labels: asked.labels.clone(),
            fields: asked.fields.clone(),
            name: asked.name().map(str::to_owned),
            is_everything: asked.is_same(held),
        }
    }

    /// Returns what a scope wants of all objects.
    pub(crate) fn of(scope: &Scope) -> Self {
        Self {
            is_everything: false,
            ..Self::new(scope, scope)
        }
    }

    /// Returns whether it wants all that the mirror holds.
    pub(crate) fn is_everything(&self) -> bool {
        self.is_everything
    }

    /// Returns whether keys alone decide.
    pub(crate) fn is_by_key(&self) -> bool {
        self.is_everything || (self.labels.is_everything() && self.fields.is_everything())
    }

    /// Returns the one namespace that it is about.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Returns the keys to look at.
    pub(crate) fn within(&self) -> Within<'_> {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => Within::Object(namespace, name),
            (Some(namespace), None) => Within::Namespace(namespace),
            (None, _) => Within::Everything,
        }
    }

    /// Returns whether an object is wanted.
    pub(crate) fn matches(&self, key: &str, traits: &Attributes) -> bool {
        if self.is_everything {
            return true;
        }
        let (namespace, name) = split_key(key);
        self.namespace
            .as_deref()
            .is_none_or(|wanted| wanted == namespace)
            && self.labels.matches(&traits.labels)
            && self.fields.matches(&|field: &str| match field {
                "metadata.name" => Some(Cow::Borrowed(name)),
                "metadata.namespace" => Some(Cow::Borrowed(namespace)),
                _ => traits
                    .fields
                    .iter()
                    .find(|(one, _)| one == field)
                    .map(|(_, value)| Cow::Borrowed(value.as_str())),
            })
    }
}
