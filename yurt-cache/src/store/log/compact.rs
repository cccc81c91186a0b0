//! Giving space back: what still counts in the emptiest segment is copied, then the segment goes.
//!
//! A little with each write, so that no write waits long and no thread is needed.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use yurt_core::store::Error;

use super::Shared;
use super::append::{Active, Record, Writer, refused};
use super::index::{Index, Location, State};
use super::read;
use super::record::{self, Kind};
use super::roll::Spare;
use super::segment::{self, Segment, SegmentId};

/// A segment that is being emptied.
#[derive(Debug)]
pub(super) struct Compaction {
    victim: SegmentId,
    /// What is to be copied, the first last.
    pending: Vec<(Location, Box<[u8]>)>,
}

/// A write copies at least this much, so that a store of small writes keeps up.
const LEAST_COPY: u64 = 64 << 10;

/// A write copies up to so many times what it wrote itself.
const PACE: u64 = 2;

/// Returns the segment to be emptied next, if it is time.
///
/// The log may take twice what is alive, and one segment more beside the room in the open one. Where
/// records are so small that their headers outweigh them, a quarter more than the records themselves.
/// As late as possible: the longer a segment waits, the less of it is alive.
fn victim(index: &Index, active: &Active, segment_bytes: u32) -> Option<SegmentId> {
    let sealed = || index.segments().iter().filter(|(id, _)| **id != active.id);
    // Behind its end stands what must not come back; its successor is what says so.
    let has_rest = |segment: &Segment| segment.disk_bytes > u64::from(segment.end);
    if let Some((id, _)) = sealed().find(|(_, segment)| has_rest(segment)) {
        return Some(*id);
    }
    let (id, emptiest) = sealed().min_by_key(|(_, segment)| segment.live)?;
    let occupied: u64 = index
        .segments()
        .values()
        .map(|segment| u64::from(segment.end))
        .sum();
    let alive: u64 = index.segments().values().map(|segment| segment.live).sum();
    let allowed = (2 * index.live_bytes()).max(alive + alive / 4) + u64::from(segment_bytes);
    // The log grows by the copies, by what is written meanwhile, and by a last step.
    let growth = emptiest.live + emptiest.live / PACE + u64::from(segment_bytes / 16);
    let has_gain = emptiest.live <= u64::from(emptiest.end) / 4 * 3;
    let is_due = emptiest.live == 0 || (has_gain && occupied + growth > allowed);
    is_due.then_some(*id)
}

impl Writer {
    /// Copies in the measure of what was just written, if there is something to be gained.
    pub(super) fn compact(&mut self, shared: &Shared, written: u64) -> Result<(), Error> {
        let Some(active) = &self.active else {
            return Ok(());
        };
        let compaction = match self.compaction.take() {
            Some(compaction) => compaction,
            None => {
                let index = shared.index.read();
                let Some(victim) = victim(&index, active, shared.segment_bytes) else {
                    return Ok(());
                };
                let mut pending = index.alive_in(victim, 0);
                pending.reverse();
                Compaction { victim, pending }
            }
        };
        // Whatever fails, it begins anew with the next write: what was copied is not copied again.
        self.advance(shared, compaction, (PACE * written).max(LEAST_COPY))
    }

    fn advance(
        &mut self,
        shared: &Shared,
        mut compaction: Compaction,
        budget: u64,
    ) -> Result<(), Error> {
        let mut copies = Copies::default();
        while copies.bytes < budget
            && let Some((location, key)) = compaction.pending.pop()
        {
            copies.consider(shared, &key, location);
        }
        self.place(shared, &copies)?;
        if compaction.pending.is_empty() {
            self.discard(shared, compaction.victim)
        } else {
            self.compaction = Some(compaction);
            Ok(())
        }
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
        let len = shared
            .index
            .read()
            .segments()
            .get(&victim)
            .map(|segment| segment.disk_bytes);
        let len = len
            .and_then(|len| u32::try_from(len).ok())
            .unwrap_or(u32::MAX);
        let is_usual = (shared.segment_bytes / 2..=shared.segment_bytes).contains(&len);
        let is_spare = is_usual && self.spare.is_none();
        let name = segment::name(victim);
        let removed = match is_spare {
            true => shared.disk.rename(&name, segment::SPARE),
            false => shared.disk.remove(&name),
        };
        removed.map_err(|error| refused("remove a segment", error))?;
        let mut index = shared.index.write();
        if let Some(Segment { file, .. }) = index.remove_segment(victim).filter(|_| is_spare) {
            self.spare = Some(Spare { file, len });
            shared.spare_bytes.store(u64::from(len), Ordering::Relaxed);
        }
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
                let salt = segment::record_salt(shared.salt, location.segment);
                match read::value(&*file, salt, key, slot) {
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
