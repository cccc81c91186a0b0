use std::fs;
use std::path::Path;

use testbed::pki::Pki;
use yurt_core::transport::{Chain, Peer};
use yurt_tunnel::egress::Destination;

use super::*;

const SAMPLE: &str = include_str!("../../deploy/config.yaml");

/// A folder with a CA, a server's certificate with its key, a node's, a list of nodes, and what is none of these.
fn folder() -> tempfile::TempDir {
    let pki = Pki::new();
    let (certificate, key) = pki.both(&["tunnel.example"], "yurt:tunnel-servers");
    let (node, node_key) = pki.client("system:node:edge-1", &["system:nodes"]);
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("ca.pem", pki.ca_pem()),
        ("server.pem", &certificate),
        ("server.key", &key),
        ("node.pem", &format!("{node}{node_key}")),
        ("nodes.json", r#"{"nodes": []}"#),
        ("text", "no PEM at all"),
    ] {
        write(&folder.path().join(name), text);
    }
    folder
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's files need not survive a crash"
)]
fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

/// Loads a file with this text and these flags, DIR standing for the folder in all of them.
fn load_in(folder: &Path, text: &str, flags: &[&str]) -> Result<Settings, String> {
    let dir = folder.to_str().unwrap();
    let path = folder.join("config.yaml");
    write(&path, &text.replace("DIR", dir));
    let flags = flags.iter().map(|flag| flag.replace("DIR", dir));
    let cli = Cli::try_parse_from(["server".to_owned()].into_iter().chain(flags));
    let mut flags = cli.unwrap().flags;
    flags.config.get_or_insert(path);
    load(flags).map_err(|mistakes| {
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        lines.join("\n").replace(dir, "DIR")
    })
}

const GOOD: &str = "\
caFile: DIR/ca.pem
certificate: DIR/server.pem
key: DIR/server.key
nodesFile: DIR/nodes.json
";

#[test]
fn what_is_not_given_has_a_default() {
    let folder = folder();
    let settings = load_in(folder.path(), GOOD, &[]).unwrap();
    assert_eq!(settings.listen.to_string(), "0.0.0.0:443");
    assert_eq!(settings.admin_listen.to_string(), "127.0.0.1:10265");
    assert_eq!(settings.drain, Duration::from_secs(30));
    assert_eq!(settings.buffers.limit(), 64 << 20);
    assert_eq!(settings.policy, Policy::default());
    assert!(settings.peers.is_empty() && settings.advertise.is_empty());
    assert!(settings.egress_socket.is_none() && settings.egress_listen.is_none());
    assert!(settings.connect_listen.is_none() && settings.denied_nodes.is_none());
}

