//! Defaults of built-in kinds that selectors, patches and kubectl depend on; not all of the server's.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::lifecycle::remove;

/// Fills what a new object leaves out.
pub(crate) fn apply(kind: &str, object: &mut Value, serial: u64) {
    match kind {
        "Pod" => pod(object),
        "Service" => service(object, serial),
        "Secret" => secret(object),
        "ConfigMap" => drop_empty_data(object),
        "Namespace" => namespace(object),
        "Deployment" | "ReplicaSet" | "StatefulSet" => workload(object),
        "CustomResourceDefinition" => crd(object),
        _ => {}
    }
}

/// Turns `stringData` into `data`, on creation and on update.
pub(crate) fn secret(object: &mut Value) {
    set(object, "type", json!("Opaque"));
    let Value::Object(plain) = object["stringData"].take() else {
        remove(object, "stringData");
        return drop_empty_data(object);
    };
    remove(object, "stringData");
    for (key, value) in plain {
        let text = value.as_str().unwrap_or_default();
        object["data"][key] = STANDARD.encode(text).into();
    }
    drop_empty_data(object);
}

/// Drops the empty maps that a typed ConfigMap or Secret does not show.
pub(crate) fn drop_empty_data(object: &mut Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|key, value| {
            let is_empty = value.is_null() || value.as_object().is_some_and(|map| map.is_empty());
            !(is_empty && matches!(key.as_str(), "data" | "binaryData"))
        });
    }
}

/// Walks a list that may be absent, and leaves it so.
fn items<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = object.get_mut(field).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

fn set(object: &mut Value, field: &str, value: Value) {
    if object.is_object() && object[field].is_null() {
        object[field] = value;
    }
}

fn pod(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec") {
        pod_spec(spec);
    }
    object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
}

fn pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    set(spec, "restartPolicy", json!("Always"));
    set(spec, "terminationGracePeriodSeconds", json!(30));
    set(spec, "dnsPolicy", json!("ClusterFirst"));
    set(spec, "securityContext", json!({}));
    set(spec, "schedulerName", json!("default-scheduler"));
    set(spec, "enableServiceLinks", json!(true));
    for container in items(spec, "containers") {
        set(container, "resources", json!({}));
        set(container, "imagePullPolicy", json!("IfNotPresent"));
        set(
            container,
            "terminationMessagePath",
            json!("/dev/termination-log"),
        );
        set(container, "terminationMessagePolicy", json!("File"));
        for port in items(container, "ports") {
            set(port, "protocol", json!("TCP"));
        }
    }
}

fn service(object: &mut Value, serial: u64) {
    object["status"] = json!({"loadBalancer": {}});
    let Some(spec) = object.get_mut("spec") else {
        return;
    };
    set(spec, "type", json!("ClusterIP"));
    set(spec, "sessionAffinity", json!("None"));
    let is_external = spec["type"] == "ExternalName";
    if !is_external {
        let address = format!("10.96.{}.{}", serial / 250 % 250, serial % 250 + 1);
        set(spec, "clusterIP", json!(address));
        let address = spec["clusterIP"].clone();
        set(spec, "clusterIPs", json!([address]));
        set(spec, "ipFamilies", json!(["IPv4"]));
        set(spec, "ipFamilyPolicy", json!("SingleStack"));
        set(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    for port in items(spec, "ports") {
        set(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        set(port, "targetPort", number);
    }
}

fn namespace(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
    object["spec"]["finalizers"] = json!(["kubernetes"]);
    object["status"] = json!({"phase": "Active"});
}

fn workload(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec") {
        set(spec, "replicas", json!(1));
    }
    if let Some(spec) = object.pointer_mut("/spec/template/spec") {
        pod_spec(spec);
    }
    object["status"] = json!({});
}

fn crd(object: &mut Value) {
    let Some(names) = object.pointer_mut("/spec/names") else {
        return;
    };
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    set(names, "singular", json!(kind.to_lowercase()));
    set(names, "listKind", json!(format!("{kind}List")));
    if let Some(spec) = object.get_mut("spec") {
        set(spec, "conversion", json!({"strategy": "None"}));
    }
}
