//! `masterservice`: the Service `default/kubernetes` has the hub's address, so that the kubelet writes it into
//! the environment of pods.

use serde_json::{Value, json};

use super::context::Context;
use super::{Filter, Need, Outcome, Undecided, array, contains, is_service, names, outcome, set};
use crate::api::Resource;

#[derive(Debug)]
pub(super) struct MasterService;

impl Filter for MasterService {
    fn concerns(&self, resource: &Resource) -> bool {
        is_service(resource)
    }

    fn needs(&self) -> Need {
        Need::Hub
    }

    fn may_hide(&self) -> bool {
        false
    }

    fn may_concern(&self, object: &[u8], _context: &Context) -> bool {
        contains(object, "\"kubernetes\"")
    }

    fn apply(&self, object: &mut Value, context: &Context) -> Result<Outcome, Undecided> {
        let Some(hub) = context
            .hub
            .filter(|_| names(object) == ("default", "kubernetes"))
        else {
            return Ok(Outcome::Keep);
        };
        let spec = object.get_mut("spec").ok_or(Undecided::Malformed("spec"))?;
        let mut is_changed = false;
        for port in array(spec, "ports", "spec.ports")? {
            let is_https = port["name"] == "https";
            let port = port
                .as_object_mut()
                .ok_or(Undecided::Malformed("spec.ports"))?;
            if is_https {
                is_changed |= set(port, "port", hub.port().into());
            }
        }
        let spec = spec.as_object_mut().ok_or(Undecided::Malformed("spec"))?;
        let host = hub.ip().to_string();
        is_changed |= set(spec, "clusterIPs", json!([host]));
        is_changed |= set(spec, "clusterIP", host.into());
        Ok(outcome(is_changed))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, context};
    use super::*;

    #[test]
    fn the_kubernetes_service_has_the_hubs_address() {
        let service = |namespace: &str, name: &str| {
            json!({"metadata": {"namespace": namespace, "name": name}, "spec": {
                "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "unknown": {"a": [1.5, null]},
                "ports": [{"name": "https", "port": 443, "targetPort": 6443}, {"name": "metrics", "port": 9}]}})
        };
        let rewritten = json!({"metadata": {"namespace": "default", "name": "kubernetes"}, "spec": {
            "clusterIP": "169.254.2.1", "clusterIPs": ["169.254.2.1"], "unknown": {"a": [1.5, null]},
            "ports": [{"name": "https", "port": 10268, "targetPort": 6443}, {"name": "metrics", "port": 9}]}});
        for (object, expected) in [
            (service("default", "kubernetes"), Ok(Some(rewritten))),
            (
                service("kube-system", "kubernetes"),
                Ok(Some(service("kube-system", "kubernetes"))),
            ),
            (
                service("default", "web"),
                Ok(Some(service("default", "web"))),
            ),
            (
                json!({"metadata": {"namespace": "default", "name": "kubernetes"}, "spec": {"ports": 1}}),
                Err(Undecided::Malformed("spec.ports")),
            ),
            (
                json!({"metadata": {"namespace": "default", "name": "kubernetes"}, "spec": 1}),
                Err(Undecided::Malformed("spec")),
            ),
        ] {
            check(&MasterService, &object, &context(), expected);
        }
    }

    #[test]
    fn without_an_address_for_pods_nothing_changes() {
        let object =
            json!({"metadata": {"namespace": "default", "name": "kubernetes"}, "spec": {}});
        let context = Context {
            hub: None,
            ..context()
        };
        check(&MasterService, &object, &context, Ok(Some(object.clone())));
    }
}
