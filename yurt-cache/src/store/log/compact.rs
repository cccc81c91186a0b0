//! Giving space back: what still counts in the emptiest segment is copied, then the segment goes.
//!
//! A little with each write, so that no write waits long and no thread is needed.

use std::sync::Arc;

use bytes::Bytes;
use yurt_core::store::Error;

use super::Shared;
use super::append::{Record, Writer, refused};
use super::index::{Index, Location, State};
use super::read;
use super::record::{self, Kind};
use super::scan::{Item, Scanner};
use super::segment::{self, SegmentId};

/// A segment that is being emptied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compaction {
    victim: SegmentId,
    at: u32,
}

/// A write copies at least this much, so that a store of small writes keeps up.
const LEAST_COPY: u64 = 64 << 10;

/// A write reads at most this much of the segment that it empties.
const MOST_READ: u32 = 1 << 20;

/// Returns the segment to be emptied next, if the log is larger than it should be.
///
/// Twice what is alive may be on the disk, and half a segment for the time that emptying takes.
/// Where records are so small that their headers outweigh them, a quarter above the records' own size.
fn victim(index: &Index, active: SegmentId, segment_bytes: u32) -> Option<SegmentId> {
    let sealed = || index.segments().iter().filter(|(id, _)| **id != active);
    // Behind its end stands what must not come back; its successor is what says so.
    if let Some((id, _)) = sealed().find(|(_, segment)| segment.disk_bytes > u64::from(segment.end))
    {
        return Some(*id);
    }
    let occupied: u64 = sealed().map(|(_, segment)| u64::from(segment.end)).sum();
    let alive: u64 = index.segments().values().map(|segment| segment.live).sum();
    let limit = (2 * index.live_bytes()).max(alive + alive / 4) + u64::from(segment_bytes / 2);
    if occupied <= limit {
        return None;
    }
    sealed()
        .min_by_key(|(_, segment)| segment.live)
        .map(|(id, _)| *id)
}

impl Writer {
    /// Copies about as much as was just written, if there is something to be gained.
    pub(super) fn compact(&mut self, shared: &Shared, written: u64) -> Result<(), Error> {
        let Some(active) = self.active.as_ref().map(|active| active.id) else {
            return Ok(());
        };
        let compaction = match self.compaction {
            Some(compaction) => compaction,
            None => match victim(&shared.index.read(), active, shared.segment_bytes) {
                Some(victim) => Compaction {
                    victim,
                    at: segment::HEADER_LEN_U32,
                },
                None => return Ok(()),
            },
        };
        self.compaction = Some(compaction);
        match self.copy(shared, compaction, written.max(LEAST_COPY))? {
            Some(at) => self.compaction = Some(Compaction { at, ..compaction }),
            None => {
                self.compaction = None;
                self.discard(shared, compaction.victim)?;
            }
        }
        Ok(())
    }

    /// Copies up to `budget` bytes; returns where to go on, or `None` if nothing alive is left.
    fn copy(
        &mut self,
        shared: &Shared,
        compaction: Compaction,
        budget: u64,
    ) -> Result<Option<u32>, Error> {
        let Compaction { victim, at: start } = compaction;
        let (file, end) = match shared.index.read().segments().get(&victim) {
            Some(segment) if segment.live > 0 => (Arc::clone(&segment.file), segment.end),
            _ => return Ok(None),
        };
        let mut scanner = Scanner::new(&*file, shared.salt, start, end);
        let mut copies = Copies::default();
        let mut at = start;
        while at < start.saturating_add(MOST_READ) && copies.bytes < budget {
            let Some(item) = scanner.next() else { break };
            at = item.end();
            if let Item::Record(found) = item {
                let location = Location {
                    segment: victim,
                    offset: found.offset,
                };
                copies.consider(shared, &found.key, location);
            }
        }
        self.place(shared, &copies)?;
        if at < end {
            return Ok(Some(at));
        }
        // What the index knows to be here and the scan did not find.
        self.place(shared, &Copies::of(shared, victim, 0))?;
        Ok(None)
    }

    fn place(&mut self, shared: &Shared, copies: &Copies) -> Result<(), Error> {
        if copies.list.is_empty() {
            return Ok(());
        }
        let records = copies.records();
        let written = self.append(shared, &records)?;
        let mut index = shared.index.write();
        for (record, location) in records.iter().zip(written.locations()) {
            index.relocate(record.key, record.change(), location);
        }
        Ok(())
    }

    /// Removes a segment once everything that made it superfluous is safe.
    fn discard(&mut self, shared: &Shared, victim: SegmentId) -> Result<(), Error> {
        if let Some(active) = self.active.clone() {
            shared
                .sync_file(&*active.file)
                .map_err(|error| refused("sync the log", error))?;
            self.note_sync(shared, &active, self.sequence);
        }
        shared
            .disk
            .remove(&segment::name(victim))
            .map_err(|error| refused("remove a segment", error))?;
        let mut index = shared.index.write();
        index.remove_segment(victim);
        index.sweep_tombstones(None);
        Ok(())
    }
}

/// Records to be written again.
#[derive(Debug, Default)]
pub(super) struct Copies {
    list: Vec<Copy>,
    bytes: u64,
}

#[derive(Debug)]
struct Copy {
    kind: Kind,
    key: Box<[u8]>,
    value: Bytes,
}

impl Copies {
    /// Returns everything alive in a segment from `start` on.
    pub(super) fn of(shared: &Shared, id: SegmentId, start: u32) -> Self {
        let alive = shared.index.read().alive_in(id, start);
        let mut copies = Self::default();
        for (location, key) in alive {
            copies.consider(shared, &key, location);
        }
        copies
    }

    /// Returns the records.
    pub(super) fn records(&self) -> Vec<Record<'_>> {
        self.list
            .iter()
            .map(|Copy { kind, key, value }| Record {
                kind: *kind,
                key,
                value,
            })
            .collect()
    }

    /// Adds the record at `location`, if it still counts.
    fn consider(&mut self, shared: &Shared, key: &[u8], location: Location) {
        let index = shared.index.read();
        let slot = index.slot_at(key, location);
        let is_tombstone = index.holds_tombstone(key, location);
        let file = index.file(location.segment);
        drop(index);
        let (kind, value) = match (slot, file) {
            (Some(slot), Ok(file)) if slot.state == State::Present => {
                match read::value(&*file, shared.salt, key, slot) {
                    Ok(Some(value)) => (Kind::Put, value),
                    Ok(None) | Err(_) => {
                        shared.report_damage(key, location);
                        (Kind::Lost, Bytes::new())
                    }
                }
            }
            (Some(_), _) => (Kind::Lost, Bytes::new()),
            (None, _) if is_tombstone => (Kind::Delete, Bytes::new()),
            (None, _) => return,
        };
        let value_len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.bytes += record::span(key.len(), value_len);
        self.list.push(Copy {
            kind,
            key: key.into(),
            value,
        });
    }
}
