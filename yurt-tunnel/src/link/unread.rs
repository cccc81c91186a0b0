//! The streams that have ended here, and whose end the peer has not read.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::StreamId;

/// An end counts for so long: the last bytes of a stream, 8 MiB at most, have arrived by then at 256 kbit/s.
const UNREAD: Duration = Duration::from_secs(300);

/// Ends that the peer has not read; the oldest are forgotten.
#[derive(Debug)]
pub(super) struct UnreadEnds {
    since: HashMap<StreamId, Duration>,
    oldest: BTreeSet<(Duration, StreamId)>,
    most: u64,
}

impl UnreadEnds {
    /// Holds no more ends than `most`.
    pub(super) fn new(most: u64) -> Self {
        Self {
            since: HashMap::new(),
            oldest: BTreeSet::new(),
            most,
        }
    }

    pub(super) fn insert(&mut self, id: StreamId, now: Duration) {
        self.read(id);
        self.since.insert(id, now);
        self.oldest.insert((now, id));
        if self.count() > self.most {
            self.forget_oldest();
        }
    }

    pub(super) fn read(&mut self, id: StreamId) {
        if let Some(since) = self.since.remove(&id) {
            self.oldest.remove(&(since, id));
        }
    }

    /// Returns when the next one is forgotten.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let (since, _) = self.oldest.first()?;
        Some(since.saturating_add(UNREAD))
    }

    pub(super) fn expire(&mut self, now: Duration) {
        while self.timeout().is_some_and(|timeout| timeout <= now) {
            self.forget_oldest();
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.since.len() as u64
    }

    pub(super) fn clear(&mut self) {
        self.since.clear();
        self.oldest.clear();
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.oldest.pop_first() {
            self.since.remove(&id);
        }
    }
}
