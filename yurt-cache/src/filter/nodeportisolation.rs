//! `nodeportisolation`: node ports open in the pools that a Service names, and nowhere else.

use serde_json::Value;

use super::context::{Context, LISTEN, Pool};
use super::{Filter, Need, Outcome, Undecided, annotation, contains, is_service};
use crate::api::Resource;

#[derive(Debug)]
pub(super) struct NodePortIsolation;

impl Filter for NodePortIsolation {
    fn concerns(&self, resource: &Resource) -> bool {
        is_service(resource)
    }

    fn needs(&self) -> Need {
        Need::Services
    }

    fn may_hide(&self) -> bool {
        true
    }

    fn may_concern(&self, object: &[u8], _context: &Context) -> bool {
        contains(object, LISTEN)
    }

    fn apply(&self, object: &mut Value, context: &Context) -> Result<Outcome, Undecided> {
        let has_node_port = matches!(
            object["spec"]["type"].as_str(),
            Some("NodePort" | "LoadBalancer")
        );
        let Some(pools) = annotation(object, LISTEN).filter(|_| has_node_port) else {
            return Ok(Outcome::Keep);
        };
        match &context.pool {
            Pool::Unknown => Err(Undecided::Unknown("the node's pool")),
            Pool::Of(pool) if !listens(pools, pool) => Ok(Outcome::Drop),
            Pool::None | Pool::Of(_) => Ok(Outcome::Keep),
        }
    }
}

/// Returns whether a list of `pool`, `-pool` and `*` opens the port in a pool. Of what is said of the pool
/// itself the first counts, and more than what is said of all.
fn listens(pools: &str, pool: &str) -> bool {
    let mut is_for_all = false;
    for word in pools.split(',').map(str::trim) {
        match word.strip_prefix('-') {
            Some(closed) if closed == pool => return false,
            None if word == pool => return true,
            Some(_) | None => is_for_all |= word == "*",
        }
    }
    is_for_all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{check, context};
    use super::*;

    fn service(kind: &str, pools: &str) -> Value {
        json!({"metadata": {"name": "a", "annotations": {LISTEN: pools}}, "spec": {"type": kind}})
    }

    #[test]
    fn a_port_opens_in_the_pools_that_are_named() {
        for (pools, is_open) in [
            ("here", true),
            (" here ,there", true),
            ("there", false),
            ("*", true),
            ("-here", false),
            ("-here,*", false),
            ("*,-here", false),
            ("*,-there", true),
            ("here,-here", true),
            ("-here,here", false),
            ("here,here,there,there", true),
            ("", false),
            (",", false),
            ("hereabouts", false),
        ] {
            for kind in ["NodePort", "LoadBalancer"] {
                let object = service(kind, pools);
                let expected = is_open.then(|| object.clone());
                check(&NodePortIsolation, &object, &context(), Ok(expected));
            }
        }
    }

    #[test]
    fn what_has_no_node_port_or_no_pool_is_left_alone() {
        let kept = [
            (service("ClusterIP", "there"), context()),
            (json!({"spec": {"type": "NodePort"}}), context()),
            (
                service("NodePort", "there"),
                Context {
                    pool: Pool::None,
                    ..context()
                },
            ),
        ];
        for (object, context) in kept {
            check(
                &NodePortIsolation,
                &object,
                &context,
                Ok(Some(object.clone())),
            );
        }
    }

    #[test]
    fn nothing_is_decided_before_the_pool_is_known() {
        let context = Context {
            pool: Pool::Unknown,
            ..context()
        };
        let expected = Err(Undecided::Unknown("the node's pool"));
        check(
            &NodePortIsolation,
            &service("NodePort", "here"),
            &context,
            expected,
        );
    }
}
