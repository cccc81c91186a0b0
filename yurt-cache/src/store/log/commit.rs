//! Group commit: whoever waits for a sync shares one.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};
use yurt_core::store::Result;

/// Knows what was written and what of it is safe.
#[derive(Debug)]
pub(super) struct Commit {
    written: AtomicU64,
    state: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    safe: u64,
    is_running: bool,
}

impl Commit {
    /// Returns a commit of a store in which `written` was found and nothing is known to be safe.
    pub(super) fn new(written: u64) -> Self {
        Self {
            written: AtomicU64::new(written),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Notes that everything up to `sequence` is visible.
    pub(super) fn note_written(&self, sequence: u64) {
        self.written.fetch_max(sequence, Ordering::SeqCst);
    }

    /// Returns when what was written before the call is safe; `flush` makes it so, for all who wait.
    pub(super) fn run(&self, flush: impl FnOnce() -> Result<u64>) -> Result<()> {
        let target = self.written.load(Ordering::SeqCst);
        let mut progress = self.state.lock();
        while progress.safe < target && progress.is_running {
            self.changed.wait(&mut progress);
        }
        if progress.safe >= target {
            return Ok(());
        }
        progress.is_running = true;
        drop(progress);
        let turn = Turn(self);
        let safe = flush()?;
        self.state.lock().safe = safe;
        drop(turn);
        Ok(())
    }
}

/// The right to flush, given back however the flush ends.
struct Turn<'a>(&'a Commit);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state.lock().is_running = false;
        self.0.changed.notify_all();
    }
}
