//! What a sync leaves in the log, and what is done when one fails.

use yurt_core::store::Error;

use super::Shared;
use super::append::{self, Active, Behind, MARK_LEN, Record, Writer, no_segment, refused};
use super::compact::Copies;
use super::record::Kind;
use super::roll::Purpose;
use super::segment;

/// A sync of more than this does without pavement: the journal's blocks that it saves are no more than the
/// zeros that it costs, and a node's events, a dozen to a sync, would wear the flash twice.
const PAVED_FOR: u32 = 4 << 10;

/// How far the pavement goes: about a hundred small writes.
const PAVEMENT: u32 = 256 << 10;

impl Writer {
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
        let mark = append::mark(shared, active.id, Kind::Mark, sequence);
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
