use std::{net::SocketAddr, path::Path, time::Duration};

use testbed::pki::Pki;
use yurt_tunnel::agent::KeepAlive;

use super::*;

const SAMPLE: &str = include_str!("../../deploy/config.yaml");

/// A folder with a CA, the certificate of edge-1, its key, both in one file, and another's certificate.
fn folder() -> tempfile::TempDir {
    let pki = Pki::new();
    let (certificate, key) = pki.client("system:node:edge-1", &["system:nodes"]);
    let (other, other_key) = pki.client("admin", &["system:masters"]);
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("ca.pem", pki.ca_pem()),
        ("node.pem", &certificate),
        ("node.key", &key),
        ("both.pem", &format!("{certificate}{key}")),
        ("admin.pem", &format!("{other}{other_key}")),
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
    let mut flags = Flags::try_parse_from(["agent".to_owned()].into_iter().chain(flags)).unwrap();
    flags.config.get_or_insert(path);
    load(flags).map_err(|mistakes| {
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        lines.join("\n").replace(dir, "DIR")
    })
}

const GOOD: &str = "\
nodeName: edge-1
servers: ['tunnel.example:8443', '[2001:db8::1]:443']
caFile: DIR/ca.pem
certificate: DIR/both.pem
";

#[test]
fn what_is_not_given_has_a_default() {
    let folder = folder();
    let settings = load_in(folder.path(), GOOD, &[]).unwrap();
    let servers: Vec<_> = settings
        .agent
        .servers
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(servers, ["tunnel.example:8443", "[2001:db8::1]:443"]);
    assert_eq!(settings.agent.node_name.as_str(), "edge-1");
    assert_eq!(
        (settings.agent.links, settings.agent.kubelet_port),
        (3, 10250)
    );
    let admin: SocketAddr = "127.0.0.1:10266".parse().unwrap();
    assert_eq!(settings.agent.admin_listen, Some(admin));
    let data = Path::new("/var/lib/yurt-tunnel-agent");
    assert_eq!(settings.agent.data_dir, data);
    assert_eq!(settings.transport, Transports::Auto);
}

#[test]
fn a_flag_wins_over_the_file() {
    let folder = folder();
    let text = format!("{GOOD}transport: quic\nallow: ['10.0.0.1:1']\nlinks: 2\n");
    let flags = [
        "--transport",
        "h2",
        "--allow",
        "plc.example:*",
        "--server",
        "b:1",
        "--links",
        "1",
    ];
    let settings = load_in(folder.path(), &text, &flags).unwrap();
    assert_eq!(settings.transport, Transports::H2);
    assert_eq!(settings.agent.allow, ["plc.example:*".parse().unwrap()]);
    assert_eq!(settings.agent.servers, ["b:1".parse().unwrap()]);
    assert_eq!(settings.agent.links, 1);
}

#[test]
fn every_mistake_of_a_file_is_told_at_once() {
    let folder = folder();
    let text = "\
nodeName: Edge_1
servers: ['tunnel.example', 'a:1', 'b:0']
caFile: DIR/none.pem
certificate: DIR/node.pem
allow: ['10.0.0.0/33:1', '*:*', 'a:1']
transport: tcp
links: 0
kubeletPort: 65536
dataDir: var
adminListen: [a]
buffers: much
log: loud
colour: blue
";
    assert_eq!(
        load_in(folder.path(), text, &[]).unwrap_err(),
        "\
DIR/config.yaml: adminListen: a text is expected
DIR/config.yaml: colour: there is no such key
DIR/config.yaml: servers[0]: \"tunnel.example\" is not host:port
DIR/config.yaml: servers[2]: \"b:0\" is not host:port
DIR/config.yaml: nodeName: \"Edge_1\" is not a name: lower case letters, digits, '-' and '.', at most 253
DIR/config.yaml: caFile: cannot read DIR/none.pem: No such file or directory (os error 2)
DIR/config.yaml: allow[0]: \"10.0.0.0/33:1\" is not HOST:PORT, such as 192.0.2.7:9100, 10.1.0.0/16:*, \
[2001:db8::1]:443 or plc.example:502
DIR/config.yaml: allow[1]: \"*:*\" is not HOST:PORT, such as 192.0.2.7:9100, 10.1.0.0/16:*, \
[2001:db8::1]:443 or plc.example:502
DIR/config.yaml: transport: \"tcp\" is not auto, quic or h2
DIR/config.yaml: links: \"0\" is not a whole number above 0
DIR/config.yaml: kubeletPort: \"65536\" is not a port
DIR/config.yaml: dataDir: var is not an absolute path
DIR/config.yaml: buffers: \"much\" is not a number of bytes such as 64Mi
DIR/config.yaml: log: \"loud\" is not a level: off, error, warn, info, debug, trace"
    );
}

