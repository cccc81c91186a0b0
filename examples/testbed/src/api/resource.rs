//! What a resource is: its names, its scope, what the server does with it.

use std::sync::Arc;

use super::{builtin, selector::FieldStyle};

/// One served version of one resource.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) is_namespaced: bool,
    /// Whether `/status` exists, and status is then not written through the main path.
    pub(crate) has_status: bool,
    /// Whether a creation keeps the status it brings (nodes do, pods do not).
    pub(crate) keeps_status_on_create: bool,
    pub(crate) has_generation: bool,
    pub(crate) is_custom: bool,
    /// Whether a PUT without resourceVersion overwrites.
    pub(crate) updates_unconditionally: bool,
    /// Whether a PUT of an absent object creates it.
    pub(crate) creates_on_update: bool,
    /// Whether a deletion answers with the object instead of a Status.
    pub(crate) returns_deleted: bool,
    pub(crate) selectable: Vec<String>,
    pub(crate) field_style: FieldStyle,
    pub(crate) columns: Vec<Column>,
}

/// A column of a Table beside the name.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) path: String,
    pub(crate) priority: i64,
}

/// All resources that are served.
#[derive(Debug)]
pub(crate) struct Registry {
    resources: Vec<Arc<Resource>>,
}

// === Resource ===

impl Resource {
    /// Returns `deployments.apps`, or `pods` in the core group.
    pub(crate) fn qualified(&self) -> String {
        qualify(&self.plural, &self.group)
    }

    /// Returns `Deployment.apps`, or `Pod` in the core group.
    pub(crate) fn qualified_kind(&self) -> String {
        qualify(&self.kind, &self.group)
    }

    /// Returns `apps/v1`, or `v1` in the core group.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

fn qualify(word: &str, group: &str) -> String {
    if group.is_empty() {
        word.to_owned()
    } else {
        format!("{word}.{group}")
    }
}

// === Registry ===

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            resources: builtin::resources().into_iter().map(Arc::new).collect(),
        }
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.iter().find(|resource| {
            resource.group == group && resource.version == version && resource.plural == plural
        })
    }

    /// Finds a custom resource in whatever version.
    pub(crate) fn find_any(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.iter().find(|resource| {
            resource.is_custom && resource.group == group && resource.plural == plural
        })
    }

    pub(crate) fn all(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// Tells whether any resource of the group and version is served.
    pub(crate) fn serves(&self, group: &str, version: &str) -> bool {
        self.resources
            .iter()
            .any(|resource| resource.group == group && resource.version == version)
    }

    /// Tells whether the group, in any version, is the server's own.
    pub(crate) fn is_built_in(&self, group: &str) -> bool {
        self.resources
            .iter()
            .any(|resource| resource.group == group && !resource.is_custom)
    }

    /// Puts the versions of a CRD in the place of what it declared before.
    pub(crate) fn replace(&mut self, group: &str, plural: &str, versions: Vec<Resource>) {
        self.resources.retain(|resource| {
            !(resource.is_custom && resource.group == group && resource.plural == plural)
        });
        self.resources.extend(versions.into_iter().map(Arc::new));
    }
}
