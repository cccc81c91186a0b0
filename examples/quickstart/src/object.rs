//! What is written into the cloud: weather stations as ConfigMaps, geese as a custom resource.

use serde_json::{Value, json};

/// How many ConfigMaps there are.
pub(crate) const STATIONS: usize = 1_000;

/// The geese, and what each one says.
pub(crate) const GEESE: [(&str, &str); 5] = [
    ("akka", "low"),
    ("kaksi", "loud"),
    ("kolme", "never"),
    ("viisi", "loud"),
    ("yksi", "at night"),
];

/// Where stations stand; each region has a quarter of them.
const REGIONS: [&str; 4] = ["north", "east", "south", "west"];

/// The bytes of a station's calibration: a ConfigMap of about 1.3 kB, as clusters have them.
const CALIBRATION: usize = 900;

/// Where everything of one run is, so that runs do not meet and nothing else is touched.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The namespace, `yurt-quickstart-…`.
    pub(crate) namespace: String,
    /// The geese's API group, named after the namespace.
    pub(crate) group: String,
}

impl Place {
    /// Makes up a new one.
    pub(crate) fn random() -> Self {
        let letters = || fastrand::lowercase();
        let suffix: String = std::iter::repeat_with(letters).take(6).collect();
        let namespace = format!("yurt-quickstart-{suffix}");
        let group = format!("{namespace}.example.com");
        Self { namespace, group }
    }

    pub(crate) fn stations(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.namespace)
    }

    pub(crate) fn geese(&self) -> String {
        let Self { namespace, group } = self;
        format!("/apis/{group}/v1/namespaces/{namespace}/geese")
    }

    pub(crate) fn definition(&self) -> String {
        format!("{DEFINITIONS}/geese.{}", self.group)
    }

    /// What has to be there before stations and geese, by where it is posted.
    pub(crate) fn foundations(&self) -> Vec<(String, Value)> {
        let Self { namespace, group } = self;
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        let roles = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
        let rule = |group: &str, resource: &str| json!({"apiGroups": [group], "resources": [resource], "verbs": ["get", "list", "watch", "create"]});
        vec![
            (
                "/api/v1/namespaces".to_owned(),
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
            ),
            (
                accounts,
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": CLIENT}}),
            ),
            (
                format!("{roles}/roles"),
                json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": CLIENT},
                    "rules": [rule("", "configmaps"), rule(group, "geese")],
                }),
            ),
            (
                format!("{roles}/rolebindings"),
                json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": CLIENT},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": CLIENT},
                    "subjects": [{"kind": "ServiceAccount", "name": CLIENT, "namespace": namespace}],
                }),
            ),
            (DEFINITIONS.to_owned(), self.geese_definition()),
        ]
    }

    /// Where a token of the clients is asked for.
    pub(crate) fn token(&self) -> String {
        let namespace = &self.namespace;
        format!("/api/v1/namespaces/{namespace}/serviceaccounts/{CLIENT}/token")
    }

    fn geese_definition(&self) -> Value {
        let group = &self.group;
        let spec = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("geese.{group}")},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"plural": "geese", "singular": "goose", "kind": "Goose", "listKind": "GooseList"},
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
                    "additionalPrinterColumns": [
                        {"name": "Honk", "type": "string", "jsonPath": ".spec.honk"},
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    ],
                }],
            },
        })
    }

    pub(crate) fn goose(&self, name: &str, honk: &str) -> Value {
        json!({
            "apiVersion": format!("{}/v1", self.group), "kind": "Goose",
            "metadata": {"name": name}, "spec": {"honk": honk},
        })
    }
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// The service account of the clients.
const CLIENT: &str = "client";

/// The name of a station.
pub(crate) fn station_name(index: usize) -> String {
    format!("station-{index:04}")
}

/// A station; its calibration is noise, so that it does not shrink on the link as text from a template would.
pub(crate) fn station(index: usize) -> Value {
    let mut noise = fastrand::Rng::with_seed(u64::try_from(index).unwrap_or_default());
    let calibration: String = std::iter::repeat_with(|| noise.alphanumeric())
        .take(CALIBRATION)
        .collect();
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": station_name(index), "labels": {"region": REGIONS[index % REGIONS.len()]}},
        "data": {"calibration": calibration, "unit": "celsius"},
    })
}