#[test]
fn links_rest_as_long_as_the_operator_says() {
    let folder = folder();
    let adaptive = load_in(folder.path(), GOOD, &[]).unwrap();
    assert_eq!(adaptive.agent.keep_alive, KeepAlive::Adaptive);
    let fixed = load_in(folder.path(), GOOD, &["--keep-alive", "30s"]).unwrap();
    let half_a_minute = Duration::from_secs(30);
    assert_eq!(fixed.agent.keep_alive, KeepAlive::Fixed(half_a_minute));
    for (text, flags) in [("metered: true\n", &[][..]), ("", &["--metered"])] {
        let metered = load_in(folder.path(), &format!("{GOOD}{text}"), flags).unwrap();
        assert_eq!(metered.agent.keep_alive, KeepAlive::Metered);
    }
    for (flags, mistake) in [
        (
            &["--keep-alive", "241s"][..],
            "--keep-alive: \"241s\" is not a time of 1s to 240s",
        ),
        (
            &["--keep-alive", "30s", "--metered"],
            "metered: excludes keepAlive: the agent chooses the interval",
        ),
    ] {
        assert_eq!(load_in(folder.path(), GOOD, flags).unwrap_err(), mistake);
    }
}

#[test]
fn a_certificate_of_somebody_else_is_a_mistake() {
    let folder = folder();
    for (flags, expected) in [
        (
            &["--certificate", "DIR/admin.pem"][..],
            "--certificate: the certificate is that of \"admin\", not of system:node:edge-1 in the group system:nodes",
        ),
        (
            &["--node-name", "edge-2"],
            "DIR/config.yaml: certificate: the certificate is that of node edge-1, not of edge-2",
        ),
        (
            &["--certificate", "DIR/text"],
            "--certificate: no PEM certificate in DIR/text",
        ),
        (
            &["--ca-file", "DIR/text"],
            "--ca-file: no PEM certificate in DIR/text",
        ),
        (
            &["--key", "DIR/text"],
            "--key: no PEM private key in DIR/text",
        ),
    ] {
        assert_eq!(load_in(folder.path(), GOOD, flags).unwrap_err(), expected);
    }
    let apart = ["--certificate", "DIR/node.pem", "--key", "DIR/node.key"];
    load_in(folder.path(), GOOD, &apart).unwrap();
    assert!(load_in(folder.path(), GOOD, &apart[..2]).is_err());
}

#[test]
fn a_file_that_cannot_be_read_hides_what_it_would_have_said() {
    let folder = folder();
    let flags = ["--config", "DIR/none.yaml", "--transport", "x"];
    assert_eq!(
        load_in(folder.path(), "", &flags).unwrap_err(),
        "--config: cannot read DIR/none.yaml: No such file or directory (os error 2)\n\
         --transport: \"x\" is not auto, quic or h2"
    );
}

#[test]
fn the_sample_has_every_key_and_its_defaults_are_the_programs() {
    let folder = folder();
    for (key, _) in given::KEYS {
        assert!(
            SAMPLE.contains(&format!("{key}:")),
            "deploy/config.yaml has no {key}"
        );
    }
    // What is commented out is what holds without it.
    let text = SAMPLE
        .replace("# ", "")
        .replace("/etc/kubernetes/pki/ca.crt", "DIR/ca.pem");
    let text = text.replace(
        "/var/lib/kubelet/pki/kubelet-client-current.pem",
        "DIR/both.pem",
    );
    let keys: String = text
        .lines()
        .filter(|line| {
            given::KEYS
                .iter()
                .any(|(key, _)| line.starts_with(&format!("{key}:")))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let sample = load_in(folder.path(), &keys, &[]).unwrap();
    let plain = load_in(folder.path(), GOOD, &[]).unwrap();
    assert_eq!(sample.agent.links, plain.agent.links);
    assert_eq!(sample.agent.kubelet_port, plain.agent.kubelet_port);
    assert_eq!(sample.agent.data_dir, plain.agent.data_dir);
    assert_eq!(sample.agent.admin_listen, plain.agent.admin_listen);
    assert_eq!(
        sample.agent.keep_alive,
        KeepAlive::Fixed(Duration::from_secs(30)),
        "an example"
    );
    assert_eq!(sample.transport, plain.transport);
    let limits = [&sample, &plain].map(|settings| settings.agent.buffers.limit());
    assert_eq!(limits, [64 << 20; 2]);
}
