//! Server-side apply, minimal: merge, ownership of map fields by manager, conflicts, removal of
//! what a manager no longer applies.
//!
//! Lists are owned as a whole (built-in lists with a known key still merge by it); ownership is not
//! recorded for ordinary updates, so only apply conflicts with apply.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::PatchKind;
use crate::api::status::ApiError;

/// Who applies.
#[derive(Debug)]
pub(crate) struct Applier<'a> {
    pub(crate) manager: &'a str,
    pub(crate) is_forced: bool,
    pub(crate) now: &'a str,
    pub(crate) subresource: &'a str,
}

type Path = Vec<String>;

/// Joins an applied configuration with the object, and records who owns what.
pub(crate) fn apply(
    object: &Value,
    applied: &Value,
    applier: &Applier<'_>,
) -> Result<Value, ApiError> {
    let mut entries = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let own: BTreeSet<Path> = leaves(applied);
    let before = take_own(&mut entries, applier);
    resolve_conflicts(object, applied, &own, &mut entries, applier)?;

    let mut result = PatchKind::Apply.patch(object, applied)?;
    let others: BTreeSet<Path> = entries.iter().flat_map(|e| owned(&e["fieldsV1"])).collect();
    for path in before
        .difference(&own)
        .filter(|path| !others.contains(*path))
    {
        remove_path(&mut result, path);
    }
    entries.push(entry(applied, &own, applier));
    result["metadata"]["managedFields"] = Value::Array(entries);
    Ok(result)
}

fn is_own(entry: &Value, applier: &Applier<'_>) -> bool {
    entry["manager"] == applier.manager
        && entry["operation"] == "Apply"
        && entry["subresource"].as_str().unwrap_or_default() == applier.subresource
}

fn take_own(entries: &mut Vec<Value>, applier: &Applier<'_>) -> BTreeSet<Path> {
    let before = entries.iter().find(|entry| is_own(entry, applier));
    let paths = before
        .map(|entry| owned(&entry["fieldsV1"]))
        .unwrap_or_default();
    entries.retain(|entry| !is_own(entry, applier));
    paths
}

fn resolve_conflicts(
    object: &Value,
    applied: &Value,
    own: &BTreeSet<Path>,
    entries: &mut Vec<Value>,
    applier: &Applier<'_>,
) -> Result<(), ApiError> {
    let changed: BTreeSet<&Path> = own
        .iter()
        .filter(|path| at(object, path) != at(applied, path))
        .collect();
    let mut causes = Vec::new();
    for entry in entries.iter_mut() {
        let theirs = owned(&entry["fieldsV1"]);
        let contested: Vec<&Path> = theirs
            .iter()
            .filter(|path| changed.contains(path))
            .collect();
        for path in &contested {
            let manager = entry["manager"].as_str().unwrap_or_default();
            causes.push(json!({
                "reason": "FieldManagerConflict",
                "message": format!("conflict with {manager:?}"),
                "field": format!(".{}", path.join(".")),
            }));
        }
        if !contested.is_empty() {
            let kept = theirs.iter().filter(|path| !changed.contains(path));
            entry["fieldsV1"] = fields_of(kept);
        }
    }
    if !causes.is_empty() && !applier.is_forced {
        return Err(ApiError::apply_conflict(causes));
    }
    entries.retain(|entry| entry["fieldsV1"] != json!({}));
    Ok(())
}

fn entry(applied: &Value, own: &BTreeSet<Path>, applier: &Applier<'_>) -> Value {
    let mut entry = json!({
        "manager": applier.manager,
        "operation": "Apply",
        "apiVersion": applied["apiVersion"],
        "time": applier.now,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields_of(own.iter()),
    });
    if !applier.subresource.is_empty() {
        entry["subresource"] = applier.subresource.into();
    }
    entry
}

/// Lists the paths of everything that is not a map; identity is nobody's.
fn leaves(applied: &Value) -> BTreeSet<Path> {
    let mut paths = BTreeSet::new();
    let mut stack = vec![(Path::new(), applied)];
    while let Some((path, value)) = stack.pop() {
        match value {
            Value::Object(fields) if !fields.is_empty() || path.is_empty() => {
                for (key, value) in fields {
                    let mut path = path.clone();
                    path.push(key.clone());
                    stack.push((path, value));
                }
            }
            _ => {
                paths.insert(path);
            }
        }
    }
    paths.retain(|path| !is_identity(path));
    paths
}

fn is_identity(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(
        path.as_slice(),
        ["apiVersion" | "kind"]
            | [
                "metadata",
                "name" | "namespace" | "uid" | "resourceVersion" | "creationTimestamp"
            ]
    )
}

fn fields_of<'a>(paths: impl Iterator<Item = &'a Path>) -> Value {
    let mut root = Value::Object(Map::new());
    for path in paths {
        let leaf = path.iter().fold(&mut root, |at, key| {
            let slot = &mut at[format!("f:{key}")];
            if slot.is_null() {
                *slot = Value::Object(Map::new());
            }
            slot
        });
        debug_assert!(leaf.is_object());
    }
    root
}

fn owned(fields: &Value) -> BTreeSet<Path> {
    let mut paths = BTreeSet::new();
    let mut stack = vec![(Path::new(), fields)];
    while let Some((path, value)) = stack.pop() {
        let children: Vec<_> = value
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.strip_prefix("f:")?, value)))
            .collect();
        if children.is_empty() && !path.is_empty() {
            paths.insert(path);
            continue;
        }
        for (key, value) in children {
            let mut path = path.clone();
            path.push(key.to_owned());
            stack.push((path, value));
        }
    }
    paths
}

fn at<'a>(object: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(object, |at, key| &at[key])
}

fn remove_path(object: &mut Value, path: &[String]) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    let parent = parents.iter().try_fold(object, |at, key| at.get_mut(key));
    if let Some(fields) = parent.and_then(Value::as_object_mut) {
        fields.remove(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by<'a>(manager: &'a str, is_forced: bool) -> Applier<'a> {
        Applier {
            manager,
            is_forced,
            now: "2026-01-01T00:00:00Z",
            subresource: "",
        }
    }

    #[test]
    fn a_manager_removes_what_it_no_longer_applies() {
        let object = json!({"metadata": {}, "data": {"other": "x"}});
        let first = apply(
            &object,
            &json!({"data": {"a": "1", "b": "2"}}),
            &by("m", false),
        )
        .unwrap();
        let second = apply(&first, &json!({"data": {"a": "1"}}), &by("m", false)).unwrap();
        assert_eq!(second["data"], json!({"a": "1", "other": "x"}));
    }

    #[test]
    fn another_managers_field_is_a_conflict_unless_forced() {
        let object = json!({"metadata": {}});
        let first = apply(&object, &json!({"data": {"a": "1"}}), &by("m1", false)).unwrap();
        let refused = apply(&first, &json!({"data": {"a": "2"}}), &by("m2", false)).unwrap_err();
        assert_eq!(refused.code, 409);
        let forced = apply(&first, &json!({"data": {"a": "2"}}), &by("m2", true)).unwrap();
        assert_eq!(forced["data"]["a"], "2");
        assert_eq!(
            forced["metadata"]["managedFields"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        let shared = apply(&first, &json!({"data": {"a": "1"}}), &by("m2", false)).unwrap();
        assert_eq!(
            shared["metadata"]["managedFields"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
    }
}
