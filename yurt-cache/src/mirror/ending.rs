//! How a mirror ends: what the store has of it goes, and what it held is released.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use yurt_core::store::{Batch, Result};

use super::saved::{member_key, scope_key, tombstone_prefix};
use super::{Mirror, Phase};
use crate::api::ObjectKey;
use crate::codec::Status;

/// For how long a scope that was over its budget is only forwarded: a list of it costs the link.
const REST: Duration = Duration::from_secs(600);

/// Objects that are released at a time.
const PORTION: usize = 500;

impl Mirror {
    /// Erases what is stored of the mirror; whoever still writes for it writes nothing any more. Blocks on the store.
    pub(super) fn erase(&self) -> Result<()> {
        let mut writing = self.writing.lock();
        writing.is_ended = true;
        let mut batch = Batch::new();
        batch.delete(scope_key(self.id));
        let tombstones = tombstone_prefix(self.id);
        self.store.keys(&tombstones, None, &mut |key, _| {
            batch.delete(Bytes::copy_from_slice(key));
            ControlFlow::Continue(())
        })?;
        self.store.write(batch)?;
        self.unstage(&mut writing)?;
        loop {
            let held = self.some_held();
            if held.is_empty() {
                return Ok(());
            }
            self.release(&held)?;
        }
    }

    fn some_held(&self) -> Vec<ObjectKey> {
        let state = self.state.read();
        state.history.keys().take(PORTION).cloned().collect()
    }

    /// Lets go of objects that nobody is told of any more.
    fn release(&self, keys: &[ObjectKey]) -> Result<()> {
        let mut writer = self.kind.bodies.writer();
        for key in keys {
            let held = self.state.read().history.holding(key);
            for version in held.versions() {
                writer.release(key, version);
            }
            writer.batch.delete(member_key(self.id, key));
        }
        writer.write(|| self.state.write().history.let_go(keys))
    }

    /// Gives up for a while, because the kind is over its budget: requests are forwarded meanwhile.
    pub(super) fn rest(&self, now: Instant) {
        let budget = self.kind.budget();
        let status = Status::unavailable(
            format!(
                "this node keeps no more than {} objects and {} bytes of {}",
                budget.objects, budget.bytes, self.kind.resource
            ),
            Some(REST),
        );
        self.state.write().rests_until = Some(now + REST);
        self.set_phase(Phase::Failed(status));
    }

    /// Returns whether it has failed and may be tried again.
    pub(super) fn is_done_resting(&self, now: Instant) -> bool {
        let state = self.state.read();
        matches!(state.phase, Phase::Failed(_))
            && state.rests_until.is_none_or(|until| now >= until)
    }

    /// Returns whether a list that is being taken is more than the node keeps of the kind.
    pub(super) fn is_over_budget(&self) -> bool {
        let is_first = !self.is_synced() && !crate::retention::is_always_kept(&self.scope);
        is_first && self.kind.budget().is_exceeded_by(self.kind.held())
    }
}
