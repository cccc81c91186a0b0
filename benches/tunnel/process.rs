//! A program that is measured, and what the system says of it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::setup::Fault;

/// A process that ends with this value.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

impl Process {
    pub(crate) fn start(program: &Path, arguments: &[String], log: &Path) -> Result<Self, Fault> {
        let log = fs::File::create(log)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("start {}: {error}", program.display()))?;
        Ok(Self(child))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

/// Processor seconds so far, of all threads.
pub(crate) fn cpu(pid: u32) -> Result<f64, Fault> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let statistics = fs::read_to_string(task?.path().join("schedstat"))?;
        let first = statistics.split_whitespace().next().ok_or("no schedstat")?;
        nanos += first.parse::<u64>()?;
    }
    Ok(nanos as f64 / 1e9)
}

/// Resident memory, in KiB.
pub(crate) fn memory(pid: u32) -> Result<f64, Fault> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.ok_or("no VmRSS")?.trim().trim_end_matches(" kB");
    Ok(kibibytes.parse()?)
}
