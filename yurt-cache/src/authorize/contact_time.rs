//! For how long the cloud was there in all: by this a right ages that the cloud could have confirmed and did not.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use yurt_core::store::{Batch, Result, Store};

use crate::store::layout::CONTACT_TIME;

/// How often it is written while the cloud is there.
const WRITTEN_EVERY: Duration = Duration::from_secs(300);

/// Counts the time for which the cloud is there, over restarts.
#[derive(Debug)]
pub(super) struct ContactTime {
    store: Arc<dyn Store>,
    counted: Mutex<Counted>,
}

#[derive(Debug)]
struct Counted {
    /// Up to `since`, if the cloud is there.
    total: Duration,
    since: Option<Instant>,
    written: Duration,
}

impl ContactTime {
    /// Opens what the store remembers; what is damaged begins anew. Blocks on the store.
    pub(super) fn open(store: Arc<dyn Store>) -> Self {
        let stored = store.get(CONTACT_TIME.as_bytes()).ok().flatten();
        let seconds = stored.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
        let total = Duration::from_secs(seconds.unwrap_or_default());
        Self {
            store,
            counted: Mutex::new(Counted {
                total,
                since: None,
                written: total,
            }),
        }
    }

    pub(super) fn total(&self, now: Instant) -> Duration {
        self.counted.lock().total(now)
    }

    /// Notes whether the cloud is there from now on; returns whether it is time to write.
    pub(super) fn note(&self, is_online: bool, now: Instant) -> bool {
        let mut counted = self.counted.lock();
        counted.total = counted.total(now);
        let was_online = counted.since.is_some();
        counted.since = is_online.then_some(now);
        let unwritten = counted.total.saturating_sub(counted.written);
        unwritten >= WRITTEN_EVERY || (was_online && !is_online && !unwritten.is_zero())
    }

    /// Writes it. Blocks on the store.
    pub(super) fn write(&self) -> Result<()> {
        let total = {
            let mut counted = self.counted.lock();
            counted.written = counted.total;
            counted.total
        };
        let mut batch = Batch::new();
        batch.put(CONTACT_TIME, total.as_secs().to_string());
        self.store.write(batch)
    }
}

impl Counted {
    fn total(&self, now: Instant) -> Duration {
        let more = self.since.map(|since| now.duration_since(since));
        self.total + more.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[tokio::test(start_paused = true)]
    async fn only_the_time_with_the_cloud_counts_and_a_restart_costs_minutes_of_it_at_most() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let contact = ContactTime::open(store.clone());
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let seconds = |contact: &ContactTime, then| contact.total(at(then)).as_secs();
        assert!(!contact.note(true, begun));
        assert_eq!(seconds(&contact, 100), 100);
        assert!(!contact.note(true, at(100)));
        assert!(contact.note(true, at(400)));
        contact.write().unwrap();
        assert!(contact.note(false, at(500)), "the link is cut");
        assert_eq!(seconds(&contact, 900), 500);
        assert_eq!(seconds(&ContactTime::open(store.clone()), 900), 400);
        contact.write().unwrap();
        assert!(!contact.note(true, at(1_000)));
        assert_eq!(seconds(&contact, 1_001), 501);
        assert_eq!(seconds(&ContactTime::open(store), 1_001), 500);
    }
}
