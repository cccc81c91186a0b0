//! `discardcloudservice`: load balancers that are of use in the cloud only are hidden.

use serde_json::Value;

use super::context::Context;
use super::{Filter, Need, Outcome, Undecided, annotation, contains, is_service, names};
use crate::api::Resource;

/// `"true"` hides a load balancer at the edge.
const DISCARD: &str = "svc.openyurt.io/discard";

/// The cloud's end of OpenYurt's tunnel: namespace and name.
const TUNNEL: (&str, &str) = ("kube-system", "x-tunnel-server-internal-svc");

#[derive(Debug)]
pub(super) struct DiscardCloudService;

impl Filter for DiscardCloudService {
    fn concerns(&self, resource: &Resource) -> bool {
        is_service(resource)
    }

    fn needs(&self) -> Need {
        Need::Nothing
    }

    fn may_hide(&self) -> bool {
        true
    }

    fn may_concern(&self, object: &[u8], _context: &Context) -> bool {
        contains(object, DISCARD) || contains(object, TUNNEL.1)
    }

    fn apply(&self, object: &mut Value, _context: &Context) -> Result<Outcome, Undecided> {
        let is_load_balancer = object["spec"]["type"] == "LoadBalancer";
        let is_discarded = is_load_balancer && annotation(object, DISCARD) == Some("true");
        if is_discarded || names(object) == TUNNEL {
            return Ok(Outcome::Drop);
        }
        Ok(Outcome::Keep)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{check, context};
    use super::*;

    #[test]
    fn only_discarded_load_balancers_and_the_tunnels_cloud_end_are_hidden() {
        let service = |name: &str, kind: &str, discard: &str| {
            json!({"metadata": {"namespace": "kube-system", "name": name, "annotations": {DISCARD: discard}},
                "spec": {"type": kind}})
        };
        for (object, is_hidden) in [
            (service("a", "LoadBalancer", "true"), true),
            (service("a", "LoadBalancer", "false"), false),
            (service("a", "ClusterIP", "true"), false),
            (
                service("x-tunnel-server-internal-svc", "ClusterIP", ""),
                true,
            ),
            (
                json!({"metadata": {"namespace": "default", "name": TUNNEL.1}}),
                false,
            ),
            (json!({"spec": {"type": "LoadBalancer"}}), false),
        ] {
            let expected = (!is_hidden).then(|| object.clone());
            check(&DiscardCloudService, &object, &context(), Ok(expected));
        }
    }
}
