//! Kubernetes' patches, as far as a status needs them.
//!
//! Sources: RFC 7386, and `k8s.io/apimachinery/pkg/util/strategicpatch` with the `patchMergeKey` tags of
//! `k8s.io/api/core/v1/types.go`.

use serde_json::{Map, Value};

/// The lists of a Pod's and a Node's status and metadata that are merged, and by which field; others are replaced.
const MERGE_KEYS: [(&str, &str); 6] = [
    ("addresses", "type"),
    ("conditions", "type"),
    ("hostIPs", "ip"),
    ("ownerReferences", "uid"),
    ("podIPs", "ip"),
    ("resourceClaimStatuses", "name"),
];

const DIRECTIVE: &str = "$patch";
const ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const RETAIN: &str = "$retainKeys";

/// Merges by RFC 7386.
pub(super) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    let fields = as_map(target);
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(&name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// Merges as Kubernetes does, lists by their keys.
pub(super) fn strategic(target: &mut Value, patch: Value) {
    let Value::Object(mut patch) = patch else {
        *target = patch;
        return;
    };
    match patch.remove(DIRECTIVE).as_ref().and_then(Value::as_str) {
        Some("delete") => return *target = Value::Null,
        Some("replace") => return *target = Value::Object(patch),
        _ => {}
    }
    let fields = as_map(target);
    if let Some(Value::Array(kept)) = patch.remove(RETAIN) {
        fields.retain(|name, _| kept.iter().any(|one| one == name));
    }
    let (directives, values): (Vec<_>, Vec<_>) = patch
        .into_iter()
        .partition(|(name, _)| name.starts_with('$'));
    for (name, value) in values {
        match value {
            Value::Null => {
                fields.remove(&name);
            }
            Value::Array(elements) => {
                let list = fields.entry(name.clone()).or_insert(Value::Null);
                merge_list(&name, list, elements);
            }
            value => {
                let field = fields.entry(name).or_insert(Value::Null);
                strategic(field, value);
            }
        }
    }
    for (name, value) in directives {
        follow(fields, &name, &value);
    }
    fields.retain(|_, value| !value.is_null());
}

fn follow(fields: &mut Map<String, Value>, directive: &str, value: &Value) {
    let Value::Array(named) = value else { return };
    if let Some(list) = directive.strip_prefix(DELETE_PRIMITIVES)
        && let Some(Value::Array(elements)) = fields.get_mut(list)
    {
        elements.retain(|element| !named.contains(element));
    }
    if let Some(list) = directive.strip_prefix(ORDER)
        && let Some(Value::Array(elements)) = fields.get_mut(list)
    {
        let key = merge_key(list);
        let identity = |element: &Value| key.map_or(Some(element), |key| element.get(key)).cloned();
        let order: Vec<Option<Value>> = named.iter().map(identity).collect();
        elements.sort_by_key(|element| {
            let place = order.iter().position(|one| *one == identity(element));
            place.unwrap_or(usize::MAX)
        });
    }
}

fn merge_list(name: &str, list: &mut Value, mut patch: Vec<Value>) {
    let Some(key) = merge_key(name) else {
        *list = Value::Array(patch);
        return;
    };
    let replaces =
        |element: &Value| element.get(DIRECTIVE).and_then(Value::as_str) == Some("replace");
    let elements = as_list(list);
    if patch.iter().any(replaces) {
        patch.retain(|element| !replaces(element));
        *elements = patch;
        return;
    }
    for element in patch {
        let place = elements
            .iter()
            .position(|one| one.get(key).is_some() && one.get(key) == element.get(key));
        let is_deleted = element.get(DIRECTIVE).and_then(Value::as_str) == Some("delete");
        match (place, is_deleted) {
            (Some(place), true) => {
                elements.remove(place);
            }
            (None, true) => {}
            (Some(place), false) => strategic(&mut elements[place], element),
            (None, false) => {
                let mut new = Value::Null;
                strategic(&mut new, element);
                elements.push(new);
            }
        }
    }
}

fn merge_key(list: &str) -> Option<&'static str> {
    MERGE_KEYS
        .iter()
        .find(|(name, _)| *name == list)
        .map(|(_, key)| *key)
}

fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made one above")
}

fn as_list(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().expect("made one above")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_with_a_key_are_merged_and_others_replaced() {
        let mut status = json!({
            "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "1"},
                {"type": "PodScheduled", "status": "True"},
                {"type": "cloud.example/own", "status": "True"},
            ],
            "containerStatuses": [{"name": "a", "ready": true}, {"name": "b"}],
        });
        strategic(
            &mut status,
            json!({
                "$setElementOrder/conditions": [{"type": "PodScheduled"}, {"type": "Ready"}],
                "$setElementOrder/podIPs": [{"ip": "10.0.0.2"}],
                "podIP": "10.0.0.2",
                "podIPs": [{"ip": "10.0.0.2"}, {"$patch": "delete", "ip": "10.0.0.1"}],
                "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [{"name": "a", "ready": false}],
                "message": null,
            }),
        );
        assert_eq!(
            status,
            json!({
                "phase": "Running", "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}],
                "conditions": [
                    {"type": "PodScheduled", "status": "True"},
                    {"type": "Ready", "status": "False", "lastTransitionTime": "1"},
                    {"type": "cloud.example/own", "status": "True"},
                ],
                "containerStatuses": [{"name": "a", "ready": false}],
            })
        );
    }

    #[test]
    fn the_addresses_of_a_pods_host_are_merged() {
        let mut status = json!({"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}]});
        let second = json!({"hostIPs": [{"ip": "fd00::1"}]});
        strategic(&mut status, second);
        assert_eq!(
            status["hostIPs"],
            json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]),
            "a second family does not replace the first"
        );
        let moved = json!({
            "$setElementOrder/hostIPs": [{"ip": "10.0.0.2"}, {"ip": "fd00::1"}],
            "hostIPs": [{"ip": "10.0.0.2"}, {"$patch": "delete", "ip": "10.0.0.1"}],
        });
        strategic(&mut status, moved);
        assert_eq!(
            status["hostIPs"],
            json!([{"ip": "10.0.0.2"}, {"ip": "fd00::1"}])
        );
    }

    #[test]
    fn directives_are_followed_and_never_kept() {
        for (mut target, patch, expected) in [
            (
                json!({"a": 1, "b": 2}),
                json!({"$patch": "replace", "c": 3}),
                json!({"c": 3}),
            ),
            (
                json!({"a": {"x": 1}}),
                json!({"a": {"$patch": "delete"}}),
                json!({}),
            ),
            (
                json!({"a": 1, "b": 2}),
                json!({"$retainKeys": ["b", "c"], "c": 3}),
                json!({"b": 2, "c": 3}),
            ),
            (
                json!({"finalizers": ["a", "b"]}),
                json!({"$deleteFromPrimitiveList/finalizers": ["a"]}),
                json!({"finalizers": ["b"]}),
            ),
            (
                json!({"conditions": [{"type": "A"}]}),
                json!({"conditions": [{"$patch": "replace"}, {"type": "B"}]}),
                json!({"conditions": [{"type": "B"}]}),
            ),
            (
                json!({"a": 1}),
                json!({"b": {"c": {"$patch": "merge", "d": 1}}}),
                json!({"a": 1, "b": {"c": {"d": 1}}}),
            ),
        ] {
            strategic(&mut target, patch);
            assert_eq!(target, expected);
        }
    }

    #[test]
    fn a_merge_patch_is_that_of_the_rfc() {
        for (mut target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
        ] {
            merge(&mut target, patch);
            assert_eq!(target, expected);
        }
    }
}
