//! The processes of a cluster: ended by their owner's drop, and by a watchdog when the owner cannot.

use std::{
    fs::{self, File},
    os::unix::process::{CommandExt, parent_id},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use tempfile::TempDir;

use super::Error;

/// Who has to be alive for the servers to run.
#[derive(Clone, Debug)]
pub(super) enum Owner {
    /// The process that starts them.
    ThisProcess,
    /// The one that started this process, and tests in other processes; what it shares goes with it.
    ParentProcess {
        /// The folder to remove at the end.
        shared: PathBuf,
    },
}

/// Processes that end with their owner, and the folder with all their files.
#[derive(Debug)]
pub(super) struct Servers {
    folder: TempDir,
    /// Leads the group of the servers, so the group's number is ours for as long as the watchdog lives.
    watchdog: Child,
    running: Vec<(&'static str, Child)>,
}

// A killed test runs no drop, but its end of the pipe is closed: `read` returns. The folder goes first,
// since the watchdog is of the group that the last command ends.
const WATCH_PIPE: &str = r#"read -r _; rm -rf "$1"; kill -KILL 0"#;
const WATCH_PARENT: &str =
    r#"while kill -0 "$2" 2>/dev/null; do sleep 1; done; rm -rf "$1"; kill -KILL 0"#;

impl Servers {
    /// Prepares to run servers that keep all their files in `folder`.
    pub(super) fn new(folder: TempDir, owner: &Owner) -> Result<Self, Error> {
        let (script, remove) = match owner {
            Owner::ThisProcess => (WATCH_PIPE, folder.path()),
            Owner::ParentProcess { shared } => (WATCH_PARENT, shared.as_path()),
        };
        let watchdog = Command::new("sh")
            .args(["-c", script, "watchdog"])
            .arg(remove)
            .arg(parent_id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn { name: "sh", source })?;
        Ok(Self {
            folder,
            watchdog,
            running: Vec::new(),
        })
    }

    /// The folder for the servers' files.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a server; what it prints goes to a file of its name.
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        program: &Path,
        arguments: &[String],
    ) -> Result<(), Error> {
        self.start(name, Command::new(program).args(arguments))
    }

    /// Starts a server with an environment of its own.
    pub(super) fn spawn_with(
        &mut self,
        name: &'static str,
        program: &Path,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> Result<(), Error> {
        let environment = environment.iter().map(|(name, value)| (name, value));
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(environment);
        self.start(name, &mut command)
    }

    fn start(&mut self, name: &'static str, command: &mut Command) -> Result<(), Error> {
        let path = self.log(name);
        let log = File::create(&path).map_err(|source| Error::WriteFile { path, source })?;
        let group = i32::try_from(self.watchdog.id()).expect("Linux has no larger process ids");
        let spawned = log.try_clone().and_then(|errors| {
            command
                .current_dir(self.folder())
                .stdin(Stdio::null())
                .stdout(log)
                .stderr(errors)
                .process_group(group)
                .spawn()
        });
        let child = spawned.map_err(|source| Error::Spawn { name, source })?;
        self.running.push((name, child));
        Ok(())
    }

    /// Says which server has ended, with the last lines that it printed.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        for (name, child) in &mut self.running {
            let Ok(Some(status)) = child.try_wait() else {
                continue;
            };
            let log = fs::read_to_string(self.folder.path().join(format!("{name}.log")));
            let log = log.unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            return Err(Error::ServerEnded {
                name,
                status,
                log: lines[lines.len().saturating_sub(5)..].join("\n"),
            });
        }
        Ok(())
    }

    /// Leaves the files where they are when the servers end.
    pub(super) fn keep_files(&mut self) -> &Path {
        self.folder.disable_cleanup(true);
        self.folder.path()
    }

    /// Leaves the servers to the watchdog and their owner, another process.
    pub(super) fn release(self) {
        std::mem::forget(self);
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // The watchdog first: it would remove files that are to be kept.
        let servers = self.running.iter_mut().map(|(_, child)| child);
        for child in [&mut self.watchdog].into_iter().chain(servers) {
            // One that has ended already is not an error, and there is no other.
            _ = child.kill();
            _ = child.wait();
        }
        if thread::panicking() {
            #[expect(
                clippy::print_stderr,
                reason = "what a failed test prints is read there"
            )]
            {
                eprintln!("the servers' logs: {}", self.keep_files().display());
            }
        }
    }
}
