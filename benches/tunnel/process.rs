//! What the system says of a process.

use std::fs;

use crate::setup::Fault;

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
