use std::{path::Path, time::Duration};

use testbed::pki::Pki;
use yurt_cache::hub::{Budget, Config, FilterName, Order};

use super::*;

const SAMPLE: &str = include_str!("../../deploy/config.yaml");

/// A folder with a CA, a certificate, its key, both in one file, and a file that is not PEM.
fn folder() -> tempfile::TempDir {
    let pki = Pki::new();
    let (certificate, key) = pki.client("system:node:edge-1", &["system:nodes"]);
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("ca.pem", pki.ca_pem()),
        ("node.pem", &certificate),
        ("node.key", &key),
        ("both.pem", &format!("{certificate}{key}")),
        ("text", "no PEM at all"),
        (
            "broken.pem",
            "-----BEGIN CERTIFICATE-----\nMII!\n-----END CERTIFICATE-----\n",
        ),
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
    let mut flags = Flags::try_parse_from(["yurthub".to_owned()].into_iter().chain(flags)).unwrap();
    flags.config.get_or_insert(path);
    load(flags).map_err(|mistakes| {
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        lines.join("\n").replace(dir, "DIR")
    })
}

const GOOD: &str = "nodeName: edge-1\nservers: [https://a:6443]\ncaFile: DIR/ca.pem\n";

#[test]
fn every_mistake_of_a_file_is_told_at_once() {
    let folder = folder();
    let text = "\
nodeName: Edge_1
servers: [https://a:6443, 'http://b', https://A:6443, 'a b', https://c/api]
order: random
caFile: DIR/none.pem
clientCertificate: DIR/text
clientKey: DIR/node.pem
listen: localhost
servingKey: DIR/node.key
clientCaFile: DIR/broken.pem
adminListen: [a]
dataDir: var
podAddress: 0.0.0.0:10268
poolName: A
filters: [masterservice=off, masterservice=node, masterservice, proxy=node, servicetopology=kube-proxy]
callerConnections: many
callerRequests: -1
callerWatches: 0
callerMirrors: few
callerRate: 5000000000
anonymousConnections: 1.5
bodyLimit: 3Mi
mirrorIdle: soon
forgetAfter: 1y
objectsByName: 5
documents: 1/2Ti
verdicts: 0
perKind: 0/1Mi
kinds: [events, =1/1, events=1000/2Mi]
autonomyPeriod: 0s
autonomyCondition: maybe
log: loud
colour: green
tls: {caFile: x}
";
    let expected = "\
DIR/config.yaml: adminListen: a text is expected
DIR/config.yaml: colour: there is no such key
DIR/config.yaml: tls: there is no such key
DIR/config.yaml: nodeName: \"Edge_1\" is not a name: lower case letters, digits, '-' and '.', at most 253
DIR/config.yaml: servers[1]: \"http://b\" is not https
DIR/config.yaml: servers[2]: \"https://A:6443\" is given twice
DIR/config.yaml: servers[3]: \"a b\" is not a URL: invalid uri character
DIR/config.yaml: servers[4]: \"https://c/api\" has a path: only https://host:port
DIR/config.yaml: order: \"random\" is neither roundRobin nor priority
DIR/config.yaml: caFile: cannot read DIR/none.pem: No such file or directory (os error 2)
DIR/config.yaml: clientCertificate: no PEM certificate in DIR/text
DIR/config.yaml: clientKey: no PEM private key in DIR/node.pem
DIR/config.yaml: servingKey: a key without servingCertificate
DIR/config.yaml: clientCaFile: parse DIR/broken.pem as PEM: base64 decode error: InvalidCharacter(33)
DIR/config.yaml: listen: \"localhost\" is not an address such as 127.0.0.1:10268
DIR/config.yaml: dataDir: var is not an absolute path
DIR/config.yaml: podAddress: \"0.0.0.0:10268\" is not an address that pods can reach, such as 169.254.2.1:10268
DIR/config.yaml: poolName: \"A\" is not a name: lower case letters, digits, '-' and '.', at most 253
DIR/config.yaml: filters[1]: masterservice is given twice
DIR/config.yaml: filters[2]: \"masterservice\" is neither filter=caller,caller nor filter=off
DIR/config.yaml: filters[3]: there is no filter \"proxy\": there are servicetopology, masterservice, discardcloudservice, inclusterconfig, nodeportisolation, forwardkubesvctraffic, serviceenvupdater
DIR/config.yaml: filters[4]: \"kube-proxy\" is neither node nor system:serviceaccount:<namespace>:<name>
DIR/config.yaml: callerConnections: \"many\" is not a whole number above 0
DIR/config.yaml: callerRequests: \"-1\" is not a whole number above 0
DIR/config.yaml: callerWatches: \"0\" is not a whole number above 0
DIR/config.yaml: callerMirrors: \"few\" is not a whole number above 0
DIR/config.yaml: callerRate: \"5000000000\" is not a whole number above 0
DIR/config.yaml: anonymousConnections: \"1.5\" is not a whole number above 0
DIR/config.yaml: bodyLimit: \"3Mi\" is not a whole number above 0
DIR/config.yaml: mirrorIdle: \"soon\" is not a time such as 30s, 5m, 12h or 7d
DIR/config.yaml: forgetAfter: \"1y\" is not a time such as 30s, 5m, 12h or 7d
DIR/config.yaml: objectsByName: \"5\" is not a number and bytes such as 5000/32Mi
DIR/config.yaml: documents: \"1/2Ti\" is not a number and bytes such as 5000/32Mi
DIR/config.yaml: verdicts: \"0\" is not a whole number above 0
DIR/config.yaml: perKind: \"0/1Mi\" is not a number and bytes such as 5000/32Mi
DIR/config.yaml: kinds[0]: \"events\" is not a kind and what is kept of it, such as deployments.apps=1000/2Mi
DIR/config.yaml: kinds[1]: \"=1/1\" is not a kind and what is kept of it, such as deployments.apps=1000/2Mi
DIR/config.yaml: autonomyPeriod: \"0s\" is not a time such as 30s, 5m, 12h or 7d
DIR/config.yaml: autonomyCondition: \"maybe\" is neither true nor false
DIR/config.yaml: log: \"loud\" is not a level: off, error, warn, info, debug, trace";
    assert_eq!(load_in(folder.path(), text, &[]).unwrap_err(), expected);
}

#[test]
fn each_mistake_names_its_place_and_what_to_do() {
    let folder = folder();
    for (text, flags, expected) in [
        (
            "",
            &[][..],
            "nodeName: missing: set it in the file or by --node-name\n\
             servers: missing: set it in the file or by --server\n\
             caFile: missing: set it in the file or by --ca-file",
        ),
        (
            GOOD,
            &["--ca-file", "DIR/node.key"],
            "--ca-file: no PEM certificate in DIR/node.key",
        ),
        (
            GOOD,
            &["--server", "https://u:p@a"],
            "--server: \"https://u:p@a\" is not https://host:port",
        ),
        (
            GOOD,
            &["--client-certificate", "DIR/node.pem"],
            "--client-certificate: no PEM private key in DIR/node.pem",
        ),
        (
            GOOD,
            &["--client-key", "DIR/node.key"],
            "--client-key: a key without clientCertificate",
        ),
        (
            GOOD,
            &["--listen", "127.0.0.1:10267"],
            "adminListen: 127.0.0.1:10267 is the address of listen too",
        ),
        (
            GOOD,
            &[
                "--bootstrap-token-file",
                "DIR/t",
                "--client-certificate",
                "DIR/both.pem",
            ],
            "bootstrapTokenFile: with it the hub gets a certificate of its own: leave clientCertificate out",
        ),
        (
            GOOD,
            &["--serving-signer", "me"],
            "--serving-signer: \"me\" is neither own nor cluster",
        ),
        (
            GOOD,
            &["--verdict-limit", "30"],
            "--verdict-limit: \"30\" is not a time such as 30s, 5m, 12h or 7d",
        ),
        (
            "nodeName: n\nservers: [https://a]\ncaFile: DIR/ca.pem\nservingNames: [a b, 10.96.0.1]\nlisten: [x, '127.0.0.1:1']",
            &[],
            "DIR/config.yaml: listen[0]: \"x\" is not an address such as 127.0.0.1:10268\n\
             DIR/config.yaml: servingNames[0]: \"a b\" is neither a DNS name nor an address",
        ),
        (
            GOOD,
            &["--data-dir", "DIR/text"],
            "--data-dir: DIR/text is not a folder",
        ),
        (
            GOOD,
            &["--log", "info,yurt_cache=chatty"],
            "--log: \"chatty\" is not a level: off, error, warn, info, debug, trace",
        ),
        (
            GOOD,
            &["--config", "DIR/none.yaml"],
            "--config: cannot read DIR/none.yaml: No such file or directory (os error 2)",
        ),
        (
            "servers: https://a",
            &["--node-name", "n", "--ca-file", "DIR/ca.pem"],
            "DIR/config.yaml: servers: a list of texts is expected\n\
             servers: missing: set it in the file or by --server",
        ),
    ] {
        let told = load_in(folder.path(), text, flags).unwrap_err();
        assert_eq!(told, expected, "{text} {flags:?}");
    }
}

#[test]
fn a_file_that_is_no_map_of_keys_is_told_in_one_line_with_its_place() {
    let folder = folder();
    for text in ["nodeName: [a", "- a", "log: info\nlog: warn"] {
        let told = load_in(folder.path(), text, &[]).unwrap_err();
        assert!(told.starts_with("DIR/config.yaml: "), "{told}");
        assert!(told.contains("line ") && told.contains("column "), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[test]
fn flags_win_over_the_file_and_defaults_fill_the_rest() {
    let folder = folder();
    let flags = [
        "--server",
        "https://b",
        "--server",
        "https://c:1/",
        "--order",
        "priority",
        "--node-name",
        "n2",
        "--client-certificate",
        "DIR/both.pem",
        "--pod-address",
        "169.254.2.1:10268",
        "--pool-name",
        "shop-7",
        "--filter",
        "masterservice=node, system:serviceaccount:a:b",
        "--filter",
        "inclusterconfig=off",
        "--caller-rate",
        "9",
        "--log",
        "warn,yurt_cache=trace",
    ];
    let text = format!("{GOOD}callerWatches: 7\ncallerMirrors: 8\nbodyLimit: 100\n");
    let settings = load_in(folder.path(), &text, &flags).unwrap();
    assert_eq!(settings.node_name.as_str(), "n2");
    let mut limits = Limits::default();
    (limits.caller_watches, limits.caller_rate) = (7, 9);
    limits.caller_mirrors = 8;
    limits.body_bytes = 100;
    assert_eq!(settings.limits, limits);
    let servers: Vec<String> = settings
        .upstream
        .servers
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(servers, ["https://b/", "https://c:1/"]);
    assert_eq!(settings.upstream.order, Order::Priority);
    assert_eq!(settings.upstream.ca_file, folder.path().join("ca.pem"));
    let both = Some(folder.path().join("both.pem"));
    assert_eq!(settings.upstream.client_certificate, both);
    assert_eq!(settings.upstream.client_key, both);
    assert_eq!(settings.listen, ["127.0.0.1:10268".parse().unwrap()]);
    assert_eq!(settings.verdict_limit.as_secs(), 30 * 86_400);
    assert_eq!(settings.secret_verdict_limit.as_secs(), 86_400);
    assert_eq!(settings.admin_listen.to_string(), "127.0.0.1:10267");
    assert_eq!(settings.data_dir, Path::new("/var/lib/yurthub"));
    assert_eq!(
        (settings.serving_certificate, settings.serving_key),
        (None, None)
    );
    assert_eq!(settings.client_ca_file, None);
    assert_eq!(settings.pod_address, "169.254.2.1:10268".parse().ok());
    assert_eq!(settings.pool_name.as_deref(), Some("shop-7"));
    let callers = |name| {
        settings
            .filters
            .callers(name)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        callers(FilterName::MasterService),
        ["node", "system:serviceaccount:a:b"]
    );
    assert!(callers(FilterName::InClusterConfig).is_empty());
    assert_eq!(callers(FilterName::ServiceEnvUpdater), ["node"]);
    assert!(
        settings
            .log
            .would_enable("yurt_cache::hub", &tracing::Level::TRACE)
    );
    assert!(!settings.log.would_enable("hyper", &tracing::Level::INFO));
}

#[test]
fn a_seal_key_file_is_a_file_or_a_credential_of_systemd() {
    let folder = folder();
    let given = |text: &str, credentials: Option<&Path>| {
        check::credential(text, credentials.map(|path| path.as_os_str().to_owned()))
    };
    let key = folder.path().join("node.key");
    assert_eq!(given(key.to_str().unwrap(), None), Ok(key.clone()));
    let named = "$CREDENTIALS_DIRECTORY/node.key";
    assert_eq!(given(named, Some(folder.path())), Ok(key));
    assert!(given(named, None).unwrap_err().contains("LoadCredential="));
    assert!(
        given("/nowhere", None)
            .unwrap_err()
            .starts_with("cannot read /nowhere")
    );
}

#[test]
fn any_free_port_may_be_asked_for_twice() {
    let folder = folder();
    let any = "127.0.0.1:0";
    load_in(
        folder.path(),
        GOOD,
        &["--listen", any, "--admin-listen", any],
    )
    .unwrap();
}

#[test]
fn the_sample_is_right_but_for_the_files_of_another_machine() {
    let folder = folder();
    let sample = SAMPLE
        .replace("/etc/kubernetes/pki/ca.crt", "DIR/ca.pem")
        .replace(
            "/var/lib/kubelet/pki/kubelet-client-current.pem",
            "DIR/both.pem",
        )
        .replace("# clientKey: only", "clientKey: DIR/node.key # only")
        .replace(
            "# servingCertificate: /etc/yurthub/serving.pem",
            "servingCertificate: DIR/node.pem",
        )
        .replace(
            "# servingKey: /etc/yurthub/serving.key",
            "servingKey: DIR/node.key",
        )
        .replace(
            "# sealKeyFile: /etc/yurthub/seal-keys",
            "sealKeyFile: DIR/node.key",
        );
    let settings = load_in(folder.path(), &sample, &[]).unwrap();
    assert_eq!(settings.upstream.servers.len(), 2);
    assert_eq!(settings.serving_key, Some(folder.path().join("node.key")));
    for (key, _) in given::KEYS {
        assert!(
            sample.contains(&format!("{key}:")),
            "the sample shows {key}"
        );
    }
}

#[test]
fn what_is_kept_is_told_to_the_hub_and_by_default_as_the_hub_has_it() {
    let folder = folder();
    let text = format!("{GOOD}kinds: [events=1000/2Mi]\ndocuments: 7/1Ki\n");
    let flags = ["--mirror-idle", "2m", "--autonomy-condition", "false"];
    let settings = load_in(folder.path(), &text, &flags).unwrap();
    let new = || {
        Config::new(
            settings.node_name.clone(),
            settings.upstream.clone(),
            "/".into(),
        )
    };
    let mut config = new();
    settings.kept.tell(&mut config);
    assert_eq!(config.mirror_idle, Duration::from_secs(120));
    assert_eq!(config.documents, Budget::new(7, 1 << 10));
    assert_eq!(config.kinds["events"], Budget::new(1_000, 2 << 20));
    assert!(!config.autonomy_condition);
    let mut default = new();
    let settings = load_in(folder.path(), GOOD, &[]).unwrap();
    settings.kept.tell(&mut default);
    // As the hub itself would have it: one table of defaults is written twice.
    assert_eq!(format!("{default:?}"), format!("{:?}", new()));
}
