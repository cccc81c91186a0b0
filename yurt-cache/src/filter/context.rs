//! What filters know of the surroundings: plain data, how it is read from objects, and which objects look
//! different after a change of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Undecided, annotation, contains};

/// The annotation of a Service that says how far its traffic goes.
pub(crate) const TOPOLOGY: &str = "openyurt.io/topologyKeys";

/// The annotation of a Service that says in which pools its node ports open.
pub(crate) const LISTEN: &str = "nodeport.openyurt.io/listen";

/// The label of a slice that names its Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The label of a node that names its pool.
const POOL: &str = "apps.openyurt.io/nodepool";

/// The surroundings at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Context {
    /// Where pods reach the hub.
    pub(crate) hub: Option<SocketAddr>,
    /// This node.
    pub(crate) node: String,
    /// This node's pool.
    pub(crate) pool: Pool,
    /// The nodes of the pool; `None` if nobody has said yet.
    pub(crate) members: Option<BTreeSet<String>>,
    /// What Services say; `None` if nobody has said yet.
    pub(crate) services: Option<Services>,
}

/// The pool that a node is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Pool {
    #[default]
    Unknown,
    None,
    Of(String),
}

/// What filters know of all Services, by `namespace/name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Services {
    pub(crate) topologies: BTreeMap<String, Topology>,
    /// Those that say in which pools their node ports open.
    pub(crate) listeners: BTreeSet<String>,
}

/// How far the traffic of a Service goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Topology {
    Node,
    Pool,
}

/// Which endpoints of a Service this node may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usable<'a> {
    All,
    /// Those on this node.
    Here,
    /// Those on this node and these.
    On(&'a BTreeSet<String>),
}

/// What one Service says that filters need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) topology: Option<Topology>,
    pub(crate) listens: bool,
}

/// The objects that look different after a change: Services by `namespace/name`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Affected {
    /// Those whose endpoints do.
    pub(crate) endpoints: BTreeSet<String>,
    /// Those that do themselves.
    pub(crate) services: BTreeSet<String>,
}

impl Context {
    /// Returns which endpoints of a Service this node may use.
    ///
    /// # Errors
    /// If something that decides it is not known yet.
    pub(crate) fn usable(&self, service: &str) -> Result<Usable<'_>, Undecided> {
        let services = self
            .services
            .as_ref()
            .ok_or(Undecided::Unknown("what Services say"))?;
        match (services.topologies.get(service), &self.pool) {
            (None, _) => Ok(Usable::All),
            (Some(Topology::Node), _) | (Some(Topology::Pool), Pool::None) => Ok(Usable::Here),
            (Some(Topology::Pool), Pool::Unknown) => Err(Undecided::Unknown("the node's pool")),
            (Some(Topology::Pool), Pool::Of(_)) => match &self.members {
                None => Err(Undecided::Unknown("which nodes are in the pool")),
                // This node is in it, so the list is not made yet: traffic must go somewhere.
                Some(members) if members.is_empty() => Ok(Usable::All),
                Some(members) => Ok(Usable::On(members)),
            },
        }
    }

    /// Returns whether a Service speaks of pools.
    pub(crate) fn needs_pool(&self) -> bool {
        self.needs_members()
            || self
                .services
                .as_ref()
                .is_some_and(|services| !services.listeners.is_empty())
    }

    /// Returns whether a Service stays in the pool.
    pub(crate) fn needs_members(&self) -> bool {
        let mut topologies = self.services.iter().flat_map(|all| all.topologies.values());
        topologies.any(|topology| *topology == Topology::Pool)
    }

    /// Returns whether everything is known that Services make necessary.
    pub(crate) fn is_complete(&self) -> bool {
        let is_pool_known = !self.needs_pool() || self.pool != Pool::Unknown;
        let are_members_known =
            !self.needs_members() || self.members.is_some() || !matches!(self.pool, Pool::Of(_));
        self.services.is_some() && is_pool_known && are_members_known
    }

    /// Returns which objects look different when `self` becomes `new`. What could not be decided nobody has seen.
    pub(crate) fn affected(&self, new: &Self) -> Affected {
        let both = || [&self.services, &new.services].into_iter().flatten();
        let endpoints = both()
            .flat_map(|services| services.topologies.keys())
            .filter(|service| {
                let before = self.usable(service);
                before.is_ok() && before != new.usable(service)
            })
            .cloned();
        let services = both()
            .flat_map(|services| &services.listeners)
            .filter(|_| self.pool != Pool::Unknown && self.pool != new.pool)
            .cloned();
        Affected {
            endpoints: endpoints.collect(),
            services: services.collect(),
        }
    }
}

