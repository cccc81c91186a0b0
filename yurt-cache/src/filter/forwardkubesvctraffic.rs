//! `forwardkubesvctraffic`: what pods send to the API server's cluster IP goes to the hub.

use serde_json::{Value, json};

use super::context::{Context, SERVICE_NAME};
use super::{
    Filter, Need, Outcome, Undecided, array, contains, is_endpoint_slice, label, names, outcome,
    set,
};
use crate::api::Resource;

#[derive(Debug)]
pub(super) struct ForwardKubeSvcTraffic;

impl Filter for ForwardKubeSvcTraffic {
    fn concerns(&self, resource: &Resource) -> bool {
        is_endpoint_slice(resource)
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
        let (namespace, name) = names(object);
        let is_kubernetes =
            namespace == "default" && label(object, SERVICE_NAME).unwrap_or(name) == "kubernetes";
        let Some(hub) = context.hub.filter(|_| is_kubernetes) else {
            return Ok(Outcome::Keep);
        };
        let family = if hub.is_ipv4() { "IPv4" } else { "IPv6" };
        if object["addressType"] != family {
            return Ok(Outcome::Keep);
        }
        let mut is_changed = false;
        for port in array(object, "ports", "ports")? {
            let is_https = port["name"] == "https";
            let port = port.as_object_mut().ok_or(Undecided::Malformed("ports"))?;
            if is_https {
                is_changed |= set(port, "port", hub.port().into());
            }
        }
        let fields = object
            .as_object_mut()
            .ok_or(Undecided::Malformed("the slice"))?;
        let endpoint = json!({"addresses": [hub.ip().to_string()], "conditions": {"ready": true}});
        is_changed |= set(fields, "endpoints", json!([endpoint]));
        Ok(outcome(is_changed))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, context};
    use super::*;

    fn slice(namespace: &str, service: &str, family: &str, address: &str, port: u16) -> Value {
        json!({"metadata": {"namespace": namespace, "name": service, "labels": {SERVICE_NAME: service}},
            "addressType": family, "unknown": true,
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}]})
    }

    #[test]
    fn the_kubernetes_slice_points_to_the_hub_and_no_other() {
        let old = |namespace, service, family| slice(namespace, service, family, "10.0.0.10", 6443);
        let moved = slice("default", "kubernetes", "IPv4", "169.254.2.1", 10268);
        check(
            &ForwardKubeSvcTraffic,
            &old("default", "kubernetes", "IPv4"),
            &context(),
            Ok(Some(moved)),
        );
        for other in [
            old("default", "kubernetes", "IPv6"),
            old("default", "web", "IPv4"),
            old("kube-system", "kubernetes", "IPv4"),
        ] {
            check(
                &ForwardKubeSvcTraffic,
                &other,
                &context(),
                Ok(Some(other.clone())),
            );
        }
        let six = Context {
            hub: Some("[fd00::2:1]:10268".parse().unwrap()),
            ..context()
        };
        check(
            &ForwardKubeSvcTraffic,
            &old("default", "kubernetes", "IPv6"),
            &six,
            Ok(Some(slice(
                "default",
                "kubernetes",
                "IPv6",
                "fd00::2:1",
                10268,
            ))),
        );
        let mut odd = old("default", "kubernetes", "IPv4");
        odd["ports"] = json!([7]);
        check(
            &ForwardKubeSvcTraffic,
            &odd,
            &context(),
            Err(Undecided::Malformed("ports")),
        );
    }
}
