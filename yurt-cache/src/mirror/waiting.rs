//! Waiting for a mirror to come to something. Dropped futures leave nothing behind.

use super::{Mirror, Phase};
use crate::codec::Status;

impl Mirror {
    /// Returns when the mirror is synced, or the status with which it failed, if only for now.
    pub(crate) async fn synced(&self) -> Result<(), Status> {
        let mut changed = self.changed();
        loop {
            match self.phase() {
                Phase::Live | Phase::Behind => return Ok(()),
                Phase::Refused(status) | Phase::Failed(status) => return Err(status),
                Phase::Syncing => {}
            }
            changed
                .changed()
                .await
                .expect("the mirror holds the sender");
        }
    }

    /// Returns when what it holds may lack something.
    pub(crate) async fn suspect(&self) {
        let (mut changed, mut eras) = (self.changed(), self.kind.eras());
        while !self.is_suspect() {
            let changed = tokio::select! {
                changed = changed.changed() => changed,
                changed = eras.changed() => changed,
            };
            changed.expect("the mirror and its kind hold the senders");
        }
    }

    /// Returns when the upstream watch is open.
    pub(crate) async fn live(&self) {
        let mut changed = self.changed();
        while !self.is_live() {
            changed
                .changed()
                .await
                .expect("the mirror holds the sender");
        }
    }

    /// Returns the status with which the mirror fails, when it does.
    pub(crate) async fn failed(&self) -> Status {
        let mut changed = self.changed();
        loop {
            if let Phase::Failed(status) = self.phase() {
                return status;
            }
            changed
                .changed()
                .await
                .expect("the mirror holds the sender");
        }
    }

    /// Returns when the mirror has reached `revision`.
    pub(crate) async fn reached(&self, revision: u64) {
        let mut changed = self.changed();
        while self.revision() < revision {
            changed
                .changed()
                .await
                .expect("the mirror holds the sender");
        }
    }
}
