//! What is served: versions, groups, resources, health; legacy and aggregated discovery.

use std::{collections::BTreeSet, sync::Arc};

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{
    connect, present,
    reply::{self, Reply},
    resource::{Registry, Resource},
    serve::{Server, plain_json, text},
    status::ApiError,
};

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const OPENAPI_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Tells whether a path is open to everybody.
pub(crate) fn is_public(path: &str) -> bool {
    let first = path
        .trim_start_matches('/')
        .split('/')
        .next()
        .unwrap_or_default();
    matches!(first, "healthz" | "livez" | "readyz" | "version")
}

/// Answers a path that is no resource.
pub(crate) fn answer(
    server: &Server,
    request: &Request<Incoming>,
) -> Result<Response<Reply>, ApiError> {
    if *request.method() != Method::GET && *request.method() != Method::HEAD {
        return Err(ApiError::method_not_allowed());
    }
    let path = request.uri().path().trim_end_matches('/');
    if is_public(path) && path != "/version" {
        return Ok(text(StatusCode::OK, "ok"));
    }
    let accept = request.headers().get(header::ACCEPT);
    let accept = accept
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let is_aggregated = accept.contains("as=APIGroupDiscoveryList") && accept.contains("v=v2");
    let state = server.state.lock();
    let registry = &state.registry;
    let words: Vec<&str> = path.split('/').skip(1).collect();
    match words.as_slice() {
        ["version"] => Ok(plain_json(StatusCode::OK, &version())),
        ["api"] if is_aggregated => Ok(aggregated(registry, true)),
        ["apis"] if is_aggregated => Ok(aggregated(registry, false)),
        ["api"] => Ok(plain_json(
            StatusCode::OK,
            &json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        )),
        ["apis"] => Ok(plain_json(StatusCode::OK, &group_list(registry))),
        ["api", "v1"] => Ok(plain_json(
            StatusCode::OK,
            &resource_list(registry, "", "v1"),
        )),
        ["apis", name] => match groups(registry).contains(*name) {
            true => {
                let mut group = group(registry, name);
                group["kind"] = "APIGroup".into();
                group["apiVersion"] = "v1".into();
                Ok(plain_json(StatusCode::OK, &group))
            }
            false => Err(ApiError::no_such_path()),
        },
        ["apis", name, version] if registry.serves(name, version) => Ok(plain_json(
            StatusCode::OK,
            &resource_list(registry, name, version),
        )),
        // An empty protobuf message: kubectl finds no schema in it, and validates nothing.
        ["openapi", "v2"] if accept.contains("protobuf") => {
            let empty = reply::json(StatusCode::OK, Vec::new());
            Ok(reply::with_type(empty, OPENAPI_PROTOBUF))
        }
        ["openapi", "v2"] => Ok(plain_json(StatusCode::OK, &openapi())),
        ["api", _] => Err(ApiError::no_such_resource()),
        ["apis", name, _] if registry.is_built_in(name) => Err(ApiError::no_such_resource()),
        [".well-known", "openid-configuration"] => {
            let configuration = server.config.issuer.configuration();
            Ok(plain_json(StatusCode::OK, &configuration))
        }
        // The real one has a type of its own for them, and refuses who asks for JSON.
        ["openid", "v1", "jwks"] if accept == "application/json" => {
            Ok(text(StatusCode::NOT_ACCEPTABLE, "406: Not Acceptable"))
        }
        ["openid", "v1", "jwks"] => {
            let keys = plain_json(StatusCode::OK, &server.config.issuer.key_set());
            Ok(reply::with_type(keys, "application/jwk-set+json"))
        }
        ["openapi", "v3"] => Ok(plain_json(StatusCode::OK, &json!({"paths": {}}))),
        [""] | [] => Ok(plain_json(StatusCode::OK, &paths(registry))),
        _ => Err(ApiError::no_such_path()),
    }
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "34",
        "gitVersion": "v1.34.4-testbed",
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "linux/amd64",
    })
}

fn openapi() -> Value {
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.34.4"},
        "paths": {},
        "definitions": {},
    })
}

fn paths(registry: &Registry) -> Value {
    let mut paths: BTreeSet<String> = [
        "/api", "/api/v1", "/apis", "/healthz", "/livez", "/readyz", "/version",
    ]
    .map(str::to_owned)
    .into();
    for resource in registry
        .all()
        .iter()
        .filter(|resource| !resource.group.is_empty())
    {
        paths.insert(format!("/apis/{}", resource.group));
        paths.insert(format!("/apis/{}", resource.api_version()));
    }
    json!({"paths": paths})
}

