//! The writing end of the log: one segment is open, its end only moves forward.

use std::io;
use std::sync::Arc;

use yurt_core::store::{Batch, Error, ErrorKind, Operation};

use super::Shared;
use super::compact::{Compaction, Copies};
use super::disk::{self, DiskFile};
use super::index::{Change, Location, State};
use super::record::{self, Kind, Place};
use super::recover::Recovered;
use super::segment::{self, Header, Segment, SegmentId};
use super::tail::Rest;

/// Appends records; one at a time has it.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) active: Option<Active>,
    pub(super) compaction: Option<Compaction>,
    /// The sequence number of the last batch.
    pub(super) sequence: u64,
    next_id: SegmentId,
    blanks: Vec<SegmentId>,
    buffer: Vec<u8>,
}

/// The segment that is written.
#[derive(Clone, Debug)]
pub(super) struct Active {
    pub(super) id: SegmentId,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) end: u32,
    capacity: u32,
    /// What stands before was synced.
    pub(super) synced: u32,
    /// Zeros were written up to here.
    paved: u32,
    /// The sequence number of the last mark.
    marked: u64,
    behind: Behind,
}

/// What stands behind the end of the open segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Room,
    /// Void bytes: the segment is cut and closed before anything else is written.
    Void,
}

/// What a new segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Growth,
    Rescue,
}

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) kind: Kind,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

impl Record<'_> {
    fn span(&self) -> u64 {
        record::span(self.key.len(), self.value_len())
    }

    fn value_len(&self) -> u32 {
        u32::try_from(self.value.len()).unwrap_or(u32::MAX)
    }

    /// Returns what the record changes.
    pub(super) fn change(&self) -> Change {
        let state = match self.kind {
            Kind::Delete | Kind::Mark | Kind::Seal => return Change::Delete,
            Kind::Put => State::Present,
            Kind::Lost => State::Damaged,
        };
        Change::Put {
            value_len: self.value_len(),
            state,
        }
    }
}

/// A mark or a seal.
const MARK_LEN: u32 = 40;

/// A sync of more than this does without pavement.
const PAVED_FOR: u32 = 16 << 10;

/// How far the pavement goes: about a hundred small writes.
const PAVEMENT: u32 = 256 << 10;

/// A buffer above this is not kept: one large object must not cost memory for ever.
const KEPT_BUFFER: usize = 256 << 10;

impl Writer {
    /// Goes on where a recovered store ended.
    pub(super) fn new(recovered: &Recovered, segment_bytes: u32) -> Self {
        let active = recovered.last.and_then(|(id, tail)| {
            let segment = recovered.index.segments().get(&id)?;
            let len = u32::try_from(segment.disk_bytes).unwrap_or(u32::MAX);
            Some(Active {
                id,
                file: Arc::clone(&segment.file),
                end: tail.end,
                capacity: len.max(segment_bytes),
                // Its writer may have died before it synced.
                synced: segment::HEADER_LEN_U32,
                paved: tail.end,
                marked: 0,
                behind: match tail.rest {
                    Rest::Room => Behind::Room,
                    Rest::Sealed | Rest::Torn | Rest::Dubious => Behind::Void,
                },
            })
        });
        Self {
            active,
            compaction: None,
            sequence: recovered.next_sequence.saturating_sub(1),
            next_id: recovered.next_id,
            blanks: recovered.blanks.clone(),
            buffer: Vec::new(),
        }
    }

    /// Applies a batch; returns how many bytes it took in the log.
    pub(super) fn write(&mut self, shared: &Shared, batch: &Batch) -> Result<u64, Error> {
        let records = effective(shared, batch);
        if records.is_empty() {
            return Ok(0);
        }
        let written = self.append(shared, &records)?;
        let mut index = shared.index.write();
        for (record, location) in records.iter().zip(written.locations()) {
            index.apply(record.key, record.change(), location);
        }
        Ok(written.bytes())
    }

