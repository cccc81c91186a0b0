//! Group commit: what is written is synced within a moment, many writes by one sync.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use yurt_core::store::{Batch, ErrorKind, Health, Result, Store};

use crate::tasks::blocking;

/// How long a write may wait for others before it is synced. A power cut loses at most this much, and the
/// mirror fetches it again.
const DELAY: Duration = Duration::from_millis(100);

/// A store that is synced soon after each write.
pub(crate) struct Flushing {
    store: Arc<dyn Store>,
    written: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Counts the writes.
    written: u64,
    /// When the first write began that no sync has covered.
    unsynced_since: Option<Instant>,
    write_failed: Option<ErrorKind>,
    sync_failed: Option<ErrorKind>,
}

/// What of the store's promises holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// All that was written is safe from a power cut, but for what was written since.
    Synced { but_for: Duration },
    /// The last write was refused.
    Refuses(ErrorKind),
    /// The last sync failed.
    Forgets(ErrorKind),
}

impl Flushing {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            written: Notify::new(),
            state: Mutex::default(),
        }
    }

    /// Syncs after writes until `stop`, and once more then.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut is_stopped = false;
        while !is_stopped {
            tokio::select! {
                () = stop.cancelled() => is_stopped = true,
                () = self.written.notified() => tokio::time::sleep(DELAY).await,
            }
            let flushing = self.clone();
            if let Err(error) = blocking(move || flushing.sync()).await {
                tracing::warn!(%error, "the store cannot promise what was written");
            }
        }
    }

    /// Returns what the store promises now.
    pub(crate) fn durability(&self, now: Instant) -> Durability {
        let state = self.state.lock();
        match (state.write_failed, state.sync_failed) {
            (Some(kind), _) => Durability::Refuses(kind),
            (None, Some(kind)) => Durability::Forgets(kind),
            (None, None) => Durability::Synced {
                but_for: state
                    .unsynced_since
                    .map_or(Duration::ZERO, |since| now.duration_since(since)),
            },
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
        let began = Instant::now();
        let written = self.store.write(batch);
        let mut state = self.state.lock();
        match &written {
            Ok(()) => {
                state.write_failed = None;
                state.written += 1;
                state.unsynced_since.get_or_insert(began);
            }
            // That one value is no value for this store says nothing about the store.
            Err(error) if error.kind() == ErrorKind::TooLarge => {}
            Err(error) => state.write_failed = Some(error.kind()),
        }
        drop(state);
        if written.is_ok() {
            self.written.notify_one();
        }
        written
    }

    fn sync(&self) -> Result<()> {
        let (began, covered) = (Instant::now(), self.state.lock().written);
        let synced = self.store.sync();
        let mut state = self.state.lock();
        state.sync_failed = synced.as_ref().err().map(|error| error.kind());
        if synced.is_ok() {
            // What was written meanwhile waits for the next one.
            state.unsynced_since = (state.written != covered).then_some(began);
        }
        synced
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

#[cfg(test)]
mod tests {
    use yurt_core::store::{Error, StoreExt};
    use yurt_core::testing::fault::{Fate, Fault, FaultyStore};

    use super::*;
    use crate::store::MemoryStore;

    /// Refuses the writes of these numbers, for these reasons.
    #[derive(Debug)]
    struct Refusing(&'static [(u64, ErrorKind)]);

    impl Fault for Refusing {
        fn fate(&self, number: u64, _: &Batch) -> Fate {
            match self.0.iter().find(|(nth, _)| *nth == number) {
                Some((_, kind)) => Fate::Refused(Error::new(*kind, "on purpose")),
                None => Fate::Done,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_promised_is_what_the_last_write_and_the_last_sync_say() {
        let refusing = Refusing(&[(2, ErrorKind::Full), (4, ErrorKind::TooLarge)]);
        let store = Flushing::new(Arc::new(FaultyStore::new(MemoryStore::new(), refusing)));
        let write = || {
            let mut batch = Batch::new();
            batch.put("a", "1");
            store.write(batch).map_err(|error| error.kind())
        };
        let second = Duration::from_secs(1);
        write().unwrap();
        tokio::time::advance(second).await;
        let unsynced = Durability::Synced { but_for: second };
        assert_eq!(store.durability(Instant::now()), unsynced);
        store.sync().unwrap();
        let synced = Durability::Synced {
            but_for: Duration::ZERO,
        };
        assert_eq!(store.durability(Instant::now()), synced);
        assert_eq!(write(), Err(ErrorKind::Full));
        let full = Durability::Refuses(ErrorKind::Full);
        assert_eq!(store.durability(Instant::now()), full);
        store.put("a", "2").unwrap();
        assert_eq!(store.durability(Instant::now()), synced);
        assert_eq!(write(), Err(ErrorKind::TooLarge));
        assert_eq!(store.durability(Instant::now()), synced, "of one value");
    }
}
