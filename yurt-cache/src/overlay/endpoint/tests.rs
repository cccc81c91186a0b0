use super::*;

fn pod(uid: &str, ips: &[&str], ready: &str, deleted: bool) -> PodFacts {
    let mut pod = json!({
        "metadata": {"uid": uid},
        "status": {
            "phase": "Running",
            "podIPs": ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
            "conditions": [{"type": "Ready", "status": ready}],
        },
    });
    if deleted {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    PodFacts::read(pod.to_string().as_bytes()).unwrap()
}

fn pods(all: impl IntoIterator<Item = PodFacts>) -> Pods {
    all.into_iter()
        .map(|facts| (facts.uid.clone(), facts))
        .collect()
}

fn endpoint(uid: &str, ip: &str, ready: bool, serving: bool, terminating: bool) -> Value {
    json!({
        "addresses": [ip], "nodeName": "edge-1", "zone": "z", "hints": {"forZones": [{"name": "z"}]},
        "targetRef": {"kind": "Pod", "uid": uid},
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
    })
}

fn slice(family: &str, endpoints: Vec<Value>) -> Bytes {
    json!({"addressType": family, "endpoints": endpoints, "later": 1})
        .to_string()
        .into()
}

fn corrected(before: &Bytes, pods: &Pods, unready: Unready) -> Option<Value> {
    let after = correct_slice(before, pods, unready).unwrap();
    after.map(|bytes| serde_json::from_slice(&bytes).unwrap())
}

#[test]
fn a_pod_without_a_uid_is_nobody_whose_endpoint_could_be_found() {
    let pod = json!({"metadata": {"uid": ""}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}});
    assert_eq!(PodFacts::read(pod.to_string().as_bytes()), None);
}

#[test]
fn an_endpoint_gets_the_address_and_the_readiness_of_its_pod() {
    let before = endpoint("a", "10.0.0.1", true, true, false);
    for (facts, expected) in [
        (
            pod("a", &["10.0.0.9"], "True", false),
            endpoint("a", "10.0.0.9", true, true, false),
        ),
        (
            pod("a", &["10.0.0.9"], "False", false),
            endpoint("a", "10.0.0.9", false, false, false),
        ),
        (
            pod("a", &["10.0.0.9"], "True", true),
            endpoint("a", "10.0.0.9", false, true, true),
        ),
        (
            pod("a", &["fd00::9", "10.0.0.9"], "True", false),
            endpoint("a", "10.0.0.9", true, true, false),
        ),
        // It has no address yet: nobody may be sent to the old one.
        (
            pod("a", &[], "True", false),
            endpoint("a", "10.0.0.1", false, false, false),
        ),
    ] {
        let slice = slice("IPv4", vec![before.clone()]);
        let after = corrected(&slice, &pods([facts]), Unready::Hidden).unwrap();
        assert_eq!(
            after,
            json!({"addressType": "IPv4", "endpoints": [expected], "later": 1})
        );
    }
}

#[test]
fn what_is_true_already_and_pods_of_other_nodes_are_left_alone() {
    let known = pods([pod("a", &["10.0.0.1"], "True", false)]);
    let before = slice(
        "IPv4",
        vec![
            endpoint("a", "10.0.0.1", true, true, false),
            endpoint("elsewhere", "10.0.1.1", false, false, true),
            json!({"addresses": ["10.0.0.7"]}),
        ],
    );
    assert_eq!(corrected(&before, &known, Unready::Hidden), None);
    assert_eq!(
        corrected(&slice("IPv4", vec![]), &known, Unready::Hidden),
        None
    );
}

#[test]
fn a_service_that_publishes_unready_pods_goes_on_doing_so() {
    let known = pods([pod("a", &["10.0.0.9"], "False", false)]);
    let before = slice("IPv4", vec![endpoint("a", "10.0.0.1", true, true, false)]);
    let after = corrected(&before, &known, Unready::Published).unwrap();
    assert_eq!(
        after["endpoints"][0],
        endpoint("a", "10.0.0.9", true, false, false)
    );
}

#[test]
fn names_and_other_families_have_no_address_here() {
    let known = pods([pod("a", &["10.0.0.9"], "True", false)]);
    let before = slice("IPv6", vec![endpoint("a", "fd00::1", true, true, false)]);
    let after = corrected(&before, &known, Unready::Hidden).unwrap();
    assert_eq!(after["endpoints"][0]["addresses"], json!(["fd00::1"]));
    assert_eq!(after["endpoints"][0]["conditions"]["ready"], json!(false));
}

#[test]
fn endpoints_objects_are_corrected_alike() {
    let address = |uid: &str, ip: &str| json!({"ip": ip, "targetRef": {"uid": uid}});
    let before: Bytes = json!({"subsets": [{
        "addresses": [address("a", "10.0.0.1"), address("b", "10.0.0.2"), address("z", "10.0.1.1")],
        "notReadyAddresses": [address("c", "10.0.0.3")],
        "ports": [{"port": 80}],
    }]})
    .to_string()
    .into();
    let known = pods([
        pod("a", &["10.0.0.9"], "True", false),
        pod("b", &["10.0.0.2"], "False", false),
        pod("c", &["10.0.0.3"], "True", false),
    ]);
    let after = correct_endpoints(&before, &known, Unready::Hidden)
        .unwrap()
        .unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&after).unwrap(),
        json!({"subsets": [{
            "addresses": [address("a", "10.0.0.9"), address("z", "10.0.1.1"), address("c", "10.0.0.3")],
            "notReadyAddresses": [address("b", "10.0.0.2")],
            "ports": [{"port": 80}],
        }]})
    );
    assert_eq!(
        correct_endpoints(&after, &known, Unready::Hidden).unwrap(),
        None
    );
}

#[test]
fn a_pod_that_is_over_is_not_ready() {
    let over = json!({
        "metadata": {"uid": "a"},
        "status": {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    assert!(
        !PodFacts::read(over.to_string().as_bytes())
            .unwrap()
            .is_ready
    );
    assert_eq!(PodFacts::read(b"{}"), None);
    assert_eq!(PodFacts::read(b"garbage"), None);
}

#[test]
fn the_new_address_of_who_serves_nobody_comes_with_its_readiness() {
    let unready = slice("IPv4", vec![endpoint("a", "10.0.0.1", false, false, false)]);
    let starting = pods([pod("a", &["10.0.0.9"], "False", false)]);
    assert_eq!(corrected(&unready, &starting, Unready::Hidden), None);
    let running = pods([pod("a", &["10.0.0.9"], "True", false)]);
    let after = corrected(&unready, &running, Unready::Hidden).unwrap();
    let expected = endpoint("a", "10.0.0.9", true, true, false);
    assert_eq!(after["endpoints"], json!([expected]));
    let published = corrected(&unready, &starting, Unready::Published).unwrap();
    assert_eq!(published["endpoints"][0]["addresses"], json!(["10.0.0.9"]));

    let subset = |ip: &str| json!({"notReadyAddresses": [{"ip": ip, "targetRef": {"uid": "a"}}]});
    let object = Bytes::from(json!({"subsets": [subset("10.0.0.1")]}).to_string());
    let after = correct_endpoints(&object, &starting, Unready::Hidden).unwrap();
    assert_eq!(after, None);
}