impl Services {
    /// Puts together what each Service says.
    pub(crate) fn of<'a>(facts: impl Iterator<Item = (&'a str, Facts)>) -> Self {
        let mut services = Self::default();
        for (key, facts) in facts {
            if let Some(topology) = facts.topology {
                services.topologies.insert(key.to_owned(), topology);
            }
            if facts.listens {
                services.listeners.insert(key.to_owned());
            }
        }
        services
    }
}

/// Reads what a Service says; `None` if it says nothing that filters need.
pub(crate) fn service_facts(service: &[u8]) -> Option<Facts> {
    if !contains(service, TOPOLOGY) && !contains(service, LISTEN) {
        return None;
    }
    let service: Value = serde_json::from_slice(service).ok()?;
    let facts = Facts {
        topology: topology(&service),
        listens: annotation(&service, LISTEN).is_some(),
    };
    (facts != Facts::default()).then_some(facts)
}

/// A Service that Kubernetes itself keeps near is left to kube-proxy.
fn topology(service: &Value) -> Option<Topology> {
    let spec = &service["spec"];
    if spec["internalTrafficPolicy"] == "Local" || spec["trafficDistribution"].is_string() {
        return None;
    }
    match annotation(service, TOPOLOGY)?.trim() {
        "kubernetes.io/hostname" => Some(Topology::Node),
        "openyurt.io/nodepool" | "kubernetes.io/zone" => Some(Topology::Pool),
        _ => None,
    }
}

/// Reads a node's pool, if it is in one.
pub(crate) fn pool_of_node(node: &[u8]) -> Option<String> {
    let node: Value = serde_json::from_slice(node).ok()?;
    let pool = super::label(&node, POOL)?;
    (!pool.is_empty()).then(|| pool.to_owned())
}

/// Reads the nodes of a NodePool.
pub(crate) fn nodes_of_pool(pool: &[u8]) -> Option<Vec<String>> {
    let pool: Value = serde_json::from_slice(pool).ok()?;
    let nodes = pool["status"]["nodes"].as_array();
    Some(texts(nodes.into_iter().flatten()))
}

/// Reads the nodes of a NodeBucket.
pub(crate) fn nodes_of_bucket(bucket: &[u8]) -> Option<Vec<String>> {
    let bucket: Value = serde_json::from_slice(bucket).ok()?;
    let nodes = bucket["nodes"].as_array();
    Some(texts(nodes.into_iter().flatten().map(|node| &node["name"])))
}

