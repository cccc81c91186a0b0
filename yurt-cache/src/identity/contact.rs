//! When the cloud was there for the last time, and whether it was when the hub stopped, remembered over
//! restarts: the one time that a node without a battery for its clock can be sure of.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use yurt_core::store::{Batch, Result, Store};

use super::clock::Clock;
use super::judge::later;
use crate::store::layout::CONTACT;
use crate::tasks::blocking;
use crate::upstream::{Reach, Upstream};

/// Follows the time in the record of a hub that was cut off.
const CUT: &str = " cut";

/// How often it is written while the cloud is there, and how often the clock is looked at.
const NOTED_EVERY: Duration = Duration::from_secs(300);

/// The last contact with the cloud.
#[derive(Debug)]
pub(crate) struct Contact {
    store: Arc<dyn Store>,
    /// The hub before this one was cut off when it stopped.
    was_cut: bool,
    opened: Instant,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    at: Option<Timestamp>,
    written: Option<Instant>,
    /// The record says that the hub is cut off.
    is_cut: bool,
    /// Since when the link has been there.
    back: Option<Instant>,
}

impl Contact {
    /// Opens what the store remembers. Blocks on the store.
    pub(crate) fn open(store: Arc<dyn Store>) -> Result<Self> {
        let known = match store.get(CONTACT.as_bytes()) {
            Ok(value) => value.and_then(|value| parse(&value)),
            // Damage costs the record alone.
            Err(error) => {
                tracing::warn!(%error, "the last contact with the cloud is not remembered");
                None
            }
        };
        let was_cut = known.is_some_and(|(_, is_cut)| is_cut);
        let last = Last {
            at: known.map(|(at, _)| at),
            is_cut: was_cut,
            ..Last::default()
        };
        Ok(Self {
            store,
            was_cut,
            opened: Instant::now(),
            last: Mutex::new(last),
        })
    }

    /// Returns when the cloud was there for the last time.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        self.last.lock().at
    }

    /// Returns whether the hub before this one was cut off when it stopped: then this one is, as long as it has
    /// not heard otherwise.
    pub(crate) fn was_cut(&self) -> bool {
        self.was_cut
    }

    /// Returns for how long the hub has been there.
    pub(crate) fn open_for(&self, now: Instant) -> Duration {
        now.duration_since(self.opened)
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

    /// Notes that the cloud is there. Blocks on the store.
    pub(crate) fn note(&self, at: Timestamp, now: Instant) -> Result<()> {
        {
            let mut last = self.last.lock();
            last.at = Some(at);
            let is_due = last
                .written
                .is_none_or(|written| now.duration_since(written) >= NOTED_EVERY);
            if !is_due && !last.is_cut {
                return Ok(());
            }
            last.written = Some(now);
            last.is_cut = false;
        }
        self.put(at.as_second().to_string())
    }

    /// Notes that the hub is cut off, since `at` if it is just now. Blocks on the store.
    pub(crate) fn note_cut(&self, at: Option<Timestamp>) -> Result<()> {
        let at = {
            let mut last = self.last.lock();
            last.at = at.or(last.at);
            if last.is_cut && at.is_none() {
                return Ok(());
            }
            last.is_cut = true;
            last.at
        };
        at.map_or(Ok(()), |at| self.put(format!("{}{CUT}", at.as_second())))
    }

    fn put(&self, record: String) -> Result<()> {
        let mut batch = Batch::new();
        batch.put(CONTACT, record);
        self.store.write(batch)
    }
}

async fn written(write: impl FnOnce() -> Result<()> + Send + 'static) {
    if let Err(error) = blocking(write).await {
        tracing::warn!(%error, "the last contact with the cloud is not remembered");
    }
}

/// Notes every contact, and keeps the clock's mark, until `stop`. The wall clock is believed up to `limit` after the last
/// contact.
pub(crate) async fn run(
    (contact, clock): (Arc<Contact>, Arc<Clock>),
    upstream: Upstream,
    limit: Duration,
    stop: CancellationToken,
) {
    let keeping = async {
        let mut reach = upstream.reach();
        let mut was_online = false;
        loop {
            let seen = *reach.borrow_and_update();
            let (contact, clock) = (contact.clone(), clock.clone());
            match seen {
                Reach::Online => {
                    if !std::mem::replace(&mut was_online, true) {
                        contact.came_back(Instant::now());
                    }
                    if let Some(cloud) = upstream.take_time(Instant::now()) {
                        clock.hear(cloud);
                    }
                    written(move || contact.note(clock.at_contact(), Instant::now())).await;
                }
                Reach::CutOff { .. } => {
                    contact.went_away();
                    let is_news = std::mem::replace(&mut was_online, false);
                    written(move || {
                        contact.note_cut(is_news.then(|| clock.at_contact()))?;
                        clock.look(contact.last().map(|last| later(last, limit)))
                    })
                    .await;
                }
                Reach::Unknown => {}
            }
            if let Ok(Err(_)) = timeout(NOTED_EVERY, reach.changed()).await {
                return;
            }
        }
    };
    stop.run_until_cancelled(keeping).await;
}

fn parse(value: &[u8]) -> Option<(Timestamp, bool)> {
    let text = std::str::from_utf8(value).ok()?;
    let seconds = text.strip_suffix(CUT);
    let at = Timestamp::from_second(seconds.unwrap_or(text).parse().ok()?).ok()?;
    Some((at, seconds.is_some()))
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
        contact.note(at(1_000), now).unwrap();
        contact
            .note(at(1_060), now + Duration::from_secs(60))
            .unwrap();
        assert_eq!(contact.last(), Some(at(1_060)));
        let again = || Contact::open(store.clone()).unwrap().last();
        assert_eq!(again(), Some(at(1_000)));
        contact.note_cut(Some(at(1_090))).unwrap();
        assert_eq!(again(), Some(at(1_090)));
        contact
            .note(at(1_390), now + Duration::from_secs(390))
            .unwrap();
        assert_eq!(again(), Some(at(1_390)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hub_knows_whether_the_one_before_it_was_cut_off_when_it_stopped() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let open = || Contact::open(store.clone()).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        open().note_cut(None).unwrap();
        assert!(!open().was_cut(), "it has never seen the cloud");
        open().note(at(1_000), Instant::now()).unwrap();
        assert!(!open().was_cut());
        // Started while the cloud was away.
        open().note_cut(None).unwrap();
        assert!(open().was_cut());
        assert_eq!(open().last(), Some(at(1_000)));
        let contact = open();
        contact.note(at(1_010), Instant::now()).unwrap();
        assert!(!open().was_cut());
        contact.note_cut(Some(at(1_020))).unwrap();
        contact.note(at(1_030), Instant::now()).unwrap();
        assert!(!open().was_cut(), "however soon it came back");
    }

    #[test]
    fn a_damaged_note_is_none() {
        for bad in [&b""[..], b"x", b"\xff", b"99999999999999999999"] {
            assert_eq!(parse(bad), None);
        }
    }
}
