//! JSON patch, RFC 6902.

use serde_json::Value;

use crate::api::status::ApiError;

/// Applies all operations, or none: the caller drops what is half done.
pub(super) fn apply(target: &mut Value, patch: &Value) -> Result<(), ApiError> {
    let Some(operations) = patch.as_array() else {
        return Err(ApiError::bad_request(
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ));
    };
    for operation in operations {
        step(target, operation).ok_or_else(ApiError::unprocessable_patch)?;
    }
    Ok(())
}

fn step(target: &mut Value, operation: &Value) -> Option<()> {
    let path = operation["path"].as_str()?;
    match operation["op"].as_str()? {
        "add" => add(target, path, operation.get("value")?.clone()),
        "remove" => remove(target, path).map(|_| ()),
        "replace" => {
            *find(target, path)? = operation.get("value")?.clone();
            Some(())
        }
        "move" => {
            let value = remove(target, operation["from"].as_str()?)?;
            add(target, path, value)
        }
        "copy" => {
            let value = find(target, operation["from"].as_str()?)?.clone();
            add(target, path, value)
        }
        "test" => (find(target, path)? == operation.get("value")?).then_some(()),
        _ => None,
    }
}

fn find<'a>(target: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    target.pointer_mut(path)
}

fn split(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *target = value;
        return Some(());
    }
    let (parent, last) = split(path)?;
    match find(target, parent)? {
        Value::Object(fields) => {
            fields.insert(last, value);
        }
        Value::Array(items) => {
            let at = if last == "-" {
                items.len()
            } else {
                last.parse().ok()?
            };
            (at <= items.len()).then(|| items.insert(at, value))?;
        }
        _ => return None,
    }
    Some(())
}

fn remove(target: &mut Value, path: &str) -> Option<Value> {
    let (parent, last) = split(path)?;
    match find(target, parent)? {
        Value::Object(fields) => fields.remove(&last),
        Value::Array(items) => {
            let at: usize = last.parse().ok()?;
            (at < items.len()).then(|| items.remove(at))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_operation_does_what_the_rfc_says() {
        let before = json!({"a": {"b/c": 1}, "l": [1, 2]});
        let table = [
            (
                json!({"op": "add", "path": "/a/x", "value": 1}),
                json!({"a": {"b/c": 1, "x": 1}, "l": [1, 2]}),
            ),
            (
                json!({"op": "add", "path": "/l/-", "value": 3}),
                json!({"a": {"b/c": 1}, "l": [1, 2, 3]}),
            ),
            (
                json!({"op": "add", "path": "/l/0", "value": 3}),
                json!({"a": {"b/c": 1}, "l": [3, 1, 2]}),
            ),
            (
                json!({"op": "remove", "path": "/a/b~1c"}),
                json!({"a": {}, "l": [1, 2]}),
            ),
            (
                json!({"op": "replace", "path": "/l/1", "value": 5}),
                json!({"a": {"b/c": 1}, "l": [1, 5]}),
            ),
            (
                json!({"op": "move", "from": "/l/0", "path": "/m"}),
                json!({"a": {"b/c": 1}, "l": [2], "m": 1}),
            ),
            (
                json!({"op": "copy", "from": "/l/0", "path": "/m"}),
                json!({"a": {"b/c": 1}, "l": [1, 2], "m": 1}),
            ),
            (
                json!({"op": "test", "path": "/l/0", "value": 1}),
                before.clone(),
            ),
        ];
        for (operation, expected) in table {
            let mut target = before.clone();
            apply(&mut target, &json!([operation])).unwrap();
            assert_eq!(target, expected, "{operation}");
        }
    }

    #[test]
    fn an_operation_that_does_not_fit_is_refused() {
        for operation in [
            json!({"op": "test", "path": "/a", "value": 2}),
            json!({"op": "remove", "path": "/nope"}),
            json!({"op": "replace", "path": "/nope", "value": 1}),
            json!({"op": "add", "path": "/l/7", "value": 1}),
            json!({"op": "add", "path": "/nope/x", "value": 1}),
            json!({"op": "dance", "path": "/a"}),
        ] {
            let mut target = json!({"a": 1, "l": []});
            assert!(
                apply(&mut target, &json!([operation])).is_err(),
                "{operation}"
            );
        }
    }
}
