//! The program from outside: what it prints and how it ends.

use std::{
    io::{BufRead, BufReader, Lines, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
    thread,
    time::Duration,
};

use testbed::pki::Pki;
use tokio::time::timeout;
use yurt_core::transport::Transport;
use yurt_tunnel::{
    identity::{Credentials, Files},
    link,
    transport::{h2::H2Transport, quic::QuicTransport},
};

#[test]
fn a_wrong_configuration_is_told_line_by_line_and_ends_with_code_2() {
    let output = program()
        .args(["--listen", "a", "--peer", "b", "--egress-socket", "sock"])
        .env_remove("KUBERNETES_SERVICE_HOST")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "\
yurt-tunnel-server: --listen: \"a\" is not an address such as 127.0.0.1:8443
yurt-tunnel-server: --peer: \"b\" is not a name or an address with a port
yurt-tunnel-server: caFile: missing: set it in the file or by --ca-file
yurt-tunnel-server: certificate: missing: set it in the file or by --certificate
yurt-tunnel-server: --egress-socket: sock is not an absolute path
yurt-tunnel-server: kubeconfig: missing: set it or nodesFile; this is not a pod with a service account
"
    );
}

#[test]
fn a_server_that_cannot_listen_ends_with_code_1_and_says_why() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = folder
        .server()
        .args(["--connect-listen", &address])
        .output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let why = format!("listen on {address}: Address already in use");
    assert!(said.contains(&why), "{said}");
}

#[test]
fn a_list_of_nodes_that_is_none_ends_with_code_1_and_the_place() {
    let folder = Folder::new();
    write(&folder.path("nodes.json"), "{\"nodes\": [{}]}");
    let output = folder.server().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("missing field `name` at line 1"), "{said}");
}

#[test]
fn a_server_that_is_told_to_end_drains_and_ends_with_code_0() {
    let folder = Folder::new();
    let socket = folder.path("egress.sock");
    let mut running = Running::start(folder.server().arg("--egress-socket").arg(&socket));
    assert!(socket.exists());
    running.signal("TERM");
    running.says("draining");
    assert_eq!(running.program.wait().unwrap().code(), Some(0));
    assert!(!socket.exists(), "the socket is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_while_an_agent_is_still_there() {
    let folder = Folder::new();
    let mut running = Running::start(&mut folder.server());
    let address = running.agents.parse().unwrap();
    let transport = H2Transport::new(folder.agent(), link::Config::default());
    let session = transport.connect(address, "tunnel.example").await.unwrap();
    running.says("connected");
    running.signal("TERM");
    running.says("draining");
    running.signal("TERM");
    running.says("a second signal");
    assert_eq!(running.program.wait().unwrap().code(), Some(1));
    drop(session);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_in_the_log_with_the_address_and_the_reason() {
    let folder = Folder::new();
    let mut running = Running::start(&mut folder.server());
    let address = running.agents.parse().unwrap();
    let stranger = folder.client("stranger", &[]);
    let transport = H2Transport::new(stranger, link::Config::default());
    let session = transport.connect(address, "tunnel.example").await.unwrap();
    let said = running.says("refused a peer");
    assert!(said.contains("stranger at 127.0.0.1:"), "{said}");
    assert!(
        said.contains("an identity that is not authorized"),
        "{said}"
    );
    drop(session);
    let socket = TcpStream::connect(address).unwrap();
    let from = socket.local_addr().unwrap();
    drop(socket);
    let said = running.says("refused a peer");
    let expected = format!("shake hands with {from}: ");
    assert!(
        said.contains(&expected) && said.contains("a peer that hung up"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_hears_when_it_next_asks_that_its_server_was_killed_and_is_back() {
    let folder = Folder::new();
    let mut killed = Running::start(&mut folder.server());
    let address = killed.agents.clone();
    let transport = QuicTransport::new(folder.agent(), link::Config::default());
    let session = transport.connect(address.parse().unwrap(), "tunnel.example");
    let session = session.await.unwrap();
    killed.says("connected");
    killed.signal("KILL");
    killed.program.wait().unwrap();
    let _back = Running::start(&mut folder.server_at(&address));
    // The silence alone would end the session after 30 s.
    let told = timeout(Duration::from_secs(10), session.ping()).await;
    assert!(told.expect("it is told").is_err());
}

#[test]
fn check_prints_the_report_and_its_code_says_whether_the_node_is_reached() {
    let folder = Folder::new();
    let port = a_kubelet();
    write(
        &folder.path("nodes.json"),
        &format!(
            r#"{{"nodes": [{{"name": "edge-1", "addresses": ["192.0.2.7"]}},
               {{"name": "cloud-1", "edge": false, "addresses": ["127.0.0.1"], "kubeletPort": {port}}}]}}"#
        ),
    );
    let running = Running::start(&mut folder.server());
    let admin = running.admin.as_str();
    let check = |node: &str, admin: &str| -> Output {
        let arguments = ["check", node, "--admin-listen", admin];
        program().args(arguments).output().unwrap()
    };
    let far = check("edge-1", admin);
    assert_eq!(far.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&far.stdout),
        "[+] node edge-1 is known, at the edge, at 192.0.2.7, kubelet port 10250\n\
         [-] the agent of edge-1 is not connected, and there is no other server\n"
    );
    let near = check("cloud-1", admin);
    assert_eq!(near.status.code(), Some(0));
    let said = String::from_utf8_lossy(&near.stdout);
    let known = format!(
        "[+] node cloud-1 is known, not at the edge, at 127.0.0.1, kubelet port {port}\n\
         [+] 127.0.0.1:{port} is dialled directly in "
    );
    assert!(
        said.starts_with(&known) && said.contains("\n[+] TLS works"),
        "{said}"
    );
    // The address may stand in the file that the server has.
    let config = folder.path("config.yaml");
    write(&config, &format!("adminListen: {admin}\n"));
    let mut by_file = program();
    let by_file = by_file.args(["check", "cloud-1", "--config"]).arg(&config);
    assert_eq!(by_file.output().unwrap().status.code(), Some(0));
    assert_eq!(check("No Name", admin).status.code(), Some(2));
    assert_eq!(check("edge-1", "a").status.code(), Some(2));
    assert_eq!(
        program().arg("check").output().unwrap().status.code(),
        Some(2)
    );
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let unasked = check("edge-1", &address);
    assert_eq!(unasked.status.code(), Some(1));
    let said = String::from_utf8_lossy(&unasked.stderr);
    assert!(said.contains("Connection refused"), "{said}");
}

#[test]
fn certificates_that_change_are_taken_up_and_broken_ones_are_told_and_change_nothing() {
    let folder = Folder::new();
    let mut running = Running::start(&mut folder.server());
    write(&folder.path("server.pem"), "broken");
    running.says("the former ones stay in use");
    folder.certify("tunnel-2.example");
    running.says("reloaded the certificates");
    running.signal("TERM");
    running.says("draining");
}

#[test]
fn help_fits_a_terminal_of_100_columns() {
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["check", "--help"],
        &["check", "-h"],
    ] {
        let long = testbed::help::too_long(env!("CARGO_BIN_EXE_yurt-tunnel-server"), arguments);
        assert!(long.is_empty(), "{arguments:?}: {long:#?}");
    }
}

