//! From a CustomResourceDefinition to resources that are served at once.

use serde_json::{Value, json};

use super::{
    resource::{Column, Resource},
    selector::FieldStyle,
    status::ApiError,
};

/// Says that the names are accepted and the resources served, as the server's own controllers do.
pub(crate) fn establish(crd: &mut Value, now: &str) {
    if !crd["status"]["acceptedNames"].is_null() {
        return;
    }
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({
            "type": kind,
            "status": "True",
            "lastTransitionTime": now,
            "reason": reason,
            "message": message,
        })
    };
    let stored: Vec<&Value> = versions(crd)
        .filter(|version| version["storage"] == true)
        .map(|version| &version["name"])
        .collect();
    crd["status"] = json!({
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "acceptedNames": crd["spec"]["names"],
        "storedVersions": stored,
    });
}

/// Refuses what the rest of this server could not serve.
pub(crate) fn check(crd: &Value) -> Result<(), ApiError> {
    let name = crd["metadata"]["name"].as_str().unwrap_or_default();
    let (group, plural) = group_and_plural(crd);
    let invalid = |field: &str, message: &str| {
        let kind = ("apiextensions.k8s.io", "CustomResourceDefinition");
        Err(ApiError::invalid(
            kind,
            name,
            field,
            "FieldValueInvalid",
            message,
        ))
    };
    if name != format!("{plural}.{group}") {
        let message =
            format!("Invalid value: {name:?}: must be spec.names.plural+\".\"+spec.group");
        return invalid("metadata.name", &message);
    }
    let storing = versions(crd)
        .filter(|version| version["storage"] == true)
        .count();
    if storing != 1 {
        let message = "Invalid value: must have exactly one version marked as storage version";
        return invalid("spec.versions", message);
    }
    Ok(())
}

/// Returns what the CRD is about.
pub(crate) fn group_and_plural(crd: &Value) -> (&str, &str) {
    (
        crd["spec"]["group"].as_str().unwrap_or_default(),
        crd["spec"]["names"]["plural"].as_str().unwrap_or_default(),
    )
}

/// Returns one resource per served version.
pub(crate) fn resources(crd: &Value) -> Vec<Resource> {
    versions(crd)
        .filter(|version| version["served"] == true)
        .map(|version| resource(crd, version))
        .collect()
}

fn versions(crd: &Value) -> impl Iterator<Item = &Value> {
    crd["spec"]["versions"].as_array().into_iter().flatten()
}

fn resource(crd: &Value, version: &Value) -> Resource {
    let (group, plural) = group_and_plural(crd);
    let names = &crd["spec"]["names"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Resource {
        group: group.to_owned(),
        version: text(&version["name"]),
        plural: plural.to_owned(),
        singular: text(&names["singular"]),
        kind: text(&names["kind"]),
        list_kind: text(&names["listKind"]),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        is_namespaced: crd["spec"]["scope"] == "Namespaced",
        has_status: version["subresources"]["status"].is_object(),
        keeps_status_on_create: false,
        has_generation: true,
        is_custom: true,
        updates_unconditionally: false,
        creates_on_update: false,
        returns_deleted: false,
        selectable: selectable(version),
        field_style: FieldStyle::Unsupported,
        columns: columns(version),
    }
}

fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

fn selectable(version: &Value) -> Vec<String> {
    let fields = version["selectableFields"].as_array().into_iter().flatten();
    fields
        .filter_map(|field| field["jsonPath"].as_str())
        .map(|path| path.trim_start_matches('.').to_owned())
        .collect()
}

fn columns(version: &Value) -> Vec<Column> {
    let own = version["additionalPrinterColumns"].as_array();
    let columns: Vec<Column> = own
        .into_iter()
        .flatten()
        .map(|column| Column {
            name: column["name"].as_str().unwrap_or_default().to_owned(),
            kind: column["type"].as_str().unwrap_or("string").to_owned(),
            path: column["jsonPath"].as_str().unwrap_or_default().to_owned(),
            priority: column["priority"].as_i64().unwrap_or_default(),
        })
        .collect();
    if columns.is_empty() {
        let age = Column {
            name: "Age".into(),
            kind: "date".into(),
            path: ".metadata.creationTimestamp".into(),
            priority: 0,
        };
        return vec![age];
    }
    columns
}
