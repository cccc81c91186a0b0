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
        return remove(object, "stringData");
    };
    remove(object, "stringData");
    for (key, value) in plain {
        let text = value.as_str().unwrap_or_default();
        object["data"][key] = STANDARD.encode(text).into();
    }
}

fn set(object: &mut Value, field: &str, value: Value) {
    if object.is_object() && object[field].is_null() {
        object[field] = value;
    }
}

fn pod(object: &mut Value) {
    pod_spec(&mut object["spec"]);
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
    let containers = spec["containers"].as_array_mut();
    for container in containers.into_iter().flatten() {
        set(container, "resources", json!({}));
        set(container, "imagePullPolicy", json!("IfNotPresent"));
        set(
            container,
            "terminationMessagePath",
            json!("/dev/termination-log"),
        );
        set(container, "terminationMessagePolicy", json!("File"));
        for port in container["ports"].as_array_mut().into_iter().flatten() {
            set(port, "protocol", json!("TCP"));
        }
    }
}

fn service(object: &mut Value, serial: u64) {
    object["status"] = json!({"loadBalancer": {}});
    let spec = &mut object["spec"];
    if !spec.is_object() {
        return;
    }
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
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
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
    set(&mut object["spec"], "replicas", json!(1));
    if !object["spec"]["template"].is_null() {
        pod_spec(&mut object["spec"]["template"]["spec"]);
    }
    object["status"] = json!({});
}

fn crd(object: &mut Value) {
    let names = &mut object["spec"]["names"];
    if !names.is_object() {
        return;
    }
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    set(names, "singular", json!(kind.to_lowercase()));
    set(names, "listKind", json!(format!("{kind}List")));
    set(
        &mut object["spec"],
        "conversion",
        json!({"strategy": "None"}),
    );
}
