//! A node's namespaces: with their first process the machine is switched on, and without it there is nothing.
//!
//! Of its own a machine has processes, mounts, a network and a name. Killing the first process is a power cut: the
//! kernel kills all the others at once, and mounts, interfaces, firewall rules and connections go with the
//! namespaces.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::Error;
use crate::system::{self, spawn_error};

const INIT: &str = include_str!("init.sh");

/// The namespaces of a node that is switched on; dropping the value switches it off.
#[derive(Debug)]
pub(super) struct Machine {
    outer: Child,
    /// While it is open the machine is on.
    _power: ChildStdin,
    /// The first process, as the outside numbers it.
    pid: u32,
}

impl Machine {
    /// Switches a machine on.
    pub(super) fn power_on(
        name: &str,
        persistent: &Path,
        disk: Option<&Path>,
    ) -> Result<Self, Error> {
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--mount", "--net", "--uts", "--ipc"])
            .args(["--fork", "--kill-child"])
            .args(["sh", "-c", INIT, "init", name])
            .arg(persistent)
            .args(disk)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut outer = command
            .spawn()
            .map_err(|source| spawn_error(&command, source))?;
        let power = outer.stdin.take().expect("stdin is piped");
        let stdout = outer.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        if let (Ok(_), Ok(pid)) = (read, line.trim().parse()) {
            return Ok(Self {
                outer,
                _power: power,
                pid,
            });
        }
        // Without its number it has ended, or does when its stdin is closed.
        drop(power);
        let mut said = String::new();
        if let Some(mut stderr) = outer.stderr.take() {
            _ = stderr.read_to_string(&mut said);
        }
        _ = outer.wait();
        Err(Error::System(system::Error::Command {
            command: format!("the first process of {name}"),
            said: said.trim().to_owned(),
        }))
    }

    /// Returns a program that will run inside.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let starter = self.starter();
        let mut command = Command::new(&starter[0]);
        command.args(&starter[1..]).arg(program);
        command
    }

    /// Returns what starts a program inside, with its arguments.
    pub(super) fn starter(&self) -> Vec<String> {
        let pid = self.pid.to_string();
        let words = ["nsenter", "--target", &pid, "--mount", "--pid", "--net"];
        let words = words.iter().chain(&["--uts", "--ipc", "--"]);
        words.map(|&word| word.to_owned()).collect()
    }

    /// The first process, as the outside numbers it.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        kill(self.pid);
        // It ends when its child, the first process, is gone, and that when all others are.
        _ = self.outer.wait();
    }
}

/// Kills a process that we have not waited for, so that the number is still its own.
pub(super) fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // One that has ended already is not an error.
    _ = pid.map(|pid| kill_process(pid, Signal::KILL));
}
