//! The objects that are read: of every kind that clients of a node read, and of one that only this test knows.

use serde_json::{Value, json};
use testbed::client::{Client, Error};

use crate::{checks::cut, site::PATIENCE};

/// A collection that is read in all namespaces, and one of its objects.
pub(crate) struct Collection {
    /// `/api/v1`, without a trailing slash.
    pub(crate) root: &'static str,
    /// The plural.
    pub(crate) plural: &'static str,
    /// The namespace and name of one object; no namespace where the kind has none.
    pub(crate) object: (&'static str, &'static str),
}

/// Every collection of the world.
#[rustfmt::skip]
pub(crate) const COLLECTIONS: &[Collection] = &[
    Collection { root: "/api/v1", plural: "configmaps", object: ("world", "web-prod") },
    Collection { root: "/api/v1", plural: "secrets", object: ("world", "opaque") },
    Collection { root: "/api/v1", plural: "pods", object: ("world", "running") },
    Collection { root: "/api/v1", plural: "nodes", object: ("", "edge-1") },
    Collection { root: "/api/v1", plural: "services", object: ("world", "web") },
    Collection { root: "/api/v1", plural: "events", object: ("world", "started") },
    Collection { root: "/api/v1", plural: "namespaces", object: ("", "world") },
    Collection { root: "/apis/discovery.k8s.io/v1", plural: "endpointslices", object: ("world", "web-1") },
    Collection { root: "/apis/coordination.k8s.io/v1", plural: "leases", object: ("world", "lock") },
    Collection { root: "/apis/apps/v1", plural: "deployments", object: ("world", "web") },
    Collection { root: "/apis/rbac.authorization.k8s.io/v1", plural: "clusterroles", object: ("", "world:reader:all") },
    Collection { root: "/apis/rbac.authorization.k8s.io/v1", plural: "rolebindings", object: ("world", "world:bind") },
    Collection { root: "/apis/desert.example.com/v1", plural: "cacti", object: ("world", "saguaro") },
    Collection { root: "/apis/apiextensions.k8s.io/v1", plural: "customresourcedefinitions", object: ("", "cacti.desert.example.com") },
];

impl Collection {
    /// The path of the collection in all namespaces.
    pub(crate) fn all(&self) -> String {
        format!("{}/{}", self.root, self.plural)
    }

    /// The path of the collection in a namespace, or of the collection where the kind has none.
    pub(crate) fn within(&self, namespace: &str) -> String {
        match self.object.0 {
            "" => self.all(),
            _ => format!("{}/namespaces/{namespace}/{}", self.root, self.plural),
        }
    }

    /// The path of its object.
    pub(crate) fn one(&self) -> String {
        format!("{}/{}", self.within(self.object.0), self.object.1)
    }
}

/// Numbers and names that a typed client would change, as they are sent.
pub(crate) const ODD: &str = r#"{"apiVersion":"desert.example.com/v1","kind":"Cactus","metadata":{"name":"odd","namespace":"world","labels":{"big":"yes"}},"spec":{"colour":"grün","ratio":1.50,"thousand":1e3,"huge":9007199254740993,"negative":-0.0,"tiny":1.0e-7,"free":{"unknownToAll":[1.10,{"deep":null}],"emoji":"🌵\u0001<&>","":"empty key"}}}"#;

/// Makes the world.
pub(crate) async fn make(client: &Client) -> Result<(), Error> {
    for name in ["world", "other", "empty"] {
        let labels = json!({"world": "yes"});
        post(
            client,
            "/api/v1/namespaces",
            json!({"metadata": {"name": name, "labels": labels}}),
        )
        .await?;
    }
    custom_kind(client).await?;
    config_maps(client).await?;
    secrets(client).await?;
    pods(client).await?;
    network(client).await?;
    rest(client).await
}