#[test]
fn help_names_every_flag_of_the_readme() {
    let output = program().arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let flags = |text: &str| {
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '-'));
        words
            .filter(|word| word.starts_with("--") && word.len() > 2)
            .map(str::to_owned)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let of_readme = flags(include_str!("../README.md"));
    for flag in flags(&help) {
        if !["--help", "--version"].contains(&flag.as_str()) {
            assert!(of_readme.contains(&flag), "README.md has no {flag}");
        }
    }
}

/// Starts what answers TLS, as far as to refuse it, and returns its port.
fn a_kubelet() -> u16 {
    const HANDSHAKE_FAILURE: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("a client");
            let mut hello = [0; 4096];
            // The test looks at what the client says of it.
            let _ = client
                .read(&mut hello)
                .and_then(|_| client.write_all(&HANDSHAKE_FAILURE));
        }
    });
    port
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_yurt-tunnel-server"))
}

/// Certificates and a list of nodes.
struct Folder {
    folder: tempfile::TempDir,
    pki: Pki,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let new = Self {
            folder,
            pki: Pki::new(),
        };
        write(&new.path("ca.pem"), new.pki.ca_pem());
        new.certify("tunnel.example");
        write(
            &new.path("nodes.json"),
            r#"{"nodes": [{"name": "edge-1", "addresses": ["192.0.2.7"]},
                          {"name": "cloud-1", "edge": false}]}"#,
        );
        new
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn certify(&self, name: &str) {
        let (certificate, key) = self.pki.both(&[name], "yurt:tunnel-servers");
        write(&self.path("server.pem"), &format!("{certificate}{key}"));
    }

    /// What an agent shows.
    fn agent(&self) -> Credentials {
        self.client("system:node:edge-1", &["system:nodes"])
    }

    fn client(&self, user: &str, groups: &[&str]) -> Credentials {
        let (certificate, key) = self.pki.client(user, groups);
        write(&self.path("node.pem"), &format!("{certificate}{key}"));
        let files = Files {
            ca: self.path("ca.pem"),
            certificate: self.path("node.pem"),
            key: self.path("node.pem"),
        };
        Credentials::load(files).expect("they were written above")
    }

    /// The program with a valid configuration.
    fn server(&self) -> Command {
        self.server_at("127.0.0.1:0")
    }

    fn server_at(&self, listen: &str) -> Command {
        let mut command = program();
        command
            .args(["--listen", listen, "--admin-listen", "127.0.0.1:0"])
            .arg("--ca-file")
            .arg(self.path("ca.pem"))
            .arg("--certificate")
            .arg(self.path("server.pem"))
            .arg("--nodes-file")
            .arg(self.path("nodes.json"));
        command
    }
}

/// A program that serves, and does not outlive its test.
struct Running {
    program: Child,
    lines: Lines<BufReader<ChildStderr>>,
    agents: String,
    admin: String,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut program = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let stderr = program.stderr.take().expect("it is piped");
        let mut running = Self {
            program,
            lines: BufReader::new(stderr).lines(),
            agents: String::new(),
            admin: String::new(),
        };
        running.admin = address(&running.says("health and metrics are served"));
        running.agents = address(&running.says("listening for agents"));
        running
    }

    /// Waits for a line with this text.
    fn says(&mut self, text: &str) -> String {
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        let line = lines.find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("it never says {text:?}"))
    }

    fn signal(&self, name: &str) {
        let arguments = [&format!("-{name}"), &self.program.id().to_string()];
        let sent = Command::new("kill").args(arguments).status();
        assert!(sent.expect("kill is there").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.program.kill(); // an error is a program that has ended
        let _ = self.program.wait();
    }
}

/// The address that a line tells.
fn address(line: &str) -> String {
    let rest = line.split_once("address=").map_or("", |(_, rest)| rest);
    rest.split_whitespace().next().unwrap_or("").to_owned()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's file need not survive a crash"
)]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a new folder takes a file");
}
