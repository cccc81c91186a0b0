//! The writing end of the log: one segment is open, its end only moves forward.

use std::io;
use std::sync::Arc;

use yurt_core::store::{Batch, Error, ErrorKind, Operation};

use super::Shared;
use super::compact::Compaction;
use super::disk::{self, DiskFile};
use super::index::{Change, Location, State};
use super::record::{self, Kind, Place};
use super::recover::Recovered;
use super::roll::Spare;
use super::segment::{self, SegmentId};
use super::tail::Rest;

/// Appends records; one at a time has it.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) active: Option<Active>,
    pub(super) compaction: Option<Compaction>,
    /// The sequence number of the last batch.
    pub(super) sequence: u64,
    pub(super) next_id: SegmentId,
    pub(super) blanks: Vec<SegmentId>,
    pub(super) spare: Option<Spare>,
    buffer: Vec<u8>,
}

/// The segment that is written.
#[derive(Clone, Debug)]
pub(super) struct Active {
    pub(super) id: SegmentId,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) end: u32,
    pub(super) capacity: u32,
    /// What stands before was synced.
    pub(super) synced: u32,
    /// Zeros were written up to here.
    pub(super) paved: u32,
    /// The sequence number of the last mark.
    pub(super) marked: u64,
    pub(super) behind: Behind,
}

/// What stands behind the end of the open segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    Room,
    /// Void bytes: the segment is cut and closed before anything else is written.
    Void,
}

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) kind: Kind,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

impl Record<'_> {
    /// Returns the length on the disk.
    pub(super) fn span(&self) -> u64 {
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
pub(super) const MARK_LEN: u32 = 40;

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
            spare: recovered.spare.clone(),
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

    /// As `append`, where there is room.
    pub(super) fn append_here(
        &mut self,
        shared: &Shared,
        records: &[Record<'_>],
    ) -> Result<Written, Error> {
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
                segment::record_salt(shared.salt, active.id),
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

/// Returns a mark or a seal that vouches for everything up to `sequence`.
pub(super) fn mark(shared: &Shared, id: SegmentId, kind: Kind, sequence: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let place = Place {
        sequence,
        index: 0,
        count: 0,
    };
    record::append(
        &mut bytes,
        segment::record_salt(shared.salt, id),
        kind,
        place,
        &[],
        &[],
    );
    bytes
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

/// The error of a batch that no segment can hold.
pub(super) fn too_large() -> Error {
    Error::new(ErrorKind::TooLarge, "a batch of 4 GiB")
}

/// The error of a log without a segment to write to.
pub(super) fn no_segment() -> Error {
    Error::new(ErrorKind::Other, "no segment can be numbered")
}
