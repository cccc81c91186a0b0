//! What a pod refers to, read off its JSON: wherever in the spec the reference stands, in containers of any
//! kind and in volumes of any kind, so that a newer server's fields count too.

use serde_json::{Map, Value};
use yurt_core::name::NodeName;

/// The plural of claims, which lead on to volumes.
pub(crate) const CLAIMS: &str = "persistentvolumeclaims";

const CONFIG_MAPS: &str = "configmaps";
const SECRETS: &str = "secrets";

/// What matters of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) node: Option<String>,
    /// Its service account.
    pub(crate) account: String,
    /// It has ended and does not start again.
    pub(crate) is_over: bool,
    pub(crate) is_proxy: bool,
    /// It mounts a token of its service account.
    pub(crate) has_token: bool,
    /// Distinct, in the order of their names.
    pub(crate) references: Vec<Reference>,
}

/// An object of the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reference {
    pub(crate) plural: &'static str,
    pub(crate) name: String,
    /// The pod starts without it too.
    pub(crate) is_optional: bool,
}

impl Pod {
    /// Reads a pod; `None` if these bytes are no object.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        let pod: Value = serde_json::from_slice(text).ok()?;
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
        let mut found = Self {
            namespace: text("/metadata/namespace")?.to_owned(),
            name: text("/metadata/name")?.to_owned(),
            node: text("/spec/nodeName").map(str::to_owned),
            account: text("/spec/serviceAccountName")
                .unwrap_or("default")
                .to_owned(),
            is_over: matches!(text("/status/phase"), Some("Succeeded" | "Failed")),
            is_proxy: text("/metadata/labels/k8s-app") == Some("kube-proxy"),
            has_token: false,
            references: Vec::new(),
        };
        found.visit("", pod.get("spec")?);
        found.claim_ephemeral(&pod);
        found.references.sort();
        // Of two references to one object the sorted first is the one that is not optional.
        found
            .references
            .dedup_by(|second, first| (second.plural, &second.name) == (first.plural, &first.name));
        Some(found)
    }

    fn visit(&mut self, name: &str, value: &Value) {
        match value {
            Value::Object(fields) => {
                self.has_token |= name == "serviceAccountToken";
                if let Some((plural, referred)) = reference(name, fields) {
                    self.refer(plural, referred, fields);
                }
                for (name, value) in fields {
                    self.visit(name, value);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.visit(name, item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn refer(&mut self, plural: &'static str, name: &str, fields: &Map<String, Value>) {
        // What has no name of an object cannot be there, here or in the cloud.
        if name.parse::<NodeName>().is_err() {
            return;
        }
        self.references.push(Reference {
            plural,
            name: name.to_owned(),
            is_optional: fields.get("optional") == Some(&Value::Bool(true)),
        });
    }

    /// The claim of an ephemeral volume has the names of the pod and of the volume.
    fn claim_ephemeral(&mut self, pod: &Value) {
        let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
        for volume in volumes.into_iter().flatten() {
            if let (Some(_), Some(name)) = (
                volume.get("ephemeral"),
                volume.get("name").and_then(Value::as_str),
            ) {
                let claim = format!("{}-{name}", self.name);
                self.refer(CLAIMS, &claim, &Map::new());
            }
        }
    }
}

/// Returns what a field of this name refers to.
fn reference<'a>(field: &str, fields: &'a Map<String, Value>) -> Option<(&'static str, &'a str)> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    match field {
        "configMap" | "configMapRef" | "configMapKeyRef" => Some((CONFIG_MAPS, text("name")?)),
        // A volume of its own, or a source of a projected one.
        "secret" => Some((SECRETS, text("secretName").or_else(|| text("name"))?)),
        "azureFile" => Some((SECRETS, text("secretName")?)),
        "imagePullSecrets" | "secretKeyRef" => Some((SECRETS, text("name")?)),
        _ if field.ends_with("ecretRef") => Some((SECRETS, text("name")?)),
        "persistentVolumeClaim" => Some((CLAIMS, text("claimName")?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn references(spec: Value) -> Vec<(&'static str, String, bool)> {
        let pod = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
        let pod = Pod::read(pod.to_string().as_bytes()).unwrap();
        let references = pod.references.into_iter();
        references
            .map(|one| (one.plural, one.name, one.is_optional))
            .collect()
    }

    #[test]
    fn every_way_to_refer_to_an_object_is_seen() {
        let env = json!([
            {"valueFrom": {"configMapKeyRef": {"name": "c1", "key": "k"}}},
            {"valueFrom": {"secretKeyRef": {"name": "s1", "key": "k", "optional": true}}},
            {"value": "secretName"}]);
        let env_from = json!([{"configMapRef": {"name": "c2"}}, {"secretRef": {"name": "s2"}}]);
        let spec = json!({
            "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [{"name": "i", "env": env}],
            "ephemeralContainers": [{"name": "e", "envFrom": env_from}],
            "volumes": [
                {"name": "a", "configMap": {"name": "c3"}},
                {"name": "b", "secret": {"secretName": "s3", "optional": true}},
                {"name": "p", "projected": {"sources": [
                    {"configMap": {"name": "kube-root-ca.crt"}}, {"secret": {"name": "s4"}},
                    {"serviceAccountToken": {"path": "token"}}]}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}},
                {"name": "csi", "csi": {"driver": "x", "nodePublishSecretRef": {"name": "s5"}}},
                {"name": "azure", "azureFile": {"secretName": "s6", "shareName": "x"}},
                {"name": "new", "aKindOfTomorrow": {"secretRef": {"name": "s7"}}}]});
        let expected = [
            ("configmaps", "c1", false),
            ("configmaps", "c2", false),
            ("configmaps", "c3", false),
            ("configmaps", "kube-root-ca.crt", false),
            (CLAIMS, "claim", false),
            (CLAIMS, "web-scratch", false),
            ("secrets", "pull", false),
            ("secrets", "s1", true),
            ("secrets", "s2", false),
            ("secrets", "s3", true),
            ("secrets", "s4", false),
            ("secrets", "s5", false),
            ("secrets", "s6", false),
            ("secrets", "s7", false),
        ];
        let expected = expected.map(|(plural, name, optional)| (plural, name.to_owned(), optional));
        assert_eq!(references(spec), expected);
    }

    #[test]
    fn a_pod_says_whose_it_is_and_whether_it_mounts_a_token() {
        let token = json!([{"serviceAccountToken": {"path": "token"}}]);
        for (spec, account, has_token) in [
            (
                json!({"volumes": [{"projected": {"sources": token}}], "serviceAccountName": "sa"}),
                "sa",
                true,
            ),
            (json!({}), "default", false),
        ] {
            let labels = json!({"k8s-app": "kube-proxy"});
            let pod = json!({"metadata": {"name": "web", "namespace": "shop", "labels": labels}, "spec": spec,
                "status": {"phase": "Failed"}});
            let pod = Pod::read(pod.to_string().as_bytes()).unwrap();
            assert_eq!((&*pod.account, pod.has_token), (account, has_token));
            assert!(pod.is_over && pod.is_proxy);
        }
    }

    #[test]
    fn what_is_needed_once_is_not_optional_because_it_is_optional_elsewhere() {
        let spec = json!({"volumes": [
            {"configMap": {"name": "c", "optional": true}}, {"configMap": {"name": "c"}}]});
        assert_eq!(references(spec), [("configmaps", "c".to_owned(), false)]);
    }

    #[test]
    fn names_that_no_object_can_have_and_other_shapes_refer_to_nothing() {
        let spec = json!({"volumes": [
            {"configMap": {"name": "a,metadata.namespace=kube-system"}}, {"configMap": "c"},
            {"secret": {"secretName": 7}}, {"configMap": {"name": "../x"}}, null]});
        assert_eq!(references(spec), []);
        assert_eq!(Pod::read(b"[]"), None);
        assert_eq!(Pod::read(b"{\"metadata\":{\"name\":\"a\""), None);
    }
}