fn groups(registry: &Registry) -> BTreeSet<&str> {
    let names = registry
        .all()
        .iter()
        .map(|resource| resource.group.as_str());
    names
        .chain(["authentication.k8s.io", "authorization.k8s.io"])
        .filter(|name| !name.is_empty())
        .collect()
}

fn versions<'a>(registry: &'a Registry, group: &str) -> Vec<&'a str> {
    let mut versions: Vec<&str> = Vec::new();
    for resource in registry
        .all()
        .iter()
        .filter(|resource| resource.group == group)
    {
        if !versions.contains(&resource.version.as_str()) {
            versions.push(&resource.version);
        }
    }
    if versions.is_empty() {
        versions.push("v1");
    }
    versions.sort_by(|a, b| priority(b).cmp(&priority(a)).then(a.cmp(b)));
    versions
}

/// Orders versions as Kubernetes does: v2, v1, v1beta2, v1beta1, v1alpha1, the rest.
fn priority(version: &str) -> (u8, u32, u32) {
    let number = |text: &str| text.parse::<u32>().ok();
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    if let Some(major) = number(rest) {
        return (3, major, 0);
    }
    for (stage, word) in [(2, "beta"), (1, "alpha")] {
        if let Some((major, minor)) = rest.split_once(word)
            && let (Some(major), Some(minor)) = (number(major), number(minor))
        {
            return (stage, major, minor);
        }
    }
    (0, 0, 0)
}

fn group_list(registry: &Registry) -> Value {
    let groups: Vec<Value> = groups(registry)
        .into_iter()
        .map(|name| group(registry, name))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group(registry: &Registry, name: &str) -> Value {
    let versions: Vec<Value> = versions(registry, name)
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn of_version<'a>(
    registry: &'a Registry,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = &'a Arc<Resource>> {
    let all = registry.all().iter();
    all.filter(move |resource| resource.group == group && resource.version == version)
}

fn resource_list(registry: &Registry, group: &str, version: &str) -> Value {
    let mut entries = Vec::new();
    for resource in of_version(registry, group, version) {
        let mut entry = json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.is_namespaced,
            "kind": resource.kind,
            "verbs": VERBS,
        });
        add_names(&mut entry, resource);
        entries.push(entry);
        for (name, kind, verbs) in connect::subresources(resource) {
            entries.push(json!({
                "name": format!("{}/{name}", resource.plural),
                "singularName": "",
                "namespaced": resource.is_namespaced,
                "kind": kind,
                "verbs": verbs,
            }));
        }
    }
    let version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    let mut list =
        json!({"kind": "APIResourceList", "groupVersion": version, "resources": entries});
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    list
}

/// Short names and categories are left out where there are none.
fn add_names(entry: &mut Value, resource: &Resource) {
    for (field, names) in [
        ("shortNames", &resource.short_names),
        ("categories", &resource.categories),
    ] {
        if !names.is_empty() {
            entry[field] = json!(names);
        }
    }
}

fn aggregated(registry: &Registry, is_core: bool) -> Response<Reply> {
    let names: Vec<&str> = if is_core {
        vec![""]
    } else {
        groups(registry).into_iter().collect()
    };
    let items: Vec<Value> = names
        .into_iter()
        .map(|name| {
            let versions: Vec<Value> = versions(registry, name)
                .into_iter()
                .map(|version| {
                    let resources: Vec<Value> = of_version(registry, name, version)
                        .map(|r| discovered(r))
                        .collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if name.is_empty() {
                json!({})
            } else {
                json!({"name": name})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    });
    reply::with_type(
        reply::json(StatusCode::OK, present::status(&list)),
        AGGREGATED,
    )
}

fn discovered(resource: &Resource) -> Value {
    let kind =
        |kind: &str| json!({"group": resource.group, "version": resource.version, "kind": kind});
    let subresources: Vec<Value> = connect::subresources(resource)
        .into_iter()
        .map(|(name, of, verbs)| {
            json!({"subresource": name, "responseKind": kind(of), "verbs": verbs})
        })
        .collect();
    let mut discovered = json!({
        "resource": resource.plural,
        "responseKind": kind(&resource.kind),
        "scope": if resource.is_namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": VERBS,
    });
    add_names(&mut discovered, resource);
    if !subresources.is_empty() {
        discovered["subresources"] = subresources.into();
    }
    discovered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_stability_then_number() {
        let mut versions = ["v1alpha1", "v1", "v1beta2", "foo", "v2", "v1beta1"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(
            versions,
            ["v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]
        );
    }
}
