//! Two heaps, however many threads.

use std::{env, os::unix::process::CommandExt, process::Command};

/// How many heaps glibc makes (`mallopt(3)`, `M_ARENA_MAX`): it reads this once, before `main`.
const HEAPS: &str = "MALLOC_ARENA_MAX";

/// Starts the program again in its place, with two heaps instead of eight for each processor: each thread that waits
/// for the disk would leave one of its own behind, a megabyte each. Whoever has set another number keeps it; where the
/// program cannot be started again it goes on as it is.
pub(crate) fn limit() {
    if !cfg!(target_env = "gnu") || env::var_os(HEAPS).is_some() {
        return;
    }
    let mut arguments = env::args_os();
    let (Some(name), Ok(program)) = (arguments.next(), env::current_exe()) else {
        return;
    };
    // It returns only if it has failed.
    let _goes_on = Command::new(program)
        .arg0(name)
        .args(arguments)
        .env(HEAPS, "2")
        .exec();
}
