//! The program from outside: what it prints and how it ends.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use testbed::pki::Pki;

#[test]
fn a_wrong_configuration_is_told_line_by_line_and_ends_with_code_2() {
    let output = Command::new(env!("CARGO_BIN_EXE_yurt-tunnel-agent"))
        .args(["--server", "a", "--transport", "tcp", "--data-dir", "var"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "\
yurt-tunnel-agent: --server: \"a\" is not host:port
yurt-tunnel-agent: nodeName: missing: set it in the file or by --node-name
yurt-tunnel-agent: caFile: missing: set it in the file or by --ca-file
yurt-tunnel-agent: certificate: missing: set it in the file or by --certificate
yurt-tunnel-agent: --transport: \"tcp\" is not auto, quic or h2
yurt-tunnel-agent: --data-dir: var is not an absolute path
"
    );
}

#[test]
fn an_agent_that_cannot_listen_ends_with_code_1_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = agent(folder.path(), &address).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("listen at {address}: Address already in use")),
        "{said}"
    );
}

#[test]
fn an_agent_without_a_server_is_healthy_and_not_ready_and_ends_with_code_0_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = agent(folder.path(), "127.0.0.1:0");
    let mut program = Program(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(program.0.stderr.take().unwrap()).lines();
    let line = lines
        .by_ref()
        .map(Result::unwrap)
        .find(|line| line.contains("health and metrics are served"))
        .unwrap();
    let address = line.rsplit("address=").next().unwrap().trim();
    assert!(ask(address, "/healthz").starts_with("HTTP/1.1 200 "));
    let ready = ask(address, "/readyz");
    assert!(
        ready.starts_with("HTTP/1.1 503 ") && ready.contains("not ready"),
        "{ready}"
    );
    let metrics = ask(address, "/metrics");
    for name in [
        "yurt_tunnel_agent_dials_total{result=\"refused\"} 0",
        r#"yurt_tunnel_agent_sent_bytes_total{purpose="streams",transport="quic"} 0"#,
        "yurt_tunnel_agent_certificate_expiry_timestamp_seconds ",
    ] {
        assert!(metrics.contains(name), "{name} is not in {metrics}");
    }
    assert!(!metrics.contains("PRIVATE"));
    let terminate = ["-TERM", &program.0.id().to_string()];
    assert!(
        Command::new("kill")
            .args(terminate)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(program.0.wait().unwrap().code(), Some(0));
}

#[test]
fn help_names_every_flag_of_the_readme() {
    let output = Command::new(env!("CARGO_BIN_EXE_yurt-tunnel-agent"))
        .arg("--help")
        .output()
        .unwrap();
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

#[test]
fn help_fits_a_terminal_of_100_columns() {
    for arguments in [&["--help"][..], &["-h"]] {
        let long = testbed::help::too_long(env!("CARGO_BIN_EXE_yurt-tunnel-agent"), arguments);
        assert!(long.is_empty(), "{arguments:?}: {long:#?}");
    }
}

/// A program that does not outlive its test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill(); // an error is a program that has ended
        let _ = self.0.wait();
    }
}

fn ask(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the program answers");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("the program answers");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("the program answers");
    answer
}

/// The program with a valid configuration, its files in a folder; nobody is behind its server.
fn agent(folder: &Path, admin: &str) -> Command {
    let pki = Pki::new();
    let (certificate, key) = pki.client("system:node:edge-1", &["system:nodes"]);
    write(&folder.join("ca.pem"), pki.ca_pem());
    write(&folder.join("node.pem"), &format!("{certificate}{key}"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_yurt-tunnel-agent"));
    command
        .args(["--node-name", "edge-1", "--server", "127.0.0.1:1"])
        .args(["--admin-listen", admin])
        .arg("--ca-file")
        .arg(folder.join("ca.pem"))
        .arg("--certificate")
        .arg(folder.join("node.pem"))
        .arg("--data-dir")
        .arg(folder.join("data"));
    command
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's file need not survive a crash"
)]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a new folder takes a file");
}