#[test]
fn every_mistake_of_a_file_is_told_at_once() {
    let folder = folder();
    let text = "\
listen: localhost
advertise: tunnel.example:443
peers: ['a', 'b:0', 'c:443']
caFile: DIR/none.pem
certificate: DIR/server.pem
key: [DIR/server.key]
egressSocket: egress.sock
egressListen: 127.0.0.1
connectListen: 127.0.0.1:10265
nodesFile: DIR/none.json
dataDir: var
nodeNetworks: ['10.0.0.0/33', 10.0.0.0/8]
serviceNetworks: [services]
deniedNodes: DIR/none
drain: 2d
buffers: 64MB
log: loud
apiServers: kube-apiserver
clients:
- users: [prometheus]
  ports: [0]
- nodes: ['*']
colour: green
";
    let expected = "\
DIR/config.yaml: advertise: a list of texts is expected
DIR/config.yaml: colour: there is no such key
DIR/config.yaml: key: a text is expected
DIR/config.yaml: listen: \"localhost\" is not an address such as 127.0.0.1:8443
DIR/config.yaml: peers[0]: \"a\" is not a name or an address with a port
DIR/config.yaml: peers[1]: \"b:0\" is not a name or an address with a port
DIR/config.yaml: caFile: cannot read DIR/none.pem: No such file or directory (os error 2)
DIR/config.yaml: egressSocket: egress.sock is not an absolute path
DIR/config.yaml: egressListen: \"127.0.0.1\" is not an address such as 127.0.0.1:8443
DIR/config.yaml: apiServers: a list is expected
DIR/config.yaml: clients[0]: it reaches nothing: name nodes, cloudNodes or direct
DIR/config.yaml: clients[0].ports[0]: 0 is not a port, nor the only entry \"*\"
DIR/config.yaml: clients[1]: it is for nobody: name users or groups
DIR/config.yaml: serviceNetworks[0]: \"services\" is not a network such as 10.1.0.0/16 or fd00::/8
DIR/config.yaml: nodeNetworks[0]: \"10.0.0.0/33\" is not a network such as 10.1.0.0/16 or fd00::/8
DIR/config.yaml: dataDir: var is not an absolute path
DIR/config.yaml: nodesFile: cannot read DIR/none.json: No such file or directory (os error 2)
DIR/config.yaml: deniedNodes: cannot read DIR/none: No such file or directory (os error 2)
DIR/config.yaml: drain: \"2d\" is not a time such as 30s, 5m or 1h, at most 24h
DIR/config.yaml: buffers: \"64MB\" is not a number of bytes such as 64Mi
DIR/config.yaml: log: \"loud\" is not a level: off, error, warn, info, debug, trace
adminListen: 127.0.0.1:10265 is the address of connectListen too";
    assert_eq!(load_in(folder.path(), text, &[]).unwrap_err(), expected);
}

#[test]
fn each_mistake_names_its_place_and_what_to_do() {
    let folder = folder();
    for (text, flags, expected) in [
        (
            "",
            &[][..],
            "caFile: missing: set it in the file or by --ca-file\n\
             certificate: missing: set it in the file or by --certificate\n\
             kubeconfig: missing: set it or nodesFile; this is not a pod with a service account",
        ),
        (
            GOOD,
            &["--key", "DIR/text"],
            "--key: no PEM private key in DIR/text",
        ),
        (
            GOOD,
            &["--ca-file", "DIR/text"],
            "--ca-file: no PEM certificate in DIR/text",
        ),
        (
            GOOD,
            &[
                "--peer",
                "a:443",
                "--certificate",
                "DIR/node.pem",
                "--key",
                "DIR/node.pem",
            ],
            "certificate: other servers let in only certificates with the organization \
             \"yurt:tunnel-servers\"",
        ),
        (
            "kubeconfig: DIR/text\nnodesFile: DIR/nodes.json\ncaFile: DIR/ca.pem\n\
             certificate: DIR/server.pem\nkey: DIR/server.key\n",
            &[],
            "nodesFile: excludes kubeconfig, with which the nodes come from the API server: remove \
             one of them",
        ),
        (
            GOOD,
            &["--config", "DIR/none.yaml", "--listen", "a"],
            "--config: cannot read DIR/none.yaml: No such file or directory (os error 2)\n\
             --listen: \"a\" is not an address such as 127.0.0.1:8443",
        ),
        (
            "listen: 1.2.3.4:1\nlisten: 1.2.3.4:2\n",
            &[],
            "DIR/config.yaml: duplicate mapping key `listen` is not allowed here at line 2, column 1",
        ),
    ] {
        let told = load_in(folder.path(), text, flags).unwrap_err();
        assert_eq!(told, expected);
    }
}

