//! What a restart needs of a node with these pods.

use super::*;
use crate::retention::pod::Reference;

fn pod(name: &str, references: &[(&'static str, &str)]) -> Pod {
    let reference = |(plural, name): &(&'static str, &str)| Reference {
        plural,
        name: (*name).to_owned(),
        is_optional: false,
    };
    Pod {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        references: references.iter().map(reference).collect(),
        ..Pod::default()
    }
}

fn needs(pods: &[Pod]) -> Needs {
    let volume_of = |_: &str, claim: &str| (claim == "bound").then(|| "pv-1".to_owned());
    Needs::of(&"n1".parse().unwrap(), pods, volume_of)
}

fn scope(resource: Resource, namespace: Option<&str>, fields: &str) -> Scope {
    Scope {
        fields: FieldSelector::parse(fields).unwrap(),
        ..Scope::all(resource).in_namespace(namespace.map(str::to_owned))
    }
}

#[test]
fn a_claim_leads_to_its_volume_and_a_pod_that_is_over_to_nothing() {
    let over = Pod {
        is_over: true,
        ..pod("done", &[("secrets", "old")])
    };
    let needs = needs(&[
        pod("web", &[("secrets", "s"), (pod::CLAIMS, "bound")]),
        pod("db", &[(pod::CLAIMS, "unbound")]),
        over,
    ]);
    assert_eq!(needs.pods, 2);
    for (plural, key, is_needed) in [
        ("secrets", "shop/s", true),
        ("secrets", "other/s", false),
        ("secrets", "shop/old", false),
        ("persistentvolumes", "/pv-1", true),
        ("persistentvolumes", "/pv-2", false),
        ("pods", "shop/web", true),
        ("nodes", "/n1", true),
        ("nodes", "/n2", false),
    ] {
        assert_eq!(
            needs.has_object(&Resource::core(plural), key),
            is_needed,
            "{key}"
        );
    }
}

#[test]
fn a_restart_is_answered_from_the_scopes_of_the_kubelet_and_of_each_object() {
    let needs = needs(&[pod("web", &[("secrets", "s")])]);
    let scopes: Vec<String> = needs.scopes().map(|scope| scope.to_string()).collect();
    assert_eq!(
        scopes,
        [
            "v1/nodes where metadata.name=n1",
            "v1/pods where spec.nodeName=n1",
            "v1/services where spec.clusterIP!=None",
            "node.k8s.io/v1/runtimeclasses",
            "storage.k8s.io/v1/csidrivers",
            "v1/secrets in shop where metadata.name=s",
        ]
    );
    assert!(needs.scopes().all(|scope| is_always_kept(&scope)));
}

#[test]
fn what_may_be_large_and_no_kubelet_lists_is_not_kept_whatever_it_costs() {
    for (resource, fields) in [
        (Resource::core("pods"), ""),
        (Resource::core("nodes"), ""),
        (Resource::core("secrets"), "type=Opaque"),
        (
            Resource::new("discovery.k8s.io", "v1", "endpointslices"),
            "",
        ),
    ] {
        let scope = scope(resource, None, fields);
        assert!(!is_always_kept(&scope), "{scope}");
    }
}