fn texts<'a>(values: impl Iterator<Item = &'a Value>) -> Vec<String> {
    values
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(annotations: Value, spec: Value) -> Option<Facts> {
        let service = json!({"metadata": {"annotations": annotations}, "spec": spec});
        service_facts(service.to_string().as_bytes())
    }

    #[test]
    fn a_service_says_how_far_its_traffic_goes_unless_kubernetes_keeps_it_near() {
        let keys = |value: &str| json!({TOPOLOGY: value});
        for (value, expected) in [
            ("kubernetes.io/hostname", Some(Topology::Node)),
            (" openyurt.io/nodepool", Some(Topology::Pool)),
            ("kubernetes.io/zone", Some(Topology::Pool)),
            ("somewhere", None),
            ("", None),
        ] {
            let said = facts(keys(value), json!({"internalTrafficPolicy": "Cluster"}));
            assert_eq!(said.and_then(|facts| facts.topology), expected, "{value}");
        }
        for stock in [
            json!({"internalTrafficPolicy": "Local"}),
            json!({"trafficDistribution": "PreferClose"}),
        ] {
            assert_eq!(facts(keys("kubernetes.io/hostname"), stock), None);
        }
        assert_eq!(facts(json!({"a": "b"}), json!({})), None);
        assert!(facts(json!({LISTEN: ""}), json!({})).unwrap().listens);
        assert_eq!(
            service_facts(format!("{TOPOLOGY} is no JSON").as_bytes()),
            None
        );
    }

    #[test]
    fn pools_and_their_nodes_are_read_from_what_is_there() {
        let pool = |label: Value| {
            pool_of_node(
                json!({"metadata": {"labels": {POOL: label}}})
                    .to_string()
                    .as_bytes(),
            )
        };
        assert_eq!(pool(json!("here")), Some("here".to_owned()));
        assert_eq!(pool(json!("")), None);
        assert_eq!(pool_of_node(b"{}"), None);
        assert_eq!(
            nodes_of_pool(br#"{"status":{"nodes":["a",1,"b"]}}"#).unwrap(),
            ["a", "b"]
        );
        assert!(nodes_of_pool(b"{}").unwrap().is_empty());
        assert_eq!(
            nodes_of_bucket(br#"{"nodes":[{"name":"a"},{}]}"#).unwrap(),
            ["a"]
        );
    }

    fn context(
        topologies: &[(&str, Topology)],
        listeners: &[&str],
        pool: &str,
        members: Option<&[&str]>,
    ) -> Context {
        let services = Services {
            topologies: topologies
                .iter()
                .map(|(key, topology)| ((*key).to_owned(), *topology))
                .collect(),
            listeners: listeners.iter().map(|key| (*key).to_owned()).collect(),
        };
        Context {
            pool: match pool {
                "?" => Pool::Unknown,
                "-" => Pool::None,
                pool => Pool::Of(pool.to_owned()),
            },
            members: members.map(|members| members.iter().map(|name| (*name).to_owned()).collect()),
            services: Some(services),
            ..Context::default()
        }
    }

    #[test]
    fn a_change_affects_what_looks_different_and_nothing_else() {
        let node = ("a/node", Topology::Node);
        let pool = ("a/pool", Topology::Pool);
        let both = [node, pool];
        let here = context(&both, &["a/port"], "here", Some(&["n1"]));
        for (new, endpoints, services) in [
            (here.clone(), vec![], vec![]),
            (
                context(&[node], &["a/port"], "here", Some(&["n1"])),
                vec!["a/pool"],
                vec![],
            ),
            (
                context(&[pool], &[], "here", Some(&["n1"])),
                vec!["a/node"],
                vec![],
            ),
            (
                context(&both, &["a/port"], "here", Some(&["n1", "n2"])),
                vec!["a/pool"],
                vec![],
            ),
            (
                context(&both, &["a/port"], "here", Some(&[])),
                vec!["a/pool"],
                vec![],
            ),
            (
                context(&both, &["a/port"], "-", None),
                vec!["a/pool"],
                vec!["a/port"],
            ),
            (
                context(&both, &["a/new", "a/port"], "here", Some(&["n1"])),
                vec![],
                vec![],
            ),
            (
                Context {
                    services: None,
                    ..here.clone()
                },
                vec!["a/node", "a/pool"],
                vec![],
            ),
        ] {
            let affected = here.affected(&new);
            assert_eq!(Vec::from_iter(&affected.endpoints), endpoints, "{new:?}");
            assert_eq!(Vec::from_iter(&affected.services), services, "{new:?}");
        }
        for undecided in [
            Context {
                services: None,
                ..here.clone()
            },
            context(&[pool], &["a/port"], "?", None),
        ] {
            assert!(!undecided.affected(&here).endpoints.contains("a/pool"));
            assert!(here.affected(&undecided).endpoints.contains("a/pool"));
        }
        let unknown = context(&both, &["a/port"], "?", None);
        assert!(unknown.affected(&here).services.is_empty());
    }

    #[test]
    fn only_what_services_speak_of_has_to_be_known() {
        let node = ("a/node", Topology::Node);
        let pool = ("a/pool", Topology::Pool);
        for (context, expected) in [
            (context(&[node], &[], "?", None), true),
            (context(&[pool], &[], "?", None), false),
            (context(&[pool], &[], "-", None), true),
            (context(&[pool], &[], "here", None), false),
            (context(&[pool], &[], "here", Some(&[])), true),
            (context(&[node], &["a/port"], "?", None), false),
            (context(&[node], &["a/port"], "here", None), true),
            (Context::default(), false),
        ] {
            assert_eq!(context.is_complete(), expected, "{context:?}");
        }
    }
}
