//! From one segment to the next: the full one is sealed and safe before the new one begins.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use yurt_core::store::Error;

use super::Shared;
use super::append::{self, Active, Behind, MARK_LEN, Writer, no_segment, refused, too_large};
use super::disk::DiskFile;
use super::record::Kind;
use super::segment::{self, Header, Segment, SegmentId};

/// A segment's file that waits for its next life.
#[derive(Clone, Debug)]
pub(super) struct Spare {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) len: u32,
}

/// What a new segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Growth,
    Rescue,
}

impl Writer {
    /// Sees to it that the open segment has room for `bytes` and a seal.
    pub(super) fn make_room(&mut self, shared: &Shared, bytes: u64) -> Result<(), Error> {
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
        let seal = append::mark(shared, active.id, Kind::Seal, self.sequence);
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
    pub(super) fn begin(
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
        let (file, capacity, paved) = match self.reuse(shared, id, least, capacity) {
            Some((file, capacity, paved)) => (file, capacity, paved),
            None => {
                let created = shared.disk.create(&segment::name(id), u64::from(capacity));
                let file = created.map_err(|error| refused("create a segment", error))?;
                (file, capacity, begin)
            }
        };
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
            paved,
            marked: self.sequence,
            behind: Behind::Room,
        })
    }

    /// Makes a segment of the spare one, if that will do; returns its file, its capacity, and how much of
    /// it was written before.
    fn reuse(
        &mut self,
        shared: &Shared,
        id: SegmentId,
        least: u64,
        capacity: u32,
    ) -> Option<(Arc<dyn DiskFile>, u32, u32)> {
        let spare = self.spare.take()?;
        shared.spare_bytes.store(0, Ordering::Relaxed);
        // A reader that still has it must not see it change.
        let is_free = Arc::strong_count(&spare.file) == 1;
        let fits = u64::from(spare.len) >= least && capacity == shared.segment_bytes;
        if !is_free
            || !fits
            || shared
                .disk
                .rename(segment::SPARE, &segment::name(id))
                .is_err()
        {
            // Only a file that nothing needs is left behind if this fails.
            let _ = shared.disk.remove(segment::SPARE);
            return None;
        }
        let capacity = match spare.file.reserve(u64::from(capacity)) {
            Ok(()) => capacity,
            Err(_) => spare.len,
        };
        Some((spare.file, capacity, spare.len))
    }
}
