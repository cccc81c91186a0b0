//! The program from outside: what it prints and how it ends.

use std::process::Command;

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
