//! A crash-safe `Store`: a log of checked records in segments, and an index of it in memory.
//!
//! `append` writes, `roll` goes from segment to segment, `commit` and `flush` sync, `compact` gives
//! space back, `recover` opens; `tail` decides what a cut-off writer left behind; `record`, `segment`
//! and `scan` know the bytes; `disk` is the seam.

mod append;
mod commit;
mod compact;
mod disk;
mod flush;
mod index;
#[cfg(test)]
mod powercut;
mod read;
mod record;
mod recover;
mod roll;
mod scan;
mod segment;
mod tail;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use yurt_core::store::{Batch, Error, ErrorKind, Health, Result, Store};

use self::append::{Writer, refused};
use self::commit::Commit;
use self::disk::{Directory, Disk, DiskFile};
use self::index::{Index, Location, State};
use super::memory::lower_bound;

/// How a [`LogStore`] keeps its log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The bytes of a segment file; from 4 KiB to 1 GiB, a value outside is taken as the nearest.
    pub segment_bytes: u32,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 8 << 20,
        }
    }
}

/// Remembers on a disk, in a directory of its own.
///
/// One process has it at a time. Values stay on the disk; memory holds the keys and less than a
/// hundred bytes for each.
pub struct LogStore {
    shared: Shared,
    writer: Mutex<Writer>,
    commit: Commit,
}

/// What readers and the writer share.
#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    segment_bytes: u32,
    index: RwLock<Index>,
    salt: u32,
    spare_bytes: AtomicU64,
    written_bytes: AtomicU64,
    syncs: AtomicU64,
    damaged: AtomicU64,
    /// A sync failed: what was written since the one before may be lost, whatever later syncs say.
    suspect: AtomicBool,
    /// One sync at a time, so that its failure is seen by whoever syncs next.
    sync_gate: Mutex<()>,
}

impl LogStore {
    /// Opens the store in the directory at `path`, which is created if need be.
    ///
    /// Damage does not refuse the opening; [`Health::damaged`] tells of it.
    ///
    /// # Errors
    /// [`ErrorKind::Other`] if another process has the store or the directory cannot be read.
    pub fn open(path: impl AsRef<Path>, config: LogConfig) -> Result<Self> {
        let path = path.as_ref();
        let failed = |error: io::Error| {
            let step = match error.kind() {
                io::ErrorKind::WouldBlock => "another process has the store in",
                _ => "cannot open the store in",
            };
            Error::new(ErrorKind::Other, format!("{step} {}", path.display())).with_source(error)
        };
        let disk = Directory::open(path).map_err(failed)?;
        Self::open_on(Arc::new(disk), &config).map_err(failed)
    }

    fn open_on(disk: Arc<dyn Disk>, config: &LogConfig) -> io::Result<Self> {
        let segment_bytes = config.segment_bytes.clamp(4 << 10, 1 << 30);
        let mut recovered = recover::recover(&*disk)?;
        let salt = recovered.salt.unwrap_or_else(new_salt);
        let writer = Writer::new(&recovered, segment_bytes);
        let shared = Shared {
            disk,
            segment_bytes,
            salt,
            spare_bytes: AtomicU64::new(
                recovered.spare.as_ref().map_or(0, |spare| spare.len.into()),
            ),
            written_bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            damaged: AtomicU64::new(recovered.damaged),
            suspect: AtomicBool::new(false),
            sync_gate: Mutex::new(()),
            index: RwLock::new(std::mem::take(&mut recovered.index)),
        };
        let commit = Commit::new(writer.sequence);
        Ok(Self {
            shared,
            writer: Mutex::new(writer),
            commit,
        })
    }

    /// Syncs the open segment; returns the sequence number up to which everything is safe.
    fn flush(&self) -> Result<u64> {
        let (active, sequence) = {
            let mut writer = self.writer.lock();
            if self.shared.is_suspect() {
                writer.rescue(&self.shared)?;
            }
            writer.pave(&self.shared);
            (writer.active.clone(), writer.sequence)
        };
        if let Some(active) = active {
            let result = self.shared.sync_file(&*active.file);
            result.map_err(|error| refused("sync the log", error))?;
            self.writer
                .lock()
                .note_sync(&self.shared, &active, sequence);
        }
        Ok(sequence)
    }
}

