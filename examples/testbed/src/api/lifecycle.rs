//! What the server itself decides about an object: the fields it owns, and what a writer may not touch.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    resource::Resource,
    state::{format_time, meta},
    status::ApiError,
};

/// Fields of the metadata that only the server writes.
const OWNED: [&str; 6] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "name",
];

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
    /// `/finalize` of a namespace.
    Finalize,
}

/// Checks that a body is an object of this kind, and says so in it.
pub(crate) fn check_kind(resource: &Resource, body: &mut Value) -> Result<(), ApiError> {
    let text = body.to_string();
    let Some(fields) = body.as_object_mut() else {
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error ({text})",
            resource.kind
        )));
    };
    let given = |field: &str| {
        fields
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (kind, version) = (given("kind").to_owned(), given("apiVersion").to_owned());
    if resource.is_custom && kind.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): Object 'Kind' is missing in '{text}' ({text})",
            resource.kind
        )));
    }
    let expected = resource.api_version();
    let is_right =
        (kind.is_empty() || kind == resource.kind) && (version.is_empty() || version == expected);
    if !is_right {
        return Err(ApiError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}",
            resource.kind
        )));
    }
    fields.insert("kind".into(), resource.kind.clone().into());
    fields.insert("apiVersion".into(), expected.into());
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    let metadata = &*metadata;
    let is_map = |value: &Value| value.is_object() || value.is_null();
    let is_whole = metadata.is_object()
        && ["labels", "annotations"]
            .iter()
            .all(|field| is_map(&metadata[*field]))
        && ["spec", "status", "data", "stringData"]
            .iter()
            .all(|field| resource.is_custom || fields.get(*field).is_none_or(is_map));
    if is_whole {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "{} in version {:?} cannot be handled as a {}: json: cannot unmarshal",
        resource.kind, resource.version, resource.kind
    )))
}

/// Refuses what no patch may change: who the object is, and what holds it once it is deleted.
pub(crate) fn check_patched(resource: &Resource, old: &Value, new: &Value) -> Result<(), ApiError> {
    let kind = (resource.group.as_str(), resource.kind.as_str());
    let name = meta(old, "name");
    for field in ["uid", "deletionTimestamp"] {
        let (asked, current) = (meta(new, field), meta(old, field));
        if !asked.is_empty() && asked != current {
            let field = format!("metadata.{field}");
            let message = format!("Invalid value: {asked:?}: field is immutable");
            return Err(ApiError::invalid(
                kind,
                name,
                &field,
                "FieldValueInvalid",
                &message,
            ));
        }
    }
    if meta(old, "deletionTimestamp").is_empty() {
        return Ok(());
    }
    let finalizers = |object: &Value| -> Vec<String> {
        let list = object["metadata"]["finalizers"].as_array();
        list.into_iter()
            .flatten()
            .map(ToString::to_string)
            .collect()
    };
    let known = finalizers(old);
    let added: Vec<String> = finalizers(new)
        .into_iter()
        .filter(|item| !known.contains(item))
        .collect();
    if added.is_empty() {
        return Ok(());
    }
    let message = format!(
        "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.join(", ")
    );
    Err(ApiError::invalid(
        kind,
        name,
        "metadata.finalizers",
        "FieldValueForbidden",
        &message,
    ))
}

/// Gives a new object what the server gives it: identity, generation, a first status.
pub(crate) fn prepare_create(resource: &Resource, object: &mut Value, uid: String, now: Timestamp) {
    let metadata = &mut object["metadata"];
    for field in OWNED.iter().filter(|field| **field != "name") {
        remove(metadata, field);
    }
    remove(metadata, "resourceVersion");
    remove(metadata, "selfLink");
    metadata["uid"] = uid.into();
    metadata["creationTimestamp"] = format_time(now).into();
    if resource.has_generation || resource.is_custom {
        metadata["generation"] = 1.into();
    }
    drop_empty(metadata);
    if resource.has_status && !resource.keeps_status_on_create {
        remove(object, "status");
    }
}

/// Joins an update with what may not change, and counts the generation.
pub(crate) fn prepare_update(resource: &Resource, old: &Value, new: &mut Value, part: Part) {
    match part {
        Part::Main => {
            if resource.has_status {
                copy(old, new, "status");
            }
            if resource.kind == "Namespace" {
                copy(old, new, "spec");
            }
        }
        Part::Status => {
            let status = new["status"].take();
            let metadata = new["metadata"].take();
            *new = old.clone();
            if status.is_null() {
                remove(new, "status");
            } else {
                new["status"] = status;
            }
            if !resource.is_custom {
                // Built-in kinds let annotations and labels through; custom resources only the status.
                new["metadata"] = metadata;
            }
        }
        Part::Finalize => {
            let finalizers = new["spec"]["finalizers"].take();
            *new = old.clone();
            new["spec"]["finalizers"] = finalizers;
        }
    }
    let metadata = &mut new["metadata"];
    for field in OWNED.iter().chain(&["namespace", "resourceVersion"]) {
        copy(&old["metadata"], metadata, field);
    }
    remove(metadata, "selfLink");
    if metadata["managedFields"].is_null() {
        copy(&old["metadata"], metadata, "managedFields");
    }
    drop_empty(metadata);
    if is_new_generation(resource, old, new) {
        bump_generation(new);
    }
}

