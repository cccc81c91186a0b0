//! Create, update, patch (and `delete`): each a function of the state, in one step under its lock.

mod delete;

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    crd, defaults,
    lifecycle::{self, Part},
    patch::{PatchKind, apply},
    request::{Query, Target},
    resource::Resource,
    state::{State, format_time, meta},
    status::ApiError,
    store::Key,
};

/// One write: what, where, when, and whether for good.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    pub(crate) resource: Arc<Resource>,
    pub(crate) target: &'a Target,
    pub(crate) query: &'a Query,
    pub(crate) now: Timestamp,
    pub(crate) is_dry: bool,
    pub(crate) ca_pem: &'a str,
}

/// What a write answers with.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) code: StatusCode,
    pub(crate) object: Arc<Value>,
}

impl<'a> Write<'a> {
    /// Reads `dryRun`; `kind` names the options in the error.
    pub(crate) fn is_dry(query: &Query, kind: &str) -> Result<bool, ApiError> {
        match query.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(ApiError::invalid_option(
                kind,
                "dryRun",
                "FieldValueNotSupported",
                &format!("Unsupported value: [{other:?}]: supported values: \"All\""),
            )),
        }
    }

    pub(super) fn key(&self, state: &mut State, name: &str) -> Key {
        state.key(&self.resource, self.target.namespace.as_deref(), name)
    }

    fn part(&self) -> Part {
        match self.target.subresource.as_deref() {
            Some("status") => Part::Status,
            Some("finalize") => Part::Finalize,
            _ => Part::Main,
        }
    }

    // === Create ===

    pub(crate) fn create(&self, state: &mut State, mut body: Value) -> Result<Written, ApiError> {
        let resource = &self.resource;
        lifecycle::check_kind(resource, &mut body)?;
        self.place(&mut body)?;
        if !meta(&body, "resourceVersion").is_empty() {
            let message = "resourceVersion should not be set on objects to be created";
            return Err(ApiError::internal(message));
        }
        self.name_it(state, &mut body)?;
        let name = meta(&body, "name").to_owned();
        lifecycle::check_name(resource, &name)?;
        self.check_namespace(state, &name)?;
        let key = self.key(state, &name);
        if state.store.get(&key).is_some() {
            return Err(ApiError::already_exists(resource, &name));
        }
        lifecycle::prepare_create(resource, &mut body, state.next_uid(), self.now);
        let serial = state.next_serial();
        if !resource.is_custom {
            defaults::apply(&resource.kind, &mut body, serial);
        }
        let object = self.store(state, key, body)?;
        if resource.kind == "Namespace" && !self.is_dry {
            state.seed_root_certificate(&name, self.ca_pem, self.now);
        }
        Ok(Written {
            code: StatusCode::CREATED,
            object,
        })
    }

    /// Sets the namespace of the path, and refuses another one.
    fn place(&self, body: &mut Value) -> Result<(), ApiError> {
        let given = meta(body, "namespace");
        match &self.target.namespace {
            Some(namespace) if given.is_empty() || given == namespace => {
                body["metadata"]["namespace"] = namespace.as_str().into();
                Ok(())
            }
            Some(_) => Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            )),
            None => {
                lifecycle::remove(&mut body["metadata"], "namespace");
                Ok(())
            }
        }
    }

    fn name_it(&self, state: &mut State, body: &mut Value) -> Result<(), ApiError> {
        if !meta(body, "name").is_empty() {
            return Ok(());
        }
        let prefix = meta(body, "generateName").to_owned();
        if prefix.is_empty() {
            let kind = (self.resource.group.as_str(), self.resource.kind.as_str());
            return Err(ApiError::invalid(
                kind,
                "",
                "metadata.name",
                "FieldValueRequired",
                "Required value: name or generateName is required",
            ));
        }
        let kept: String = prefix.chars().take(58).collect();
        body["metadata"]["name"] = format!("{kept}{}", state.next_suffix()).into();
        Ok(())
    }

    fn check_namespace(&self, state: &mut State, name: &str) -> Result<(), ApiError> {
        let Some(namespace) = &self.target.namespace else {
            return Ok(());
        };
        let family = state.family("", "namespaces");
        let Some(object) = state.store.get(&Key::new(&family, None, namespace)) else {
            return Err(ApiError::namespace_not_found(namespace));
        };
        if meta(object, "deletionTimestamp").is_empty() {
            return Ok(());
        }
        Err(ApiError::terminating(&self.resource, name, namespace))
    }

    // === Update ===

    pub(crate) fn update(&self, state: &mut State, mut body: Value) -> Result<Written, ApiError> {
        let resource = &self.resource;
        lifecycle::check_kind(resource, &mut body)?;
        self.check_same_name(&mut body)?;
        self.place(&mut body)?;
        let name = self.target.name();
        let key = self.key(state, name);
        let Some(old) = state.store.get(&key).cloned() else {
            if resource.creates_on_update && self.part() == Part::Main {
                lifecycle::remove(&mut body["metadata"], "resourceVersion");
                return self.create(state, body);
            }
            return Err(ApiError::not_found(resource, name));
        };
        let version = meta(&body, "resourceVersion");
        if !resource.updates_unconditionally && matches!(version, "" | "0") {
            return Err(ApiError::invalid(
                (&resource.group, &resource.plural),
                name,
                "metadata.resourceVersion",
                "FieldValueInvalid",
                "Invalid value: 0: must be specified for an update",
            ));
        }
        self.replace(state, key, &old, body)
    }

    fn check_same_name(&self, body: &mut Value) -> Result<(), ApiError> {
        let (name, url) = (meta(body, "name"), self.target.name());
        if name.is_empty() {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({url} based on URL) was undeterminable: name must be provided"
            )));
        }
        if name == url {
            return Ok(());
        }
        Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({url})"
        )))
    }

    fn replace(
        &self,
        state: &mut State,
        key: Key,
        old: &Arc<Value>,
        mut new: Value,
    ) -> Result<Written, ApiError> {
        lifecycle::check_update(&self.resource, old, &new)?;
        match self.resource.kind.as_str() {
            "Secret" => defaults::secret(&mut new),
            "ConfigMap" => defaults::drop_empty_data(&mut new),
            _ => {}
        }
        lifecycle::prepare_update(&self.resource, old, &mut new, self.part());
        if lifecycle::is_gone(&new) {
            if !self.is_dry {
                self.remove(state, &key);
            }
            return Ok(Written {
                code: StatusCode::OK,
                object: Arc::new(new),
            });
        }
        if new == **old {
            return Ok(Written {
                code: StatusCode::OK,
                object: old.clone(),
            });
        }
        let object = self.store(state, key, new)?;
        Ok(Written {
            code: StatusCode::OK,
            object,
        })
    }

    // === Patch ===

    pub(crate) fn patch(
        &self,
        state: &mut State,
        kind: PatchKind,
        patch: &Value,
    ) -> Result<Written, ApiError> {
        let name = self.target.name();
        let key = self.key(state, name);
        if kind == PatchKind::Apply {
            return self.apply(state, key, patch);
        }
        let Some(old) = state.store.get(&key).cloned() else {
            return Err(ApiError::not_found(&self.resource, name));
        };
        let mut new = kind.patch(&old, patch)?;
        self.settle(&mut new)?;
        lifecycle::check_patched(&self.resource, &old, &new)?;
        self.replace(state, key, &old, new)
    }

    fn apply(&self, state: &mut State, key: Key, patch: &Value) -> Result<Written, ApiError> {
        let Some(manager) = self.query.get("fieldManager") else {
            return Err(ApiError::invalid_option(
                "PatchOptions",
                "fieldManager",
                "FieldValueRequired",
                "Required value: is required for apply patch",
            ));
        };
        let mut patch = patch.clone();
        lifecycle::check_kind(&self.resource, &mut patch)?;
        self.check_same_name(&mut patch)?;
        let now = format_time(self.now);
        let applier = apply::Applier {
            manager,
            is_forced: self.query.is_set("force"),
            now: &now,
            subresource: self.target.subresource.as_deref().unwrap_or_default(),
        };
        let Some(old) = state.store.get(&key).cloned() else {
            if self.part() != Part::Main {
                return Err(ApiError::not_found(&self.resource, self.target.name()));
            }
            let empty = json!({"metadata": {}});
            return self.create(state, apply::apply(&empty, &patch, &applier)?);
        };
        let mut new = apply::apply(&old, &patch, &applier)?;
        self.settle(&mut new)?;
        if is_same_but_times(&old, &new) {
            return Ok(Written {
                code: StatusCode::OK,
                object: old,
            });
        }
        self.replace(state, key, &old, new)
    }

    /// A patched object must still be one of its kind, name and place.
    fn settle(&self, new: &mut Value) -> Result<(), ApiError> {
        lifecycle::check_kind(&self.resource, new)?;
        self.check_same_name(new)?;
        self.place(new)
    }

    // === The store, and what follows from a CRD in it ===

    pub(super) fn store(
        &self,
        state: &mut State,
        key: Key,
        mut object: Value,
    ) -> Result<Arc<Value>, ApiError> {
        let is_crd = self.resource.kind == "CustomResourceDefinition";
        if is_crd {
            crd::check(&object)?;
            crd::establish(&mut object, &format_time(self.now));
        }
        if self.is_dry {
            return Ok(Arc::new(object));
        }
        let stored = state.store.put(key, object);
        if is_crd {
            let (group, plural) = crd::group_and_plural(&stored);
            let family = state.family(group, plural);
            if state.registry.find_any(group, plural).is_none() {
                state.open_window(&family);
            }
            state
                .registry
                .replace(group, plural, crd::resources(&stored));
        }
        Ok(stored)
    }

    pub(super) fn remove(&self, state: &mut State, key: &Key) -> Option<Arc<Value>> {
        let last = state.store.remove(key)?;
        if self.resource.kind == "CustomResourceDefinition" {
            let (group, plural) = crd::group_and_plural(&last);
            let family = state.family(group, plural);
            for (path, _) in state.store.list(&family, None) {
                state.store.remove(&Key {
                    family: family.clone(),
                    path,
                });
            }
            state.registry.replace(group, plural, Vec::new());
        }
        Some(last)
    }
}

/// A repeated apply changes nothing but the time of its record: that is no write.
fn is_same_but_times(old: &Value, new: &Value) -> bool {
    let timeless = |object: &Value| {
        let mut object = object.clone();
        let entries = object["metadata"]["managedFields"].as_array_mut();
        for entry in entries.into_iter().flatten() {
            lifecycle::remove(entry, "time");
        }
        object
    };
    timeless(old) == timeless(new)
}
