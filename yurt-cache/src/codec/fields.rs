//! Which fields of which resource a selector may name, and what their values are.
//!
//! Read off kube-apiserver 1.34.4, resource by resource.

use std::borrow::Cow;

use super::object::{ObjectMeta, field};
use super::path::{JsonPath, scalar};
use super::selector::{FieldSelector, SelectorError};

/// What selectors look at in an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) fields: Vec<(String, String)>,
}

/// A resource as far as its selectable fields go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selectable<'a> {
    /// The API group; empty for core.
    pub(crate) group: &'a str,
    /// The API version.
    pub(crate) version: &'a str,
    /// The plural.
    pub(crate) resource: &'a str,
    /// Whether objects have a namespace.
    pub(crate) is_namespaced: bool,
    /// A custom resource's `selectableFields` by label; none for a resource of the server's own.
    pub(crate) custom: Option<&'a [(String, JsonPath)]>,
}

/// The selectable fields of a resource beside its name and namespace.
pub(crate) fn supported(group: &str, resource: &str) -> &'static [&'static str] {
    match (group, resource) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("", "replicationcontrollers") => &["status.replicas"],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "events") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        ("batch", "jobs") => &["status.successful"],
        ("certificates.k8s.io", "certificatesigningrequests") => &["spec.signerName"],
        ("resource.k8s.io", "resourceslices") => &["spec.nodeName", "spec.driver"],
        _ => &[],
    }
}

/// Refuses a selector that names a field which the resource does not select by, in the server's words.
pub(crate) fn check(selector: &FieldSelector, of: &Selectable<'_>) -> Result<(), SelectorError> {
    let own = supported(of.group, of.resource);
    // Resources without fields of their own share a check that knows no scope.
    let has_namespace = of.is_namespaced || (own.is_empty() && of.custom.is_none());
    for term in selector.terms() {
        let name = term.field.as_str();
        let is_supported = match name {
            "metadata.name" => true,
            "metadata.namespace" => has_namespace,
            _ => {
                own.contains(&name)
                    || of
                        .custom
                        .is_some_and(|custom| custom.iter().any(|(label, _)| label == name))
            }
        };
        if is_supported {
            continue;
        }
        return Err(SelectorError(match (of.group, of.resource) {
            _ if own.is_empty() && of.custom.is_none() => {
                format!(
                    "\"{name}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                )
            }
            ("batch", "jobs") => format!("field label \"{name}\" not supported for Job"),
            ("resource.k8s.io", "resourceslices") => {
                format!(
                    "field label not supported for resource.k8s.io/{}, Kind=ResourceSlice: {name}",
                    of.version
                )
            }
            _ => format!("field label not supported: {name}"),
        }));
    }
    Ok(())
}

/// The selectable fields of an object; what is absent is empty, as on the server.
pub(crate) fn values(
    group: &str,
    resource: &str,
    extra: &[(String, JsonPath)],
    object: &[u8],
    meta: &ObjectMeta,
) -> Vec<(String, String)> {
    let names = ["metadata.name", "metadata.namespace"];
    let own = supported(group, resource);
    let custom = extra.iter().map(|(label, _)| label.as_str());
    names
        .into_iter()
        .chain(own.iter().copied())
        .chain(custom)
        .filter_map(|name| {
            let value = value(group, resource, extra, name, object, meta)?;
            Some((name.to_owned(), value.into_owned()))
        })
        .collect()
}

/// One selectable field of an object; none if the resource does not select by it.
pub(crate) fn value<'o>(
    group: &str,
    resource: &str,
    extra: &[(String, JsonPath)],
    name: &str,
    object: &'o [u8],
    meta: &'o ObjectMeta,
) -> Option<Cow<'o, str>> {
    match name {
        "metadata.name" => return Some(Cow::Borrowed(&meta.name)),
        "metadata.namespace" => return Some(Cow::Borrowed(&meta.namespace)),
        _ => {}
    }
    if let Some((_, path)) = extra.iter().find(|(label, _)| label == name) {
        return Some(
            path.find(object)
                .and_then(scalar)
                .unwrap_or_default()
                .into(),
        );
    }
    if !supported(group, resource).contains(&name) {
        return None;
    }
    let text = std::str::from_utf8(object).ok()?;
    Some(Cow::Owned(match name {
        // The old name of a reporter, for events that only have the new one.
        "source" => at(text, "source.component")
            .filter(|component| !component.is_empty())
            .or_else(|| at(text, "reportingComponent"))
            .unwrap_or_default(),
        "status.successful" => at(text, "status.succeeded").unwrap_or_else(|| "0".into()),
        "status.replicas" => at(text, name).unwrap_or_else(|| "0".into()),
        "spec.hostNetwork" | "spec.unschedulable" => {
            at(text, name).unwrap_or_else(|| "false".into())
        }
        // The server selects by the first address under both names.
        "status.podIPs" => at(text, "status.podIP").unwrap_or_default(),
        _ => at(text, name).unwrap_or_default(),
    }))
}

/// The text of the value at a dotted path.
fn at(object: &str, path: &str) -> Option<String> {
    let mut names = path.split('.');
    let first = field(object, names.next()?)?;
    scalar(names.try_fold(first, |value, name| field(value.get(), name))?)
}

#[cfg(test)]
mod tests;