    /// Writes records as one batch.
    pub(super) fn append(
        &mut self,
        shared: &Shared,
        records: &[Record<'_>],
    ) -> Result<Written, Error> {
        if shared.is_suspect() {
            self.rescue(shared)?;
        }
        let bytes = records.iter().map(Record::span).sum();
        self.make_room(shared, bytes)?;
        self.append_here(shared, records)
    }

    fn append_here(&mut self, shared: &Shared, records: &[Record<'_>]) -> Result<Written, Error> {
        let sequence = self.sequence.saturating_add(1);
        let active = self.active.as_mut().ok_or_else(no_segment)?;
        let count = u32::try_from(records.len()).map_err(|_| too_large())?;
        self.buffer.clear();
        for (index, record) in (0..count).zip(records) {
            let place = Place {
                sequence,
                index,
                count,
            };
            record::append(
                &mut self.buffer,
                shared.salt,
                record.kind,
                place,
                record.key,
                record.value,
            );
        }
        let written = Written::new(active, records);
        if records.is_empty() {
            // No record would carry the sequence number, and the batches behind would look torn off.
            return Ok(written);
        }
        let result = shared.write_at(&*active.file, &self.buffer, active.end);
        if let Err(error) = result {
            // What stands there now is void. Should the process die before the segment is closed, the
            // batch must not look whole.
            let _ = shared.write_at(&*active.file, &[0; record::HEADER_LEN], active.end);
            active.behind = Behind::Void;
            return Err(refused("append to the log", error));
        }
        active.end = written.end;
        self.sequence = sequence;
        if self.buffer.capacity() > KEPT_BUFFER {
            self.buffer = Vec::new();
        }
        let mut index = shared.index.write();
        index.extend_segment(active.id, written.end);
        Ok(written)
    }

    // === Segments ===

    /// Sees to it that the open segment has room for `bytes` and a seal.
    fn make_room(&mut self, shared: &Shared, bytes: u64) -> Result<(), Error> {
        if let Some(active) = &self.active {
            let needed = u64::from(active.end) + bytes + u64::from(MARK_LEN);
            if active.behind == Behind::Room && needed <= u64::from(active.capacity) {
                return Ok(());
            }
        }
        self.close(shared)?;
        let previous = self.active.as_ref().map(|active| (active.id, active.end));
        self.active = Some(self.begin(shared, previous, bytes, Purpose::Growth)?);
        Ok(())
    }

    /// Closes the open segment: what is in it is safe, and nothing is behind it.
    fn close(&mut self, shared: &Shared) -> Result<(), Error> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let cut = |active: &Active| active.file.truncate(u64::from(active.end));
        if active.behind == Behind::Void {
            cut(active).map_err(|error| refused("cut the torn end of the log", error))?;
        }
        let mut seal = Vec::new();
        let place = Place {
            sequence: self.sequence,
            index: 0,
            count: 0,
        };
        record::append(&mut seal, shared.salt, Kind::Seal, place, &[], &[]);
        // Not counted into the end: a second attempt writes the seal anew.
        shared
            .write_at(&*active.file, &seal, active.end)
            .map_err(|error| refused("seal a segment", error))?;
        let sealed = Active {
            end: active.end + MARK_LEN,
            ..active.clone()
        };
        cut(&sealed).map_err(|error| refused("cut a segment to its length", error))?;
        active.behind = Behind::Void;
        shared
            .sync_file(&*active.file)
            .map_err(|error| refused("sync a full segment", error))?;
        *active = Active {
            synced: sealed.end,
            ..sealed
        };
        let mut index = shared.index.write();
        index.set_extent(active.id, active.end, u64::from(active.end));
        Ok(())
    }

    /// Creates a segment with room for `bytes`.
    fn begin(
        &mut self,
        shared: &Shared,
        previous: Option<(SegmentId, u32)>,
        bytes: u64,
        purpose: Purpose,
    ) -> Result<Active, Error> {
        while let Some(blank) = self.blanks.last() {
            // It may be a rescue that was not finished: with a successor it would count.
            match shared.disk.remove(&segment::name(*blank)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(refused("remove a segment that was never used", error));
                }
                _ => drop(self.blanks.pop()),
            }
        }
        let begin = segment::HEADER_LEN_U32;
        let least = u64::from(begin + 2 * MARK_LEN) + bytes;
        let capacity = u32::try_from(least)
            .map_err(|_| too_large())?
            .max(shared.segment_bytes);
        let id = self.next_id;
        self.next_id = id.checked_add(1).ok_or_else(no_segment)?;
        let file = shared
            .disk
            .create(&segment::name(id), u64::from(capacity))
            .map_err(|error| refused("create a segment", error))?;
        let header = Header::new(shared.salt, id, previous, self.sequence.saturating_add(1));
        let header = match purpose {
            Purpose::Rescue if bytes > 0 => {
                let end = u64::from(begin) + bytes;
                header.rescuing_until(u32::try_from(end).map_err(|_| too_large())?)
            }
            Purpose::Rescue | Purpose::Growth => header,
        };
        if let Err(error) = shared.write_at(&*file, &header.encode(), 0) {
            let _ = shared.disk.remove(&segment::name(id));
            return Err(refused("begin a segment", error));
        }
        shared.index.write().add_segment(
            id,
            Segment {
                file: Arc::clone(&file),
                end: begin,
                disk_bytes: u64::from(capacity),
                live: 0,
            },
        );
        Ok(Active {
            id,
            file,
            end: begin,
            capacity,
            synced: begin,
            paved: begin,
            marked: self.sequence,
            behind: Behind::Room,
        })
    }

