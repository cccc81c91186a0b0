//! Strategic merge for the lists that matter: maps merge, known lists merge by their key.
//!
//! Not here: `$retainKeys`.

use serde_json::{Map, Value};

/// Returns the key by which the items of a list are merged; a list without one is replaced.
pub(super) fn merge_key(field: &str, items: &[Value]) -> Option<&'static str> {
    let has = |key: &str| items.iter().any(|item| !item[key].is_null());
    Some(match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets"
        | "secrets"
        | "resourceClaims" => "name",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "ports" if has("containerPort") => "containerPort",
        "ports" if has("port") => "port",
        "conditions" | "addresses" => "type",
        "ownerReferences" => "uid",
        "hostAliases" | "podIPs" | "hostIPs" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        _ => return None,
    })
}

/// Merges a patch into a target.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if fields
        .get("$patch")
        .is_some_and(|directive| directive == "replace")
    {
        *target = Value::Object(without_directives(fields));
        return;
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(into) = target.as_object_mut() else {
        return;
    };
    for (key, value) in fields {
        merge_field(into, fields, key, value);
    }
}

fn merge_field(
    into: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    key: &str,
    value: &Value,
) {
    if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
        let doomed = value.as_array().cloned().unwrap_or_default();
        if let Some(Value::Array(items)) = into.get_mut(list) {
            items.retain(|item| !doomed.contains(item));
        }
        return;
    }
    if key.starts_with('$') {
        return;
    }
    match value {
        Value::Null => {
            into.remove(key);
        }
        Value::Array(items) => {
            let order = patch
                .get(&format!("$setElementOrder/{key}"))
                .and_then(Value::as_array);
            merge_list(into, key, items, order.map(Vec::as_slice));
        }
        Value::Object(fields) if fields.get("$patch").is_some_and(|d| d == "delete") => {
            into.remove(key);
        }
        other => merge(into.entry(key.to_owned()).or_insert(Value::Null), other),
    }
}

fn merge_list(
    into: &mut Map<String, Value>,
    field: &str,
    items: &[Value],
    order: Option<&[Value]>,
) {
    let current = into
        .entry(field.to_owned())
        .or_insert_with(|| Value::Array(Vec::new()));
    let Value::Array(current) = current else {
        *current = Value::Array(items.to_vec());
        return;
    };
    let is_replaced = items.iter().any(|item| {
        item["$patch"] == "replace" && item.as_object().is_some_and(|fields| fields.len() == 1)
    });
    if is_replaced {
        *current = items
            .iter()
            .filter(|item| item["$patch"].is_null())
            .cloned()
            .collect();
        return;
    }
    if matches!(field, "finalizers" | "podCIDRs") {
        for item in items {
            if !current.contains(item) {
                current.push(item.clone());
            }
        }
        return;
    }
    // Deletions name only the key, so the current items too tell which list this is.
    let known: Vec<Value> = items.iter().chain(current.iter()).cloned().collect();
    let Some(key) = merge_key(field, &known) else {
        *current = items.to_vec();
        return;
    };
    let before: Vec<Value> = current.iter().map(|item| item[key].clone()).collect();
    for item in items {
        merge_item(current, key, item);
    }
    let wanted: Vec<Value> = order
        .unwrap_or(items)
        .iter()
        .map(|item| item[key].clone())
        .collect();
    reorder(current, key, &before, &wanted);
}

/// Puts the items in the patch's order, and those that it does not name where they were between them.
fn reorder(current: &mut Vec<Value>, key: &str, before: &[Value], wanted: &[Value]) {
    let place = |list: &[Value], item: &Value| list.iter().position(|key_of| *key_of == item[key]);
    let (mut named, others): (Vec<Value>, Vec<Value>) = current
        .drain(..)
        .partition(|item| place(wanted, item).is_some());
    named.sort_by_key(|item| place(wanted, item));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let is_before = match (others.peek(), named.peek()) {
            (None, None) => return,
            (Some(other), Some(next)) => match (place(before, other), place(before, next)) {
                (Some(other), Some(next)) => other < next,
                _ => false,
            },
            (other, _) => other.is_some(),
        };
        let from = if is_before { &mut others } else { &mut named };
        current.extend(from.next());
    }
}

fn merge_item(current: &mut Vec<Value>, key: &str, item: &Value) {
    let same = |other: &Value| other[key] == item[key];
    if item["$patch"] == "delete" {
        current.retain(|other| !same(other));
        return;
    }
    match current.iter_mut().find(|other| same(other)) {
        Some(other) => merge(other, item),
        None => {
            let mut fresh = Value::Null;
            merge(&mut fresh, item);
            current.push(fresh);
        }
    }
}

fn without_directives(fields: &Map<String, Value>) -> Map<String, Value> {
    fields
        .iter()
        .filter(|(key, _)| !key.starts_with('$'))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn known_lists_merge_by_key_and_others_are_replaced() {
        let table = [
            (
                json!({"conditions": [{"type": "A", "status": "x"}, {"type": "B"}]}),
                json!({"conditions": [{"type": "A", "status": "y"}, {"type": "C"}]}),
                json!({"conditions": [{"type": "A", "status": "y"}, {"type": "C"}, {"type": "B"}]}),
            ),
            (
                json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}),
                json!({"containers": [{"name": "b", "$patch": "delete"}, {"name": "a", "image": "2"}]}),
                json!({"containers": [{"name": "a", "image": "2"}]}),
            ),
            (
                json!({"args": ["a"]}),
                json!({"args": ["b"]}),
                json!({"args": ["b"]}),
            ),
            (
                json!({"finalizers": ["a"]}),
                json!({"finalizers": ["b"]}),
                json!({"finalizers": ["a", "b"]}),
            ),
            (
                json!({"finalizers": ["a", "b"]}),
                json!({"$deleteFromPrimitiveList/finalizers": ["a"]}),
                json!({"finalizers": ["b"]}),
            ),
            (
                json!({"ports": [{"port": 1}]}),
                json!({"$setElementOrder/ports": [{"port": 1}], "ports": [{"port": 1, "name": "x"}]}),
                json!({"ports": [{"port": 1, "name": "x"}]}),
            ),
            (
                json!({"m": {"a": 1}}),
                json!({"m": {"$patch": "replace", "b": 1}}),
                json!({"m": {"b": 1}}),
            ),
            (
                json!({"m": {"a": 1}}),
                json!({"m": {"a": null, "b": 2}}),
                json!({"m": {"b": 2}}),
            ),
        ];
        for (mut target, patch, expected) in table {
            merge(&mut target, &patch);
            assert_eq!(target, expected, "{patch}");
        }
    }
}
