//! Short commands of the system, run to their end.

use std::process::{Command, Output, Stdio};

use super::Error;

/// Runs a command and returns what it printed.
pub(super) fn run(command: &mut Command) -> Result<String, Error> {
    let output = command.stdin(Stdio::null()).output();
    printed(
        command,
        output.map_err(|source| spawn_error(command, source))?,
    )
}

/// Returns a command from words with single spaces between.
pub(super) fn words(line: &str) -> Command {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

/// Returns what a command printed, or what it complained of.
pub(super) fn printed(command: &Command, output: Output) -> Result<String, Error> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Command {
        command: shown(command),
        said: if said.is_empty() {
            output.status.to_string()
        } else {
            said
        },
    })
}

pub(super) fn spawn_error(command: &Command, source: std::io::Error) -> Error {
    Error::Spawn {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    }
}

fn shown(command: &Command) -> String {
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
