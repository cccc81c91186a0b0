//! What the machine itself is asked for: short commands, run to their end, and what has to be there for them.

use std::{
    fs, io,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Why the machine does not do what a test needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Namespaces need root and some programs of the system.
    #[error("this needs {what}: see `.ci/node`")]
    Need {
        /// What is missing.
        what: String,
    },
    /// A program of the system could not be started.
    #[error("cannot start {program}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A command ended with an error.
    #[error("{command}: {said}")]
    Command {
        /// The command with its arguments.
        command: String,
        /// What it printed to stderr, or how it ended.
        said: String,
    },
}

/// Says everything that is missing at once: root's rights, programs, files.
pub(crate) fn require(programs: &[&str], files: &[&str]) -> Result<(), Error> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt;
        own.uid() == 0
    });
    let root = (!is_root).then_some(&"root");
    let programs = programs.iter().filter(|program| !is_on_path(program));
    let files = files.iter().filter(|file| !Path::new(file).exists());
    let missing: Vec<&str> = root
        .into_iter()
        .chain(programs)
        .chain(files)
        .copied()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Need {
        what: missing.join(", "),
    })
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Runs a command and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String, Error> {
    let output = command.stdin(Stdio::null()).output();
    printed(
        command,
        output.map_err(|source| spawn_error(command, source))?,
    )
}

/// Returns a command from words with single spaces between.
pub(crate) fn words(line: &str) -> Command {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

/// Returns what a command printed, or what it complained of.
pub(crate) fn printed(command: &Command, output: Output) -> Result<String, Error> {
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

pub(crate) fn spawn_error(command: &Command, source: io::Error) -> Error {
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
