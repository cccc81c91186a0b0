//! What a restart needs of a node with these pods.

use super::*;
use crate::needs::pod::Reference;

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
        resource,
        namespace: namespace.map(str::to_owned),
        labels: LabelSelector::default(),
        fields: FieldSelector::parse(fields).unwrap(),
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
        assert_eq!(needs.has_object(&core(plural), key), is_needed, "{key}");
    }
}

#[test]
fn scopes_that_hold_what_is_needed_are_needed() {
    let needs = needs(&[pod("web", &[("secrets", "s")])]);
    for (scope, is_needed) in [
        (scope(core("pods"), None, "spec.nodeName=n1"), true),
        (scope(core("pods"), None, "spec.nodeName=n2"), false),
        (scope(core("pods"), None, ""), true),
        (scope(core("nodes"), None, "metadata.name=n1"), true),
        (scope(core("services"), None, "spec.clusterIP!=None"), true),
        (
            scope(core("secrets"), Some("shop"), "metadata.name=s"),
            true,
        ),
        (
            scope(core("secrets"), Some("shop"), "metadata.name=t"),
            false,
        ),
        (scope(core("secrets"), None, ""), true),
        (scope(core("configmaps"), Some("shop"), ""), false),
    ] {
        assert_eq!(needs.has_scope(&scope), is_needed, "{scope}");
    }
}
