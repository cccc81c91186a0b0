//! Group commit: what is written is synced within a moment, many writes by one sync.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use yurt_core::store::{Batch, Health, Result, Store};

/// How long a write may wait for others before it is synced. A power cut loses at most this much, and the
/// mirror fetches it again.
const DELAY: Duration = Duration::from_millis(100);

/// A store that is synced soon after each write.
pub(super) struct Flushing {
    store: Arc<dyn Store>,
    written: Notify,
}

impl Flushing {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            written: Notify::new(),
        }
    }

    /// Syncs after writes until `stop`, and once more then.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut is_stopped = false;
        while !is_stopped {
            tokio::select! {
                () = stop.cancelled() => is_stopped = true,
                () = self.written.notified() => tokio::time::sleep(DELAY).await,
            }
            let store = self.store.clone();
            let synced = tokio::task::spawn_blocking(move || store.sync()).await;
            if let Err(error) = synced.expect("a sync does not panic") {
                tracing::warn!(%error, "the store cannot promise what was written");
            }
        }
    }
}

impl fmt::Debug for Flushing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for Flushing {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.store.get(key)
    }

    fn write(&self, batch: Batch) -> Result<()> {
        self.store.write(batch)?;
        self.written.notify_one();
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.store.sync()
    }

    fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], usize) -> ControlFlow<()>,
    ) -> Result<()> {
        self.store.keys(prefix, after, visit)
    }

    fn health(&self) -> Health {
        self.store.health()
    }
}
