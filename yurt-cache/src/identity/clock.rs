//! The node's clock as the hub uses it: never behind the time floor, whose mark is on the disk.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use yurt_core::store::{Batch, Result, Store};

use super::judge::later;
use super::time_floor::{TimeFloor, TimeMark};
use crate::store::layout::TIME;

/// How often the mark is written while the cloud is away, some hundred times a day; while it is there, its last contact
/// is a mark too.
const MARKED_EVERY: Duration = Duration::from_secs(900);

/// How far behind a clock is before that is worth a line in the log.
const FAR: Duration = Duration::from_secs(300);

/// The clocks of a machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    /// What people set.
    pub(crate) wall: fn() -> Timestamp,
    /// The time since the machine's start.
    pub(crate) uptime: fn() -> Duration,
}

/// What time it is.
pub(crate) struct Clock {
    clocks: Clocks,
    store: Arc<dyn Store>,
    /// The machine's start.
    boot: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    floor: TimeFloor,
    marked: Option<Duration>,
    is_behind: bool,
}

impl Clock {
    /// Takes up the mark that the store has, and the last contact. Blocks on the store.
    pub(crate) fn open(
        store: Arc<dyn Store>,
        clocks: Clocks,
        boot_id_file: &Path,
        contact: Option<Timestamp>,
    ) -> Self {
        let boot = std::fs::read_to_string(boot_id_file).unwrap_or_default();
        let boot = boot.trim().to_owned();
        // What is damaged is no mark.
        let stored = store.get(TIME.as_bytes()).ok().flatten();
        let stored = stored.and_then(|mark| parse(&mark, &boot));
        let contact = contact.map(|at| TimeMark { at, uptime: None });
        let floor = TimeFloor::restored(stored.into_iter().chain(contact), (clocks.uptime)());
        let state = State {
            floor,
            marked: None,
            is_behind: false,
        };
        Self {
            clocks,
            store,
            boot,
            state: Mutex::new(state),
        }
    }

    /// Returns what time it is.
    pub(crate) fn now(&self) -> Timestamp {
        let (wall, uptime) = self.read();
        self.state.lock().floor.now(wall, uptime)
    }

    /// Returns what time it is while the cloud is there.
    pub(crate) fn at_contact(&self) -> Timestamp {
        let (wall, uptime) = self.read();
        self.state.lock().floor.at_contact(wall, uptime)
    }

    /// Takes over what the cloud says.
    pub(crate) fn hear(&self, cloud: Timestamp) {
        let (_, uptime) = self.read();
        self.state.lock().floor.hear(cloud, uptime);
    }

    /// Takes notice of the wall clock, which is believed up to `limit`, and writes a mark if one is due. Blocks on the
    /// store.
    pub(crate) fn look(&self, limit: Option<Timestamp>) -> Result<()> {
        let (wall, uptime) = self.read();
        let mark = {
            let mut state = self.state.lock();
            state.floor.look(wall, uptime, limit);
            let Some(floor) = state.floor.at(uptime) else {
                return Ok(());
            };
            let is_behind = floor > later(wall, FAR);
            if is_behind && !std::mem::replace(&mut state.is_behind, is_behind) {
                tracing::warn!(%wall, %floor, "the node's clock is behind: the hub goes on from what it knows");
            }
            state.is_behind = is_behind;
            let is_due = state
                .marked
                .is_none_or(|marked| uptime.saturating_sub(marked) >= MARKED_EVERY);
            if !is_due {
                return Ok(());
            }
            state.marked = Some(uptime);
            format!("{} {} {}", floor.as_second(), uptime.as_secs(), self.boot)
        };
        let mut batch = Batch::new();
        batch.put(TIME, mark);
        self.store.write(batch)
    }

    fn read(&self) -> (Timestamp, Duration) {
        ((self.clocks.wall)(), (self.clocks.uptime)())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("state", &self.state.lock())
            .finish_non_exhaustive()
    }
}

/// Returns the time since the machine's start, suspensions included.
pub(crate) fn uptime() -> Duration {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(since.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(since.tv_nsec).unwrap_or_default())
}

fn parse(mark: &[u8], boot: &str) -> Option<TimeMark> {
    let mut words = std::str::from_utf8(mark).ok()?.splitn(3, ' ');
    let at = Timestamp::from_second(words.next()?.parse().ok()?).ok()?;
    let uptime = Duration::from_secs(words.next()?.parse().ok()?);
    let is_same = !boot.is_empty() && words.next()? == boot;
    Some(TimeMark {
        at,
        uptime: is_same.then_some(uptime),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

    use super::*;
    use crate::store::MemoryStore;

    const START: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_mark_is_written_sparingly_and_taken_up_by_the_next_hub() {
        static WALL: AtomicI64 = AtomicI64::new(START);
        static UPTIME: AtomicU64 = AtomicU64::new(100);
        let clocks = Clocks {
            wall: || at(WALL.load(Ordering::SeqCst)),
            uptime: || Duration::from_secs(UPTIME.load(Ordering::SeqCst)),
        };
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let boot = tempfile::NamedTempFile::new().unwrap();
        yurt_core::files::replace(
            boot.path().parent().unwrap(),
            &[(
                boot.path().file_name().unwrap().to_str().unwrap(),
                "one\n",
                0o600,
            )],
        )
        .unwrap();
        let open = |file: &Path, contact| Clock::open(store.clone(), clocks, file, contact);
        let clock = open(boot.path(), None);
        clock.look(None).unwrap();
        assert_eq!(
            store.get(TIME.as_bytes()).unwrap(),
            None,
            "it knows nothing"
        );
        clock.hear(at(START));
        WALL.store(0, Ordering::SeqCst);
        let mut marks = std::collections::BTreeSet::new();
        for _ in 0..24 * 12 {
            UPTIME.fetch_add(300, Ordering::SeqCst);
            clock.look(None).unwrap();
            marks.insert(store.get(TIME.as_bytes()).unwrap().unwrap());
        }
        assert_eq!(marks.len(), 96);
        assert_eq!(clock.now(), at(START + 86_400));
        UPTIME.fetch_add(50, Ordering::SeqCst);
        assert_eq!(open(boot.path(), None).now(), at(START + 86_450));
        // The machine was started again: the last mark is less than a quarter of an hour old.
        let rebooted = open(Path::new("/nowhere"), None).now();
        assert!(rebooted > at(START + 86_400 - 900) && rebooted <= at(START + 86_400));
        let later = at(START + 90_000);
        assert_eq!(open(boot.path(), Some(later)).now(), later);
    }

    #[test]
    fn a_damaged_mark_is_none() {
        for bad in [
            &b""[..],
            b"x 1 one",
            b"1",
            b"1 x one",
            b"1 1",
            b"\xff",
            b"99999999999999999999 1 one",
        ] {
            assert_eq!(parse(bad, "one"), None);
        }
        let mark = parse(b"7 8 one", "two").unwrap();
        assert_eq!(mark.uptime, None);
    }
}
