use serde_json::json;

use super::*;

fn bytes(value: Value) -> Bytes {
    value.to_string().into()
}

fn applied(object: &Bytes, patch: Value) -> Option<Value> {
    let patch = patch.to_string();
    let result = apply_status(object, patch.as_bytes(), PatchType::Strategic).unwrap();
    result.map(|bytes| serde_json::from_slice(&bytes).unwrap())
}

#[test]
fn only_the_status_of_a_pod_is_taken_over_and_unknown_fields_stay() {
    let pod = Bytes::from_static(
        br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","uid":"u"},"spec":{"new-field":1.50},"status":{"phase":"Pending","later":{"a":1}}}"#,
    );
    let patch = json!({
        "metadata": {"uid": "u", "labels": {"x": "y"}},
        "spec": {"nodeName": "other"},
        "status": {"phase": "Running"},
    });
    let result = apply_status(&pod, patch.to_string().as_bytes(), PatchType::Strategic);
    assert_eq!(
        result.unwrap().unwrap(),
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","uid":"u"},"spec":{"new-field":1.50},"status":{"later":{"a":1},"phase":"Running"}}"#
    );
}

#[test]
fn a_node_s_labels_and_annotations_come_with_its_status_and_its_spec_does_not() {
    let node = bytes(json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": {"name": "n", "resourceVersion": "5", "annotations": {"a": "1"}},
        "spec": {"podCIDR": "10.0.0.0/24"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }));
    let changed = applied(
        &node,
        json!({
            "metadata": {"annotations": {"b": "2"}, "finalizers": ["x"]},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "False"}]},
        }),
    );
    assert_eq!(
        changed.unwrap(),
        json!({
            "kind": "Node", "apiVersion": "v1",
            "metadata": {"name": "n", "resourceVersion": "5", "annotations": {"a": "1", "b": "2"}},
            "spec": {"podCIDR": "10.0.0.0/24"},
            "status": {"conditions": [{"type": "Ready", "status": "False"}]},
        })
    );
}

#[test]
fn what_changes_nothing_is_no_change() {
    let pod =
        bytes(json!({"kind": "Pod", "metadata": {"uid": "u"}, "status": {"phase": "Running"}}));
    assert_eq!(applied(&pod, json!({"status": {"phase": "Running"}})), None);
    assert_eq!(
        applied(&pod, json!({"metadata": {"labels": {"a": "b"}}})),
        None
    );
}

#[test]
fn a_patch_for_another_object_of_that_name_is_a_conflict() {
    let pod = bytes(json!({"metadata": {"uid": "u", "resourceVersion": "5"}, "status": {}}));
    for (patch, expected) in [
        (json!({"metadata": {"uid": "v"}}), Some("another object")),
        (
            json!({"metadata": {"resourceVersion": "4"}}),
            Some("modified"),
        ),
        (
            json!({"metadata": {"uid": "u", "resourceVersion": "5"}}),
            None,
        ),
    ] {
        let result = apply_status(&pod, patch.to_string().as_bytes(), PatchType::Merge);
        let error = result.err().map(|error| error.to_string());
        assert_eq!(error.is_some(), expected.is_some(), "{patch}");
        assert!(
            error
                .unwrap_or_default()
                .contains(expected.unwrap_or_default())
        );
    }
}

#[test]
fn what_is_no_patch_is_refused() {
    let pod = bytes(json!({"metadata": {}}));
    for garbage in ["", "[]", "{", "null", "{\"status\":"] {
        assert!(
            apply_status(&pod, garbage.as_bytes(), PatchType::Strategic).is_err(),
            "{garbage}"
        );
    }
}