/// Returns a number that no value can know, and that is not zero.
fn new_salt() -> u32 {
    let random = RandomState::new().hash_one(0).to_le_bytes();
    let [a, b, c, d, ..] = random;
    u32::from_le_bytes([a | 1, b, c, d])
}

impl Store for LogStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let (slot, file) = {
            let index = self.shared.index.read();
            let Some(slot) = index.slots().get(key).copied() else {
                return Ok(None);
            };
            (slot, index.file(slot.location.segment))
        };
        let damaged = || {
            Error::new(
                ErrorKind::Damaged,
                format!("{} is damaged", key.escape_ascii()),
            )
        };
        if slot.state == State::Damaged {
            return Err(damaged());
        }
        let salt = segment::record_salt(self.shared.salt, slot.location.segment);
        match file.and_then(|file| read::value(&*file, salt, key, slot)) {
            Ok(Some(value)) => Ok(Some(value)),
            Ok(None) => {
                self.shared.report_damage(key, slot.location);
                Err(damaged())
            }
            Err(error) => Err(refused("read a record", error)),
        }
    }

    fn write(&self, batch: Batch) -> Result<()> {
        batch.check()?;
        let mut writer = self.writer.lock();
        let written = writer.write(&self.shared, &batch)?;
        self.commit.note_written(writer.sequence);
        // The batch is in; if space cannot be given back now, it is tried with the next.
        let _ = writer.compact(&self.shared, written);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.commit.run(|| self.flush())
    }

    fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], usize) -> ControlFlow<()>,
    ) -> Result<()> {
        let index = self.shared.index.read();
        let range = (lower_bound(prefix, after), Bound::Unbounded);
        for (key, slot) in index.slots().range::<[u8], _>(range) {
            let value_len = usize::try_from(slot.value_len).unwrap_or(usize::MAX);
            if !key.starts_with(prefix) || visit(key, value_len).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn health(&self) -> Health {
        let count = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        let index = self.shared.index.read();
        let mut health = Health::default();
        health.records = count(index.slots().len());
        health.live_bytes = index.live_bytes();
        health.disk_bytes = index
            .segments()
            .values()
            .map(|segment| segment.disk_bytes)
            .sum();
        health.disk_bytes += self.shared.spare_bytes.load(Ordering::Relaxed);
        health.segments = count(index.segments().len());
        drop(index);
        health.written_bytes = self.shared.written_bytes.load(Ordering::Relaxed);
        health.syncs = self.shared.syncs.load(Ordering::Relaxed);
        health.damaged = self.shared.damaged.load(Ordering::Relaxed);
        health.free_bytes = self.shared.disk.free_bytes().ok();
        health
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        // Nobody is left to be told; what was not synced was not promised.
        let _ = self.sync();
    }
}

impl fmt::Debug for LogStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn write_at(&self, file: &dyn DiskFile, bytes: &[u8], offset: u32) -> io::Result<()> {
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.written_bytes.fetch_add(count, Ordering::Relaxed);
        file.write_at(bytes, u64::from(offset))
    }

    fn sync_file(&self, file: &dyn DiskFile) -> io::Result<()> {
        let _gate = self.sync_gate.lock();
        if self.is_suspect() {
            return Err(io::Error::other("an earlier sync failed"));
        }
        self.syncs.fetch_add(1, Ordering::Relaxed);
        file.sync()
            .inspect_err(|_| self.suspect.store(true, Ordering::SeqCst))
    }

    fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::SeqCst)
    }

    fn clear_suspicion(&self) {
        self.suspect.store(false, Ordering::SeqCst);
    }

    fn report_damage(&self, key: &[u8], location: Location) {
        if self.index.write().damage(key, location) {
            self.damaged.fetch_add(1, Ordering::Relaxed);
        }
    }
}