    // === Syncs ===

    /// Before a sync of little: writes zeros where the next little ones will stand.
    ///
    /// A file system notes each first write into reserved space in its journal, which costs a sync more
    /// than the data. Zeros once for many syncs cost less; for large batches they would double the bytes.
    pub(super) fn pave(&mut self, shared: &Shared) {
        let Some(active) = &mut self.active else {
            return;
        };
        let is_small = active.end.saturating_sub(active.synced) < PAVED_FOR;
        let is_paved = active.paved > active.end;
        if !is_small || is_paved || active.behind == Behind::Void {
            return;
        }
        let len = active.capacity.saturating_sub(active.end).min(PAVEMENT);
        let zeros = vec![0; usize::try_from(len).unwrap_or_default()];
        // If it fails, the next write or the sync will tell.
        if shared.write_at(&*active.file, &zeros, active.end).is_ok() {
            active.paved = active.end + len;
        }
    }

    /// Notes that a sync of `snapshot`'s file returned, with a mark in the log.
    pub(super) fn note_sync(&mut self, shared: &Shared, snapshot: &Active, sequence: u64) {
        let Some(active) = &mut self.active else {
            return;
        };
        if active.id != snapshot.id {
            return;
        }
        active.synced = active.synced.max(snapshot.end);
        let has_room = active.capacity.saturating_sub(active.end) >= 2 * MARK_LEN;
        if active.behind == Behind::Void || active.marked >= sequence || !has_room {
            return;
        }
        let mut mark = Vec::new();
        let place = Place {
            sequence,
            index: 0,
            count: 0,
        };
        record::append(&mut mark, shared.salt, Kind::Mark, place, &[], &[]);
        match shared.write_at(&*active.file, &mark, active.end) {
            Ok(()) => {
                active.end += MARK_LEN;
                active.marked = sequence;
                shared.index.write().extend_segment(active.id, active.end);
            }
            Err(_) => active.behind = Behind::Void,
        }
    }

