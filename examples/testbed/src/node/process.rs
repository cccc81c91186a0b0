//! The programs of a node, each kept running as a supervisor would.

use std::{
    fmt,
    fs::{self, File},
    io,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use jiff::SignedDuration;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::{
    Error, clock,
    machine::{Machine, kill},
};
use crate::system::spawn_error;

/// A program of a node: those that every node runs, a hub where it has one, and what a test adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// The container runtime.
    Containerd,
    /// The node's own API server.
    Hub,
    /// The kubelet.
    Kubelet,
    /// kube-proxy, in nftables mode.
    KubeProxy,
    /// Another one, by the name of its log.
    Other(&'static str),
}

/// How much memory a process has in RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Now, in bytes.
    pub now: u64,
    /// At most so far, in bytes.
    pub peak: u64,
}

// As systemd's Restart=always with RestartSec=1.
const SUPERVISE: &str = r#"while :; do "$@"; echo "supervisor: ended with $?" >&2; sleep 1; done"#;

/// The kernel needs some milliseconds for the memory of a large process.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A program that is started again when it ends by itself.
#[derive(Debug)]
pub(super) struct Process {
    /// Enters the node; its child is the supervisor, whose child is the program.
    outer: Child,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Containerd => "containerd",
            Self::Hub => "yurthub",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::Other(name) => name,
        })
    }
}

impl Process {
    /// Starts a program in a node; what it prints is added to the log.
    pub(super) fn start(machine: &Machine, line: &[String], log: &Path) -> Result<Self, Error> {
        let open = File::options().create(true).append(true).open(log);
        let both = open.and_then(|log| Ok((log.try_clone()?, log)));
        let (stdout, stderr) = both.map_err(|source| Error::File {
            step: "open",
            path: log.to_owned(),
            source,
        })?;
        let mut command: Command = machine.command("sh");
        command
            .args(["-c", SUPERVISE, "supervisor"])
            .args(line)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr);
        let outer = command
            .spawn()
            .map_err(|source| spawn_error(&command, source))?;
        Ok(Self { outer })
    }

    /// Kills the program, and its supervisor first.
    pub(super) fn kill(mut self) {
        let supervisor = child_of(self.outer.id());
        let program = supervisor.and_then(child_of);
        for pid in [supervisor, program].into_iter().flatten() {
            kill(pid);
        }
        // It ends as its child did.
        _ = self.outer.kill();
        _ = self.outer.wait();
        let gone_by = Instant::now() + KILL_LIMIT;
        while program.is_some_and(is_alive) && Instant::now() < gone_by {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stops the program where it is, or lets it go on.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for the end that came with the machine's.
    pub(super) fn forget(mut self) {
        _ = self.outer.kill();
        _ = self.outer.wait();
    }

    /// The program itself, as the outside numbers it.
    pub(super) fn pid(&self) -> Option<u32> {
        child_of(self.outer.id()).and_then(child_of)
    }

    /// Sets the clock of the program that was just started; kills it when that is not possible.
    pub(super) fn with_clock(self, offset: SignedDuration) -> io::Result<Self> {
        if offset.is_zero() {
            return Ok(self);
        }
        // Until then the child is a copy of the shell that supervises it.
        let program = clock::wait_for_program(|| self.pid(), || child_of(self.outer.id()));
        match program.and_then(|program| clock::shift(program, offset)) {
            Ok(()) => Ok(self),
            Err(error) => {
                self.kill();
                Err(error)
            }
        }
    }

    pub(super) fn memory(&self) -> Option<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        let bytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
            Some(kib * 1024)
        };
        Some(Memory {
            now: bytes("VmRSS:")?,
            peak: bytes("VmHWM:")?,
        })
    }
}

/// Returns whether a process has not ended; one that nobody has waited for yet has.
fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may hold anything.
    let state = status.rsplit(") ").next().unwrap_or_default();
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// Returns the first child of a process.
fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