/// Counts one generation up, where the kind has any.
pub(crate) fn bump_generation(object: &mut Value) {
    if let Some(generation) = object["metadata"]["generation"].as_i64() {
        object["metadata"]["generation"] = (generation + 1).into();
    }
}

/// Marks an object as being deleted, `grace` seconds from now.
pub(crate) fn mark_deleted(object: &mut Value, grace: i64, now: Timestamp) {
    let at = Timestamp::from_second(now.as_second().saturating_add(grace)).unwrap_or(now);
    let metadata = &mut object["metadata"];
    metadata["deletionTimestamp"] = format_time(at).into();
    metadata["deletionGracePeriodSeconds"] = grace.into();
    bump_generation(object);
}

/// Tells whether nothing holds a deleted object any more.
pub(crate) fn is_gone(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let is_marked = !metadata["deletionTimestamp"].is_null();
    let grace = metadata["deletionGracePeriodSeconds"].as_i64();
    let names_any = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    let is_held = grace.is_some_and(|seconds| seconds > 0)
        || names_any(&metadata["finalizers"])
        || (object["kind"] == "Namespace" && names_any(&object["spec"]["finalizers"]));
    is_marked && !is_held
}

/// Checks a name as the server does for most kinds: an RFC 1123 subdomain.
pub(crate) fn check_name(resource: &Resource, name: &str) -> Result<(), ApiError> {
    let allows_any = resource.group == "rbac.authorization.k8s.io";
    let is_word = |word: &str| {
        let is_edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        word.starts_with(is_edge)
            && word.ends_with(is_edge)
            && word.chars().all(|c| is_edge(c) || c == '-')
    };
    let kind = (resource.group.as_str(), resource.kind.as_str());
    if resource.kind == "Namespace" {
        if name.len() <= 63 && is_word(name) {
            return Ok(());
        }
        let message = format!(
            "Invalid value: {name:?}: a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
             and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        );
        return Err(ApiError::invalid(
            kind,
            name,
            "metadata.name",
            "FieldValueInvalid",
            &message,
        ));
    }
    if allows_any || (name.len() <= 253 && name.split('.').all(is_word)) {
        return Ok(());
    }
    let message = format!(
        "Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
         and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    );
    Err(ApiError::invalid(
        kind,
        name,
        "metadata.name",
        "FieldValueInvalid",
        &message,
    ))
}

fn is_new_generation(resource: &Resource, old: &Value, new: &Value) -> bool {
    if !resource.is_custom {
        return resource.has_generation && old["spec"] != new["spec"];
    }
    let content = |object: &Value| -> Map<String, Value> {
        let fields = object.as_object().cloned().unwrap_or_default();
        fields
            .into_iter()
            .filter(|(key, _)| {
                key != "metadata"
                    && key != "apiVersion"
                    && !(key == "status" && resource.has_status)
            })
            .collect()
    };
    content(old) != content(new)
}

fn copy(from: &Value, to: &mut Value, field: &str) {
    match &from[field] {
        Value::Null => remove(to, field),
        value => to[field] = value.clone(),
    }
}

pub(crate) fn remove(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}

/// Empty maps and lists of the metadata are not stored.
fn drop_empty(metadata: &mut Value) {
    if let Some(fields) = metadata.as_object_mut() {
        fields.retain(|_, value| match value {
            Value::Null => false,
            Value::Object(map) => !map.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::String(text) => !text.is_empty(),
            _ => true,
        });
    }
}

/// Refuses an update of another object than the one at this name, or of an older version of it.
pub(crate) fn check_update(resource: &Resource, old: &Value, new: &Value) -> Result<(), ApiError> {
    let name = meta(old, "name");
    let (asked, current) = (meta(new, "uid"), meta(old, "uid"));
    if !asked.is_empty() && asked != current {
        let why = format!(
            "Precondition failed: UID in precondition: {asked}, UID in object meta: {current}"
        );
        return Err(ApiError::conflict(resource, name, &why));
    }
    let asked = meta(new, "resourceVersion");
    if !asked.is_empty() && asked != "0" && asked != meta(old, "resourceVersion") {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(ApiError::conflict(resource, name, why));
    }
    Ok(())
}