async fn config_maps(client: &Client) -> Result<(), Error> {
    for (namespace, name, labels) in [
        ("world", "web-prod", json!({"tier": "web", "env": "prod"})),
        ("world", "web-test", json!({"tier": "web", "env": "test"})),
        (
            "world",
            "db-prod",
            json!({"tier": "db", "env": "prod", "example.com/weight": "1"}),
        ),
        ("world", "plain", json!({})),
        ("world", "a.b-c.d", json!({"tier": ""})),
        ("other", "web-prod", json!({"tier": "web", "env": "prod"})),
        ("other", "lonely", json!({"env": "stage"})),
    ] {
        let data = json!({"k": "v", "unicode": "grüße 世界 🌵 \u{2028}", "lines": "a\nb\t\"c\"\\"});
        let body = json!({"metadata": {"name": name, "labels": labels}, "data": data, "binaryData": {"b": "AAEC/w=="}});
        post(
            client,
            &format!("/api/v1/namespaces/{namespace}/configmaps"),
            body,
        )
        .await?;
    }
    let big = json!({"metadata": {"name": "big", "labels": {"size": "big"}}, "data": {"big": "ä".repeat(450_000)}});
    post(client, "/api/v1/namespaces/other/configmaps", big).await?;
    Ok(())
}

/// Objects that nobody knew before.
pub(crate) async fn make_more(client: &Client) {
    for number in 0..20 {
        let body =
            json!({"metadata": {"name": format!("more-{number}"), "labels": {"tier": "web"}}});
        post(client, "/api/v1/namespaces/world/configmaps", body)
            .await
            .unwrap();
    }
}

async fn secrets(client: &Client) -> Result<(), Error> {
    let path = "/api/v1/namespaces/world/secrets";
    post(
        client,
        path,
        json!({"metadata": {"name": "opaque"}, "stringData": {"password": "p"}}),
    )
    .await?;
    let basic = json!({"metadata": {"name": "basic"}, "type": "kubernetes.io/basic-auth", "stringData": {"username": "u", "password": "p"}});
    post(client, path, basic).await?;
    let other = json!({"metadata": {"name": "theirs"}, "stringData": {"password": "q"}});
    post(client, "/api/v1/namespaces/other/secrets", other).await?;
    Ok(())
}

async fn pods(client: &Client) -> Result<(), Error> {
    for name in ["edge-1", "edge-2"] {
        let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {"unschedulable": name == "edge-2"}});
        post(client, "/api/v1/nodes", node).await?;
    }
    let path = "/api/v1/namespaces/world/pods";
    for (name, node, phase) in [
        ("running", "edge-1", "Running"),
        ("done", "edge-1", "Succeeded"),
        ("elsewhere", "edge-2", "Running"),
        ("waiting", "", "Pending"),
    ] {
        let volumes = json!([{"name": "s", "secret": {"secretName": "opaque"}}]);
        let mut spec = json!({"containers": [{"name": "c", "image": "pause"}], "restartPolicy": "Never", "volumes": volumes});
        if !node.is_empty() {
            spec["nodeName"] = json!(node);
        }
        post(
            client,
            path,
            json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec}),
        )
        .await?;
        let status = json!({"status": {"phase": phase, "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}]}});
        let answer = client
            .patch(&format!("{path}/{name}/status"), "merge", &status)
            .await?;
        answer.expect(200);
    }
    Ok(())
}

async fn network(client: &Client) -> Result<(), Error> {
    let port = json!([{"port": 80, "protocol": "TCP"}]);
    for (name, kind) in [("web", "ClusterIP"), ("outside", "ExternalName")] {
        let mut spec = json!({"type": kind});
        if kind == "ExternalName" {
            spec["externalName"] = json!("example.com");
        } else {
            spec["ports"] = port.clone();
        }
        post(
            client,
            "/api/v1/namespaces/world/services",
            json!({"metadata": {"name": name}, "spec": spec}),
        )
        .await?;
    }
    let slice = json!({
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.9"], "conditions": {"ready": true}, "nodeName": "edge-1"}], "ports": [{"port": 80}]});
    post(
        client,
        "/apis/discovery.k8s.io/v1/namespaces/world/endpointslices",
        slice,
    )
    .await?;
    Ok(())
}

async fn rest(client: &Client) -> Result<(), Error> {
    for (name, kind, reason) in [
        ("started", "Normal", "Started"),
        ("failed", "Warning", "Failed"),
    ] {
        let event = json!({
            "metadata": {"name": name}, "type": kind, "reason": reason, "message": "m",
            "involvedObject": {"kind": "Pod", "namespace": "world", "name": "running", "apiVersion": "v1"},
            "source": {"component": "kubelet", "host": "edge-1"}, "firstTimestamp": "2026-01-02T03:04:05Z", "lastTimestamp": "2026-01-02T03:04:05Z", "count": 1});
        post(client, "/api/v1/namespaces/world/events", event).await?;
    }
    let lease = json!({"metadata": {"name": "lock"}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 40, "renewTime": "2026-01-02T03:04:05.000006Z"}});
    post(
        client,
        "/apis/coordination.k8s.io/v1/namespaces/world/leases",
        lease,
    )
    .await?;
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "pause", "resources": {"limits": {"cpu": "100m"}}}]}}}});
    post(
        client,
        "/apis/apps/v1/namespaces/world/deployments",
        deployment,
    )
    .await?;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": "world:reader:all"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]});
    post(client, &format!("{rbac}/clusterroles"), role).await?;
    let binding = json!({"metadata": {"name": "world:bind"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "world:reader:all"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "world"}]});
    post(
        client,
        &format!("{rbac}/namespaces/world/rolebindings"),
        binding,
    )
    .await?;
    post(
        client,
        "/api/v1/namespaces/world/serviceaccounts",
        json!({"metadata": {"name": "reader"}}),
    )
    .await?;
    Ok(())
}