#[test]
fn a_flag_wins_over_the_file() {
    let folder = folder();
    let text = format!("{GOOD}listen: 127.0.0.1:1\npeers: ['a:1']\ndrain: 1s\n");
    let flags = [
        "--listen=127.0.0.1:2",
        "--peer=b:1",
        "--peer=c:1",
        "--drain=2m",
    ];
    let settings = load_in(folder.path(), &text, &flags).unwrap();
    assert_eq!(settings.listen.port(), 2);
    let peers: Vec<_> = settings.peers.iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["b:1", "c:1"]);
    assert_eq!(settings.drain, Duration::from_secs(120));
    let kubeconfig = "apiVersion: v1\nkind: Config\n";
    write(&folder.path().join("kubeconfig"), kubeconfig);
    let text = format!("{text}nodeNetworks: [10.0.0.0/8]\nserviceNetworks: [10.96.0.0/12]\n");
    let text = text.replace("nodesFile: DIR/nodes.json", "kubeconfig: DIR/kubeconfig");
    let flags = ["--node-networks=192.0.2.0/24,2001:db8::/32", "--peer=b:1"];
    let settings = load_in(folder.path(), &text, &flags).unwrap();
    let NodesFrom::Cluster(_, _, grants) = settings.nodes else {
        panic!("the nodes are the cluster's");
    };
    let networks: Vec<_> = grants
        .node_networks
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(networks, ["192.0.2.0/24", "2001:db8::/32"]);
    assert_eq!(grants.service_networks[0].to_string(), "10.96.0.0/12");
    assert!(grants.servers.contains("b"), "a node is no server");
    // One source of nodes by a flag replaces the other of the file.
    let text = GOOD.replace("nodesFile: DIR/nodes.json", "kubeconfig: DIR/none");
    let settings = load_in(folder.path(), &text, &["--nodes-file=DIR/nodes.json"]).unwrap();
    assert!(matches!(settings.nodes, NodesFrom::File(_)));
}

#[test]
fn the_rules_of_a_file_let_in_whom_they_name() {
    let folder = folder();
    let rules = "clients:\n- users: [prometheus]\n  nodes: ['*']\n  ports: [9100]\n";
    let settings = load_in(folder.path(), &format!("{GOOD}{rules}"), &[]).unwrap();
    let client = |user: &str| Peer {
        user: user.to_owned(),
        groups: Vec::new(),
        names: Vec::new(),
        expires: std::time::SystemTime::UNIX_EPOCH,
        chain: Chain::default(),
    };
    let node = "edge-1".parse().unwrap();
    let at = Destination::Edge {
        node: &node,
        kubelet_port: 10250,
    };
    let address = "edge-1:9100".parse().unwrap();
    settings
        .policy
        .allows(&client("prometheus"), at, &address)
        .unwrap();
    settings
        .policy
        .allows(&client("other"), at, &address)
        .unwrap_err();
}

#[test]
fn what_the_sample_comments_out_is_what_holds_without_it_and_its_example_is_one() {
    let folder = folder();
    let text: String = SAMPLE
        .lines()
        .map(|line| {
            line.strip_prefix("# ")
                .filter(|line| is_entry(line))
                .unwrap_or(line)
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let flags = [
        "--ca-file=DIR/ca.pem",
        "--certificate=DIR/server.pem",
        "--key=DIR/server.key",
        "--nodes-file=DIR/nodes.json",
    ];
    let all = load_in(folder.path(), &text, &flags).unwrap();
    let given = load_in(folder.path(), SAMPLE, &flags).unwrap();
    assert_eq!(all.admin_listen, given.admin_listen);
    assert_eq!(all.drain, given.drain);
    assert_eq!(all.buffers.limit(), given.buffers.limit());
    assert_eq!(all.log.to_string(), given.log.to_string());
    assert_eq!(given.policy, Policy::default());
    assert_eq!(all.policy.clients.len(), 1);
}

/// Whether a comment of the sample is an entry that is commented out.
fn is_entry(line: &str) -> bool {
    let keys = [
        "adminListen:",
        "nodeNetworks:",
        "serviceNetworks:",
        "drain:",
        "buffers:",
        "log:",
        "clients:",
        "- users:",
        "  nodes:",
        "  ports:",
    ];
    keys.iter().any(|key| line.starts_with(key))
}
