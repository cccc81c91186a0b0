//! `servicetopology`: the traffic of a Service stays on this node or in its pool, where the Service says so.

use serde_json::{Map, Value};

use super::context::{Context, SERVICE_NAME, Usable};
use super::{Filter, Need, Outcome, Undecided, array, is_endpoint_slice, label, names, outcome};
use crate::api::Resource;
use crate::codec::ObjectMeta;

#[derive(Debug)]
pub(super) struct ServiceTopology;

impl Filter for ServiceTopology {
    fn concerns(&self, resource: &Resource) -> bool {
        is_endpoint_slice(resource) || is_endpoints(resource)
    }

    fn needs(&self) -> Need {
        Need::Services
    }

    fn may_hide(&self) -> bool {
        false
    }

    fn may_concern(&self, object: &[u8], context: &Context) -> bool {
        let Some(services) = &context.services else {
            return true;
        };
        !services.topologies.is_empty()
            && service_of_bytes(object)
                .is_none_or(|service| services.topologies.contains_key(&service))
    }

    fn apply(&self, object: &mut Value, context: &Context) -> Result<Outcome, Undecided> {
        let usable = context.usable(&service(object))?;
        if usable == Usable::All {
            return Ok(Outcome::Keep);
        }
        let keeping = Keeping {
            node: &context.node,
            usable,
        };
        let is_changed = if object.get("subsets").is_some() {
            keeping.filter_subsets(object)?
        } else {
            keeping.filter_list(object, "endpoints", node_of_endpoint)?
        };
        Ok(outcome(is_changed))
    }
}

fn is_endpoints(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "endpoints"
}

/// Returns the Service that a slice or an Endpoints object belongs to.
fn service(object: &Value) -> String {
    let (namespace, name) = names(object);
    format!(
        "{namespace}/{}",
        label(object, SERVICE_NAME).unwrap_or(name)
    )
}

pub(super) fn service_of_bytes(object: &[u8]) -> Option<String> {
    let meta = ObjectMeta::parse(object).ok()?;
    let mut labels = meta.labels.iter();
    let labelled = labels.find(|(key, _)| key == SERVICE_NAME);
    let name = labelled.map_or(&meta.name, |(_, name)| name);
    Some(format!("{}/{name}", meta.namespace))
}

struct Keeping<'a> {
    node: &'a str,
    usable: Usable<'a>,
}

impl Keeping<'_> {
    /// Returns whether an endpoint on a node may be used; one without a node is nowhere near.
    fn keeps(&self, node: Option<&str>) -> bool {
        let is_here = node == Some(self.node);
        match self.usable {
            Usable::All => true,
            Usable::Here => is_here,
            Usable::On(members) => is_here || node.is_some_and(|node| members.contains(node)),
        }
    }

    /// Takes what may not be used out of a list; returns whether there was any.
    fn filter_list(
        &self,
        parent: &mut Value,
        name: &'static str,
        node_of: fn(&Map<String, Value>) -> Option<&str>,
    ) -> Result<bool, Undecided> {
        let items = array(parent, name, name)?;
        let mut kept = Vec::new();
        for item in &*items {
            let fields = item.as_object().ok_or(Undecided::Malformed(name))?;
            if self.keeps(node_of(fields)) {
                kept.push(item.clone());
            }
        }
        if kept.len() == items.len() {
            return Ok(false);
        }
        parent[name] = kept.into();
        Ok(true)
    }

    /// Filters Endpoints: there are neither empty lists of addresses nor subsets without any.
    fn filter_subsets(&self, object: &mut Value) -> Result<bool, Undecided> {
        let subsets = array(object, "subsets", "subsets")?;
        let mut is_changed = false;
        let mut kept = Vec::new();
        for subset in subsets {
            let mut has_some = false;
            let mut has_lost = false;
            for name in ["addresses", "notReadyAddresses"] {
                let is_shorter = self.filter_list(subset, name, node_of_address)?;
                let is_empty = array(subset, name, name)?.is_empty();
                if is_shorter && is_empty {
                    subset
                        .as_object_mut()
                        .and_then(|subset| subset.remove(name));
                }
                has_lost |= is_shorter;
                has_some |= !is_empty;
            }
            is_changed |= has_lost;
            if has_some || !has_lost {
                kept.push(subset.take());
            }
        }
        object["subsets"] = kept.into();
        Ok(is_changed)
    }
}

/// The older version of slices has the node in its topology.
fn node_of_endpoint(endpoint: &Map<String, Value>) -> Option<&str> {
    let topology = || endpoint.get("topology")?.get("kubernetes.io/hostname");
    endpoint.get("nodeName").or_else(topology)?.as_str()
}