async fn custom_kind(client: &Client) -> Result<(), Error> {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"colour": {"type": "string"}, "height": {"type": "integer"}}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": schema, "subresources": {"status": {}},
            "selectableFields": [{"jsonPath": ".spec.colour"}],
            "additionalPrinterColumns": [
                {"name": "Colour", "type": "string", "jsonPath": ".spec.colour"},
                {"name": "Height", "type": "integer", "jsonPath": ".spec.height", "priority": 1},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]})
    };
    let kind = json!({"metadata": {"name": "cacti.desert.example.com"}, "spec": {
        "group": "desert.example.com", "scope": "Namespaced", "versions": [version("v1", true), version("v1beta1", false)],
        "names": {"plural": "cacti", "singular": "cactus", "kind": "Cactus", "shortNames": ["cc"]}}});
    post(
        client,
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        kind,
    )
    .await?;
    for (namespace, name, colour, height) in [
        ("world", "saguaro", "green", 12),
        ("world", "cholla", "white", 2),
        ("other", "pear", "green", 1),
    ] {
        let body = json!({"apiVersion": "desert.example.com/v1", "kind": "Cactus", "metadata": {"name": name, "labels": {"colour": colour}},
            "spec": {"colour": colour, "height": height}});
        let path = format!("/apis/desert.example.com/v1/namespaces/{namespace}/cacti");
        post_when_served(client, &path, &body).await?;
    }
    let answer = client
        .send(
            "POST".parse().expect("a method"),
            "/apis/desert.example.com/v1/namespaces/world/cacti",
            &[("content-type", "application/json")],
            ODD,
        )
        .await?;
    answer.expect(201);
    Ok(())
}

/// Creates an object of a kind that was made just now.
pub(crate) async fn post_when_served(
    client: &Client,
    path: &str,
    body: &Value,
) -> Result<Value, Error> {
    let served = async {
        loop {
            let answer = client.post(path, body).await?;
            if answer.code != 404 {
                return Ok(answer.expect(201));
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let made = tokio::time::timeout(PATIENCE, served).await;
    made.map_err(|_| Error::Silence(path.to_owned()))?
}

/// Creates an object.
pub(crate) async fn post(client: &Client, path: &str, body: Value) -> Result<Value, Error> {
    let answer = client.post(path, &body).await?;
    assert_eq!(answer.code, 201, "{path}: {}", cut(&answer.text()));
    Ok(answer.json())
}
