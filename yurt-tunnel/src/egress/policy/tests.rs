use std::time::SystemTime;

use serde_json::json;
use yurt_core::transport::Chain;

use super::*;

fn peer(user: &str, groups: &[&str]) -> Peer {
    Peer {
        user: user.to_owned(),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        names: Vec::new(),
        expires: SystemTime::UNIX_EPOCH,
        chain: Chain::default(),
    }
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn policy() -> Policy {
    let file = json!({"clients": [
        {"users": ["prometheus"], "groups": ["monitoring"], "nodes": ["*"]},
        {"users": ["prometheus"], "nodes": ["edge-2"], "ports": [9100, "9101"]},
        {"users": ["admin"], "nodes": ["edge-1"], "ports": ["*"]},
        {"users": ["scraper"], "cloudNodes": ["cloud-1"], "direct": ["Registry.example:443", "[2001:db8::7]:80"]},
    ]});
    Policy::read(&file).unwrap()
}

#[test]
fn a_client_reaches_what_a_rule_for_it_allows_and_nothing_else() {
    let (edge_1, edge_2, cloud_1) = (name("edge-1"), name("edge-2"), name("cloud-1"));
    let edge = |node, kubelet_port| Destination::Edge { node, kubelet_port };
    let cloud = |node, kubelet_port| Destination::Cloud { node, kubelet_port };
    let elsewhere = Destination::Elsewhere;
    let (e1, e2, c1) = (
        edge(&edge_1, 10250),
        edge(&edge_2, 10250),
        cloud(&cloud_1, 10250),
    );
    for (user, groups, destination, address, may) in [
        ("prometheus", &[][..], e1, "edge-1:10250", true),
        ("prometheus", &[], e1, "10.0.0.7:10250", true),
        ("prometheus", &[], e1, "edge-1:22", false),
        ("prometheus", &[], e1, "edge-1:9100", false),
        ("prometheus", &[], e2, "edge-2:9100", true),
        ("prometheus", &[], e2, "edge-2:9101", true),
        ("prometheus", &[], e2, "edge-2:9102", false),
        (
            "prometheus",
            &[],
            edge(&edge_1, 10350),
            "edge-1:10350",
            true,
        ),
        (
            "prometheus",
            &[],
            edge(&edge_1, 10350),
            "edge-1:10250",
            false,
        ),
        ("prometheus", &[], c1, "cloud-1:10250", false),
        ("prometheus", &[], elsewhere, "10.96.0.1:443", false),
        ("other", &["monitoring"], e1, "edge-1:10250", true),
        ("other", &["monitoring"], e2, "edge-2:9100", false),
        ("other", &["prometheus"], e1, "edge-1:10250", false),
        ("monitoring", &[], e1, "edge-1:10250", false),
        ("admin", &[], e1, "edge-1:22", true),
        ("admin", &[], e2, "edge-2:22", false),
        ("admin", &[], elsewhere, "edge-1:22", false),
        ("scraper", &[], c1, "cloud-1:10250", true),
        ("scraper", &[], c1, "cloud-1:22", false),
        (
            "scraper",
            &[],
            edge(&cloud_1, 10250),
            "cloud-1:10250",
            false,
        ),
        ("scraper", &[], elsewhere, "registry.EXAMPLE:443", true),
        ("scraper", &[], elsewhere, "registry.example:80", false),
        ("scraper", &[], elsewhere, "[2001:db8::7]:80", true),
        ("scraper", &[], e1, "registry.example:443", false),
        (
            "system:node:edge-1",
            &["system:nodes"],
            e1,
            "edge-1:10250",
            false,
        ),
        ("", &[], e1, "edge-1:10250", false),
    ] {
        let allowed = policy().allows(&peer(user, groups), destination, &address.parse().unwrap());
        assert_eq!(
            allowed.is_ok(),
            may,
            "{user} of {groups:?} to {address}: {allowed:?}"
        );
    }
}

#[test]
fn nobody_reaches_anything_by_default() {
    let policy = Policy::default();
    let node = name("edge-1");
    let destination = Destination::Edge {
        node: &node,
        kubelet_port: 10250,
    };
    for user in ["kube-apiserver", "admin", "system:node:edge-1"] {
        let peer = peer(user, &["system:masters"]);
        assert_eq!(
            policy.knows(&peer),
            Err(Denied::Client {
                user: user.to_owned()
            })
        );
        assert!(
            policy
                .allows(&peer, destination, &"edge-1:10250".parse().unwrap())
                .is_err()
        );
    }
}

#[test]
fn a_denial_says_who_wanted_what() {
    let node = name("edge-1");
    let destination = Destination::Edge {
        node: &node,
        kubelet_port: 10250,
    };
    let denied = policy().allows(
        &peer("prometheus", &[]),
        destination,
        &"10.0.0.7:22".parse().unwrap(),
    );
    assert_eq!(
        denied.unwrap_err().to_string(),
        "no rule allows user \"prometheus\" to reach port 22 of node edge-1"
    );
}

#[test]
fn kube_apiservers_are_those_that_are_named() {
    let policy = Policy::default();
    assert_eq!(
        policy.is_api_server(&peer("kube-apiserver-kubelet-client", &[])),
        Ok(())
    );
    assert!(
        policy
            .is_api_server(&peer("admin", &["kube-apiserver"]))
            .is_err()
    );
    let policy = Policy::read(&json!({"apiServers": ["egress"]})).unwrap();
    assert_eq!(policy.is_api_server(&peer("egress", &[])), Ok(()));
    assert!(policy.is_api_server(&peer("kube-apiserver", &[])).is_err());
}

#[test]
fn nothing_in_the_file_is_the_default() {
    for file in [json!(null), json!({}), json!({"clients": null})] {
        assert_eq!(Policy::read(&file), Ok(Policy::default()));
    }
}

#[test]
fn every_mistake_is_told_at_once_with_its_place() {
    let file = json!({
        "apiServers": "kube-apiserver",
        "client": [],
        "clients": [
            {"users": ["*", 7], "nodes": ["*", "edge-1"], "ports": [0, 65536, -1, "x", 80]},
            {"nodes": ["Edge"], "port": [1]},
            {"groups": ["g"], "users": []},
            {"users": ["u"], "direct": ["registry", "*:443"]},
            "everybody",
        ],
    });
    let mistakes = Policy::read(&file).unwrap_err();
    let told: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "client: there is no such key: apiServers, clients",
            "apiServers: a list is expected",
            "clients[0].nodes[0]: \"*\" is not a node's name, nor the only entry \"*\"",
            "clients[0].ports[0]: 0 is not a port, nor the only entry \"*\"",
            "clients[0].ports[1]: 65536 is not a port, nor the only entry \"*\"",
            "clients[0].ports[2]: -1 is not a port, nor the only entry \"*\"",
            "clients[0].ports[3]: \"x\" is not a port, nor the only entry \"*\"",
            "clients[0].users[0]: everybody with a certificate is too many: name them",
            "clients[0].users[1]: a name of a certificate is expected",
            "clients[1].port: there is no such key: users, groups, nodes, cloudNodes, ports, direct",
            "clients[1]: it is for nobody: name users or groups",
            "clients[1].nodes[0]: \"Edge\" is not a node's name, nor the only entry \"*\"",
            "clients[2]: it reaches nothing: name nodes, cloudNodes or direct",
            "clients[2].users: it is empty",
            "clients[3].direct[0]: \"registry\" is not host:port",
            "clients[3].direct[1]: \"*:443\" is not host:port",
            "clients[4]: a map with users or groups, and what they may reach, is expected",
        ]
    );
}

#[test]
fn the_policy_of_the_readme_is_one() {
    let readme = include_str!("../../../README.md");
    let (_, yaml) = readme.split_once("```yaml\n").unwrap();
    let (yaml, _) = yaml.split_once("```").unwrap();
    let policy = Policy::read(&serde_saphyr::from_str(yaml).unwrap()).unwrap();
    let ports = [
        Ports::Numbered([10250, 9100].into()),
        Ports::Kubelet,
        Ports::Kubelet,
    ];
    let read: Vec<_> = policy.clients.into_iter().map(|rule| rule.ports).collect();
    assert_eq!(read, ports);
}