fn node_of_address(address: &Map<String, Value>) -> Option<&str> {
    address.get("nodeName")?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::context::Pool;
    use super::super::tests::{check, context};
    use super::*;

    /// A slice with an endpoint on each of these nodes; `-` stands for none.
    fn slice(service: &str, nodes: &[&str]) -> Value {
        let endpoint = |node: &&str| match *node {
            "-" => json!({"addresses": ["10.0.0.1"]}),
            node => json!({"addresses": ["10.0.0.1"], "nodeName": node, "unknown": 1}),
        };
        let endpoints: Vec<Value> = nodes.iter().map(endpoint).collect();
        json!({"metadata": {"namespace": "a", "name": format!("{service}-x"), "labels": {SERVICE_NAME: service}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 80}]})
    }

    fn old_slice(nodes: &[&str]) -> Value {
        let mut slice = slice("pool", &[]);
        let endpoint = |node: &&str| json!({"addresses": ["10.0.0.1"], "topology": {"kubernetes.io/hostname": node}});
        slice["endpoints"] = nodes.iter().map(endpoint).collect();
        slice
    }

    fn endpoints(service: &str, subsets: &[(&[&str], &[&str])]) -> Value {
        let addresses = |nodes: &[&str]| -> Vec<Value> {
            nodes
                .iter()
                .map(|node| json!({"ip": "10.0.0.1", "nodeName": node}))
                .collect()
        };
        let subsets: Vec<Value> = subsets
            .iter()
            .map(|(ready, not_ready)| {
                let mut subset = json!({"ports": [{"port": 80}]});
                if !ready.is_empty() {
                    subset["addresses"] = addresses(ready).into();
                }
                if !not_ready.is_empty() {
                    subset["notReadyAddresses"] = addresses(not_ready).into();
                }
                subset
            })
            .collect();
        json!({"metadata": {"namespace": "a", "name": service}, "subsets": subsets})
    }

    #[test]
    fn endpoints_stay_on_the_node_or_in_the_pool_as_their_service_says() {
        let all = &["n1", "n2", "n3", "-"][..];
        for (service, expected) in [
            ("node", &["n1"][..]),
            ("pool", &["n1", "n2"]),
            ("plain", all),
        ] {
            check(
                &ServiceTopology,
                &slice(service, all),
                &context(),
                Ok(Some(slice(service, expected))),
            );
        }
        check(
            &ServiceTopology,
            &old_slice(&["n1", "n2", "n3"]),
            &context(),
            Ok(Some(old_slice(&["n1", "n2"]))),
        );
        let elsewhere = slice("node", &["n2", "n3"]);
        check(
            &ServiceTopology,
            &elsewhere,
            &context(),
            Ok(Some(slice("node", &[]))),
        );
        check(
            &ServiceTopology,
            &slice("pool", &[]),
            &context(),
            Ok(Some(slice("pool", &[]))),
        );
    }

    #[test]
    fn the_older_endpoints_are_filtered_too() {
        for (service, given, expected) in [
            (
                "node",
                &[(&["n1", "n2"][..], &["n2"][..])][..],
                &[(&["n1"][..], &[][..])][..],
            ),
            (
                "pool",
                &[(&["n3"], &["n2", "n3"]), (&["n3"], &[])],
                &[(&[], &["n2"])],
            ),
            ("node", &[(&["n2"], &[])], &[]),
            ("plain", &[(&["n2"], &["n3"])], &[(&["n2"], &["n3"])]),
        ] {
            check(
                &ServiceTopology,
                &endpoints(service, given),
                &context(),
                Ok(Some(endpoints(service, expected))),
            );
        }
    }

    #[test]
    fn a_node_without_a_pool_keeps_traffic_on_itself() {
        let context = Context {
            pool: Pool::None,
            members: None,
            ..context()
        };
        let expected = slice("pool", &["n1"]);
        check(
            &ServiceTopology,
            &slice("pool", &["n1", "n2"]),
            &context,
            Ok(Some(expected)),
        );
    }

    #[test]
    fn a_pool_whose_nodes_are_not_listed_yet_loses_no_traffic_and_this_node_is_always_in_it() {
        let given = slice("pool", &["n1", "n2", "n3"]);
        for (members, expected) in [(&[][..], &["n1", "n2", "n3"][..]), (&["n2"], &["n1", "n2"])] {
            let members = members.iter().map(|name| (*name).to_owned()).collect();
            let context = Context {
                members: Some(members),
                ..context()
            };
            check(
                &ServiceTopology,
                &given,
                &context,
                Ok(Some(slice("pool", expected))),
            );
        }
    }

    #[test]
    fn nothing_is_decided_before_what_decides_it_is_known() {
        for (context, what) in [
            (
                Context {
                    services: None,
                    ..context()
                },
                "what Services say",
            ),
            (
                Context {
                    pool: Pool::Unknown,
                    ..context()
                },
                "the node's pool",
            ),
            (
                Context {
                    members: None,
                    ..context()
                },
                "which nodes are in the pool",
            ),
        ] {
            check(
                &ServiceTopology,
                &slice("pool", &["n1"]),
                &context,
                Err(Undecided::Unknown(what)),
            );
        }
        for (field, odd) in [
            ("endpoints", json!(1)),
            ("endpoints", json!([1])),
            ("subsets", json!({})),
        ] {
            let mut object = slice("node", &[]);
            object[field] = odd;
            check(
                &ServiceTopology,
                &object,
                &context(),
                Err(Undecided::Malformed(field)),
            );
        }
    }
}
