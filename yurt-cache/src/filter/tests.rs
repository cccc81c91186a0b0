//! What holds for every filter: unknown fields survive, and a second time changes nothing.

use std::cell::RefCell;
use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::context::{LISTEN, Pool, SERVICE_NAME, Services, Topology};
use super::*;

/// Node `n1` of the pool `here`, with Services `a/node` and `a/pool` that stay near.
pub(super) fn context() -> Context {
    Context {
        hub: Some("169.254.2.1:10268".parse().unwrap()),
        node: "n1".to_owned(),
        pool: Pool::Of("here".to_owned()),
        members: Some(BTreeSet::from(["n1".to_owned(), "n2".to_owned()])),
        services: Some(Services {
            topologies: [("a/node", Topology::Node), ("a/pool", Topology::Pool)]
                .map(|(key, topology)| (key.to_owned(), topology))
                .into(),
            listeners: BTreeSet::from(["a/port".to_owned()]),
        }),
    }
}

/// Checks what a filter makes of an object, `None` for a hidden one, and that it says so of what it did.
#[track_caller]
pub(super) fn check(
    filter: &dyn Filter,
    object: &Value,
    context: &Context,
    expected: Result<Option<Value>, Undecided>,
) {
    let mut tree = object.clone();
    let outcome = filter.apply(&mut tree, context);
    let is_same = tree == *object;
    let made = outcome.map(|outcome| (outcome != Outcome::Drop).then_some(tree));
    assert_eq!(made, expected, "{object}");
    if let Ok(outcome) = outcome {
        assert_eq!(outcome == Outcome::Changed, !is_same, "{object}");
        if outcome != Outcome::Keep {
            let bytes = object.to_string();
            assert!(filter.may_concern(bytes.as_bytes(), context), "{object}");
        }
    }
    if let Ok(Some(mut again)) = made {
        assert_eq!(
            filter.apply(&mut again, context),
            Ok(Outcome::Keep),
            "twice: {again}"
        );
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z<\"é]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,4}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// An object of any kind that filters look at, with fields that nobody knows everywhere.
fn any_object() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "kubernetes",
        "kube-proxy",
        "node",
        "pool",
        "port",
        "x-tunnel-server-internal-svc",
    ]);
    let namespace = prop::sample::select(vec!["default", "kube-system", "a"]);
    let nodes = prop::collection::vec(prop::sample::select(vec!["n1", "n2", "n3", ""]), 0..4);
    let kind = prop::sample::select(vec!["ClusterIP", "NodePort", "LoadBalancer"]);
    let pools = prop::sample::select(vec!["here", "-here", "*", "there", ""]);
    let extra = prop::collection::vec(any_json(), 8);
    (name, namespace, nodes, kind, pools, 0..5_u8, extra).prop_map(
        |(name, namespace, nodes, kind, pools, shape, extra)| {
            let unknown = RefCell::new(extra.into_iter());
            let with = |mut object: Value| {
                object["x"] = unknown.borrow_mut().next().unwrap_or_default();
                object
            };
            let meta = with(json!({"namespace": namespace, "name": name,
                "labels": {SERVICE_NAME: name}, "annotations": {LISTEN: pools, "svc.openyurt.io/discard": "true"}}));
            let endpoint = |node: &&str| json!({"addresses": ["10.0.0.1"], "nodeName": node, "y": [1, {}]});
            let endpoints: Vec<Value> = nodes.iter().map(endpoint).collect();
            let ports = json!([{"name": "https", "port": 443, "z": null}, {"name": "other", "port": 1}]);
            let rest = match shape {
                0 => json!({"spec": with(json!({"type": kind, "clusterIP": "10.96.0.1", "ports": ports}))}),
                1 => json!({"addressType": "IPv4", "endpoints": endpoints, "ports": ports}),
                2 => json!({"subsets": [with(json!({"addresses": endpoints})), {"notReadyAddresses": endpoints}]}),
                3 => json!({"data": with(json!({"config.conf": "a:\n  kubeconfig: b\n", "b": ""}))}),
                _ => json!({"spec": with(json!({"containers": [with(json!({"env": [
                    {"name": "KUBERNETES_SERVICE_HOST", "value": "a", "w": 1}, {"name": "A", "value": "b"}]}))]}))}),
            };
            let mut object = with(rest);
            object["metadata"] = meta;
            object
        },
    )
}

/// The paths that a filter may change: fields, with `*` for each item of a list.
fn owned(name: FilterName) -> &'static [&'static str] {
    match name {
        FilterName::ServiceTopology => &["endpoints", "subsets"],
        FilterName::MasterService => &["spec.clusterIP", "spec.clusterIPs", "spec.ports.*.port"],
        FilterName::DiscardCloudService | FilterName::NodePortIsolation => &[],
        FilterName::InClusterConfig => &["data.config.conf"],
        FilterName::ForwardKubeSvcTraffic => &["endpoints", "ports.*.port"],
        FilterName::ServiceEnvUpdater => &[
            "spec.containers.*.env.*.value",
            "spec.containers.*.env.*.valueFrom",
        ],
    }
}

/// Collects the paths at which two trees differ.
fn differences(old: &Value, new: &Value, path: &str, found: &mut Vec<String>) {
    let below = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let null = Value::Null;
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let of = |fields: &Map<String, Value>| fields.get(name).cloned();
                differences(
                    &of(old).unwrap_or(null.clone()),
                    &of(new).unwrap_or(null.clone()),
                    &below(name),
                    found,
                );
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (old, new) in old.iter().zip(new) {
                differences(old, new, &below("*"), found);
            }
        }
        (old, new) if old == new => {}
        _ => found.push(path.to_owned()),
    }
}

proptest! {
    #[test]
    fn a_filter_changes_only_the_paths_that_are_its_own_and_only_once(object in any_object()) {
        for name in FilterName::ALL {
            let filter = filter(name);
            let mut made = object.clone();
            let Ok(outcome) = filter.apply(&mut made, &context()) else { continue };
            let mut paths = Vec::new();
            differences(&object, &made, "", &mut paths);
            for path in &paths {
                let is_own = owned(name).iter().any(|own| path == own || path.strip_prefix(own).is_some_and(|rest| rest.starts_with('.')));
                prop_assert!(is_own, "{name} changed {path} of {object}");
            }
            if outcome != Outcome::Drop {
                prop_assert_eq!(outcome == Outcome::Changed, made != object);
                prop_assert_eq!(filter.apply(&mut made, &context()), Ok(Outcome::Keep));
            }
        }
    }

    #[test]
    fn no_filter_panics_or_hides_in_what_is_no_object(object in any_json()) {
        for name in FilterName::ALL {
            let outcome = filter(name).apply(&mut object.clone(), &context());
            prop_assert_ne!(outcome, Ok(Outcome::Drop));
        }
    }
}
