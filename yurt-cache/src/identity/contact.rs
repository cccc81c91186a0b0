//! When the cloud was there for the last time, remembered over restarts: the one time that a node without a
//! battery for its clock can be sure of.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use yurt_core::store::{Batch, Result, Store};

use crate::upstream::{Reach, Upstream};

const KEY: &str = "i/contact";

/// How often it is written while the cloud is there.
const NOTED_EVERY: Duration = Duration::from_secs(300);

/// The last contact with the cloud.
#[derive(Debug)]
pub(crate) struct Contact {
    store: Arc<dyn Store>,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    at: Option<Timestamp>,
    written: Option<Instant>,
    /// Since when the link has been there.
    back: Option<Instant>,
}

impl Contact {
    /// Opens what the store remembers. Blocks on the store.
    pub(crate) fn open(store: Arc<dyn Store>) -> Result<Self> {
        let at = match store.get(KEY.as_bytes()) {
            Ok(value) => value.and_then(|value| parse(&value)),
            // Damage costs the record alone.
            Err(error) => {
                tracing::warn!(%error, "the last contact with the cloud is not remembered");
                None
            }
        };
        let last = Last {
            at,
            ..Last::default()
        };
        Ok(Self {
            store,
            last: Mutex::new(last),
        })
    }

    /// Returns when the cloud was there for the last time.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        self.last.lock().at
    }

    /// Returns for how long the link has been there, `None` while it is not.
    pub(crate) fn back_for(&self, now: Instant) -> Option<Duration> {
        let back = self.last.lock().back;
        back.map(|back| now.duration_since(back))
    }

    /// Notes that the link is there.
    pub(crate) fn came_back(&self, now: Instant) {
        self.last.lock().back = Some(now);
    }

    /// Notes that the link is cut.
    pub(crate) fn went_away(&self) {
        self.last.lock().back = None;
    }

    /// Notes that the cloud is there, or was until now. Blocks on the store.
    pub(crate) fn note(&self, at: Timestamp, now: Instant, is_last: bool) -> Result<()> {
        {
            let mut last = self.last.lock();
            last.at = Some(at);
            let is_due = last
                .written
                .is_none_or(|written| now.duration_since(written) >= NOTED_EVERY);
            if !is_due && !is_last {
                return Ok(());
            }
            last.written = Some(now);
        }
        let mut batch = Batch::new();
        batch.put(KEY, at.as_second().to_string());
        self.store.write(batch)
    }

    async fn write(self: Arc<Self>, at: Timestamp, is_last: bool) {
        let now = Instant::now();
        let noted = tokio::task::spawn_blocking(move || self.note(at, now, is_last)).await;
        if let Err(error) = noted.expect("work on the store does not panic") {
            tracing::warn!(%error, "the last contact with the cloud is not remembered");
        }
    }
}

/// Notes every contact until `stop`.
pub(crate) async fn keep(
    contact: Arc<Contact>,
    upstream: Upstream,
    clock: fn() -> Timestamp,
    stop: CancellationToken,
) {
    let keeping = async {
        let mut reach = upstream.reach();
        let mut was_online = false;
        loop {
            let seen = *reach.borrow_and_update();
            let mut pause = Duration::MAX;
            match seen {
                Reach::Online => {
                    if !std::mem::replace(&mut was_online, true) {
                        contact.came_back(Instant::now());
                    }
                    pause = NOTED_EVERY;
                    contact.clone().write(clock(), false).await;
                }
                Reach::CutOff { .. } => {
                    contact.went_away();
                    if std::mem::replace(&mut was_online, false) {
                        contact.clone().write(clock(), true).await;
                    }
                }
                Reach::Unknown => {}
            }
            if let Ok(Err(_)) = timeout(pause, reach.changed()).await {
                return;
            }
        }
    };
    stop.run_until_cancelled(keeping).await;
}

fn parse(value: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(value).ok()?;
    Timestamp::from_second(text.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[tokio::test(start_paused = true)]
    async fn the_last_contact_is_known_after_a_restart_and_written_sparingly() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let contact = Contact::open(store.clone()).unwrap();
        assert_eq!(contact.last(), None);
        let at = |second| Timestamp::from_second(second).unwrap();
        let now = Instant::now();
        contact.note(at(1_000), now, false).unwrap();
        contact
            .note(at(1_060), now + Duration::from_secs(60), false)
            .unwrap();
        assert_eq!(contact.last(), Some(at(1_060)));
        let again = || Contact::open(store.clone()).unwrap().last();
        assert_eq!(again(), Some(at(1_000)));
        contact
            .note(at(1_090), now + Duration::from_secs(90), true)
            .unwrap();
        assert_eq!(again(), Some(at(1_090)));
        contact
            .note(at(1_390), now + Duration::from_secs(390), false)
            .unwrap();
        assert_eq!(again(), Some(at(1_390)));
    }

    #[test]
    fn a_damaged_note_is_none() {
        for bad in [&b""[..], b"x", b"\xff", b"99999999999999999999"] {
            assert_eq!(parse(bad), None);
        }
    }
}
