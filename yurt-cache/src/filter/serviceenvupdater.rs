//! `serviceenvupdater`: containers that set the API server's address themselves get the hub's.

use serde_json::Value;

use super::context::Context;
use super::{Filter, Need, Outcome, Undecided, array, contains, outcome, set};
use crate::api::Resource;

const HOST: &str = "KUBERNETES_SERVICE_HOST";
const PORT: &str = "KUBERNETES_SERVICE_PORT";

#[derive(Debug)]
pub(super) struct ServiceEnvUpdater;

impl Filter for ServiceEnvUpdater {
    fn concerns(&self, resource: &Resource) -> bool {
        resource.group.is_empty() && resource.plural == "pods"
    }

    fn needs(&self) -> Need {
        Need::Hub
    }

    fn may_hide(&self) -> bool {
        false
    }

    fn may_concern(&self, object: &[u8], _context: &Context) -> bool {
        contains(object, HOST) || contains(object, PORT)
    }

    fn apply(&self, object: &mut Value, context: &Context) -> Result<Outcome, Undecided> {
        let Some(hub) = context.hub else {
            return Ok(Outcome::Keep);
        };
        let Some(spec) = object.get_mut("spec") else {
            return Ok(Outcome::Keep);
        };
        let (host, port) = (hub.ip().to_string(), hub.port().to_string());
        let mut is_changed = false;
        for container in array(spec, "containers", "spec.containers")? {
            for variable in array(container, "env", "spec.containers[].env")? {
                let value = match variable["name"].as_str() {
                    Some(HOST) => &host,
                    Some(PORT) => &port,
                    _ => continue,
                };
                let fields = variable
                    .as_object_mut()
                    .ok_or(Undecided::Malformed("spec.containers[].env"))?;
                // A value and a source together are refused by some readers.
                is_changed |= fields.remove("valueFrom").is_some();
                is_changed |= set(fields, "value", value.as_str().into());
            }
        }
        Ok(outcome(is_changed))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{check, context};
    use super::*;

    fn pod(env: &[Value]) -> Value {
        let containers: Vec<Value> = env
            .iter()
            .map(|env| json!({"name": "c", "env": env}))
            .collect();
        json!({"metadata": {"name": "p"}, "spec": {"containers": containers,
            "initContainers": [{"env": [{"name": HOST, "value": "a"}]}],
            "ephemeralContainers": [{"env": [{"name": PORT, "value": "1"}]}]}})
    }

    #[test]
    fn addresses_that_are_set_become_the_hubs_and_none_is_added() {
        let hub = json!([{"name": HOST, "value": "169.254.2.1"}, {"name": PORT, "value": "10268"}, {"name": "A", "value": "b"}]);
        for (given, expected) in [
            (
                vec![
                    json!([{"name": HOST, "value": "10.96.0.1"}, {"name": PORT, "value": "443"}, {"name": "A", "value": "b"}]),
                ],
                vec![hub.clone()],
            ),
            (
                vec![json!([{"name": HOST}])],
                vec![json!([{"name": HOST, "value": "169.254.2.1"}])],
            ),
            (
                vec![json!([{"name": HOST, "valueFrom": {"configMapKeyRef": {}}}])],
                vec![json!([{"name": HOST, "value": "169.254.2.1"}])],
            ),
            (
                vec![
                    json!([]),
                    hub.clone(),
                    json!([{"name": PORT, "value": "443"}]),
                ],
                vec![
                    json!([]),
                    hub.clone(),
                    json!([{"name": PORT, "value": "10268"}]),
                ],
            ),
            (
                vec![json!([{"name": "A", "value": HOST}])],
                vec![json!([{"name": "A", "value": HOST}])],
            ),
            (vec![Value::Null], vec![Value::Null]),
        ] {
            check(
                &ServiceEnvUpdater,
                &pod(&given),
                &context(),
                Ok(Some(pod(&expected))),
            );
        }
    }

    #[test]
    fn what_is_no_pod_is_left_alone_and_what_is_a_broken_one_is_not_decided() {
        let status = json!({"kind": "Status", "message": HOST});
        check(
            &ServiceEnvUpdater,
            &status,
            &context(),
            Ok(Some(status.clone())),
        );
        for (pod, path) in [
            (json!({"spec": {"containers": HOST}}), "spec.containers"),
            (
                json!({"spec": {"containers": [{"env": HOST}]}}),
                "spec.containers[].env",
            ),
        ] {
            check(
                &ServiceEnvUpdater,
                &pod,
                &context(),
                Err(Undecided::Malformed(path)),
            );
        }
    }
}
