//! The help of a program, as a terminal shows it.

use std::process::Command;

/// A terminal of this many columns breaks no line.
const COLUMNS: usize = 100;

/// Returns the lines of a program's help that are too long for a terminal.
///
/// # Panics
/// If the program has no such help.
#[must_use]
pub fn too_long(program: &str, arguments: &[&str]) -> Vec<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.expect("the program starts");
    assert!(output.status.success(), "{program} {arguments:?}");
    let help = String::from_utf8(output.stdout).expect("help is text");
    let lines = help.lines();
    let long = lines.filter(|line| line.chars().count() > COLUMNS);
    long.map(str::to_owned).collect()
}