    /// After a failed sync: writes what may be lost once more, into a segment of its own.
    ///
    /// Until all of that is safe, the new segment does not count and the old one is the last.
    pub(super) fn rescue(&mut self, shared: &Shared) -> Result<(), Error> {
        let Some(old) = self.active.clone() else {
            shared.clear_suspicion();
            return Ok(());
        };
        let copies = Copies::of(shared, old.id, old.synced);
        let records = copies.records();
        let bytes = records.iter().map(Record::span).sum();
        let fresh = self.begin(shared, Some((old.id, old.end)), bytes, Purpose::Rescue)?;
        let fresh_id = fresh.id;
        self.active = Some(fresh);
        let rewritten = self.append_here(shared, &records).and_then(|written| {
            let active = self.active.as_ref().ok_or_else(no_segment)?;
            active
                .file
                .sync()
                .map_err(|error| refused("sync what is rescued", error))?;
            Ok(written)
        });
        match rewritten {
            Ok(written) => {
                if let Some(active) = &mut self.active {
                    active.synced = active.end;
                }
                let cut = old.file.truncate(u64::from(old.end));
                let is_cut = cut.and_then(|()| old.file.sync()).is_ok();
                let mut index = shared.index.write();
                for (record, location) in records.iter().zip(written.locations()) {
                    index.relocate(record.key, record.change(), location);
                }
                if is_cut {
                    index.set_extent(old.id, old.end, u64::from(old.end));
                }
                shared.clear_suspicion();
                Ok(())
            }
            Err(error) => {
                self.active = Some(old);
                shared.index.write().remove_segment(fresh_id);
                let _ = shared.disk.remove(&segment::name(fresh_id));
                Err(error)
            }
        }
    }
}

/// Where records were written.
#[derive(Debug)]
pub(super) struct Written {
    segment: SegmentId,
    start: u32,
    end: u32,
    spans: Vec<u32>,
}

impl Written {
    fn new(active: &Active, records: &[Record<'_>]) -> Self {
        let narrow = |span: u64| u32::try_from(span).unwrap_or(u32::MAX);
        let spans: Vec<u32> = records.iter().map(|record| narrow(record.span())).collect();
        Self {
            segment: active.id,
            start: active.end,
            end: spans
                .iter()
                .fold(active.end, |end, span| end.saturating_add(*span)),
            spans,
        }
    }

    /// Returns the records' places, in order.
    pub(super) fn locations(&self) -> impl Iterator<Item = Location> {
        self.spans.iter().scan(self.start, |at, span| {
            let offset = *at;
            *at = at.saturating_add(*span);
            Some(Location {
                segment: self.segment,
                offset,
            })
        })
    }

    /// Returns how much was written.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.end - self.start)
    }
}

/// Returns what of a batch counts: the last operation on each key, and no delete of nothing.
fn effective<'a>(shared: &Shared, batch: &'a Batch) -> Vec<Record<'a>> {
    let operations = batch.operations();
    let mut seen = std::collections::HashSet::with_capacity(operations.len());
    let mut records: Vec<_> = operations
        .iter()
        .rev()
        .map(|operation| match operation {
            Operation::Put(key, value) => Record {
                kind: Kind::Put,
                key,
                value,
            },
            Operation::Delete(key) => Record {
                kind: Kind::Delete,
                key,
                value: &[],
            },
        })
        .filter(|record| operations.len() == 1 || seen.insert(record.key))
        .collect();
    records.reverse();
    let index = shared.index.read();
    records.retain(|record| record.kind == Kind::Put || index.has(record.key));
    records
}

/// Turns a disk's refusal into the contract's.
pub(super) fn refused(step: &'static str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ if disk::is_read_only(&error) => ErrorKind::ReadOnly,
        // A file that could only be opened for reading.
        _ if error.raw_os_error() == Some(rustix::io::Errno::BADF.raw_os_error()) => {
            ErrorKind::ReadOnly
        }
        _ => ErrorKind::Other,
    };
    Error::new(kind, step).with_source(error)
}

fn too_large() -> Error {
    Error::new(ErrorKind::TooLarge, "a batch of 4 GiB")
}

fn no_segment() -> Error {
    Error::new(ErrorKind::Other, "no segment can be numbered")
}
