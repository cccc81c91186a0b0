//! The program from outside: what it prints and how it ends.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use testbed::pki::Pki;

#[test]
fn a_wrong_configuration_is_told_line_by_line_and_ends_with_code_2() {
    let output = Command::new(env!("CARGO_BIN_EXE_yurthub"))
        .args(["--server", "http://a", "--log", "loud", "--data-dir", "var"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "\
yurthub: nodeName: missing: set it in the file or by --node-name
yurthub: --server: \"http://a\" is not https
yurthub: caFile: missing: set it in the file or by --ca-file
yurthub: --data-dir: var is not an absolute path
yurthub: --log: \"loud\" is not a level: off, error, warn, info, debug, trace
"
    );
}

#[test]
fn a_hub_that_cannot_listen_ends_with_code_1_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = hub(folder.path(), &address).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Address already in use"), "{said}");
}

#[test]
fn a_hub_that_is_told_to_end_drains_and_ends_with_code_0() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = hub(folder.path(), "127.0.0.1:0");
    let mut program = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(program.stderr.take().unwrap()).lines();
    let mut until = |text: &str| lines.any(|line| line.unwrap().contains(text));
    assert!(until("the hub serves"));
    let terminate = ["-TERM", &program.id().to_string()];
    assert!(
        Command::new("kill")
            .args(terminate)
            .status()
            .unwrap()
            .success()
    );
    assert!(until("draining"));
    assert_eq!(program.wait().unwrap().code(), Some(0));
}

/// The program with a valid configuration, its files in a folder; nobody is behind its upstream.
fn hub(folder: &Path, listen: &str) -> Command {
    let ca = folder.join("ca.pem");
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's file need not survive a crash"
    )]
    std::fs::write(&ca, Pki::new().ca_pem()).expect("a new folder takes a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_yurthub"));
    command
        .args(["--node-name", "n", "--server", "https://127.0.0.1:1"])
        .args(["--listen", listen, "--admin-listen", "127.0.0.1:0"])
        .arg("--ca-file")
        .arg(ca)
        .arg("--data-dir")
        .arg(folder.join("data"));
    command
}

#[test]
fn help_names_every_flag_of_the_readme() {
    let output = Command::new(env!("CARGO_BIN_EXE_yurthub"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let readme = include_str!("../README.md");
    let flags = |text: &str| {
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '-'));
        let mut flags: Vec<String> = words
            .filter(|word| word.starts_with("--") && word.len() > 2)
            .map(str::to_owned)
            .collect();
        flags.sort();
        flags.dedup();
        flags
    };
    let of_readme = flags(readme);
    for flag in flags(&help) {
        if !["--help", "--version"].contains(&flag.as_str()) {
            assert!(of_readme.contains(&flag), "README.md has no {flag}");
        }
    }
}

#[test]
fn help_fits_a_terminal_of_100_columns() {
    for arguments in [&["--help"][..], &["-h"]] {
        let long = testbed::help::too_long(env!("CARGO_BIN_EXE_yurthub"), arguments);
        assert!(long.is_empty(), "{arguments:?}: {long:#?}");
    }
}
