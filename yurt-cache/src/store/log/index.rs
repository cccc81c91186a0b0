//! Where every key's value stands, and which segments still matter.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::disk::DiskFile;
use super::record;
use super::segment::{Segment, SegmentId};

/// The place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Location {
    pub(super) segment: SegmentId,
    pub(super) offset: u32,
}

/// The latest record of a key that has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) location: Location,
    pub(super) value_len: u32,
    /// The first segment that may hold a record of this key.
    first: SegmentId,
    pub(super) state: State,
}

/// What a slot points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The value, as far as is known.
    Present,
    /// A value that was found damaged, or the note of it.
    Damaged,
}

/// The record of a deletion, kept while an older segment may hold the key: it would come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tombstone {
    pub(super) location: Location,
    first: SegmentId,
    last: SegmentId,
}

impl Tombstone {
    fn is_needed(&self, segments: &BTreeMap<SegmentId, Segment>, except: SegmentId) -> bool {
        segments
            .range(self.first..=self.last)
            .any(|(id, _)| *id != except)
    }
}

/// The store's memory; what is on the disk can be found only through it.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: BTreeMap<Box<[u8]>, Slot>,
    tombstones: BTreeMap<Box<[u8]>, Tombstone>,
    segments: BTreeMap<SegmentId, Segment>,
    value_bytes: u64,
    key_bytes: u64,
}

/// A change of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The key has a value of this length.
    Put { value_len: u32, state: State },
    /// The key has none.
    Delete,
}

impl Index {
    // === Keys ===

    /// Returns the keys that have values.
    pub(super) fn slots(&self) -> &BTreeMap<Box<[u8]>, Slot> {
        &self.slots
    }

    /// Returns the bytes of the keys and values that are there.
    pub(super) fn live_bytes(&self) -> u64 {
        self.key_bytes + self.value_bytes
    }

    /// Returns whether a delete of the key has something to delete.
    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.slots.contains_key(key)
    }

    /// Notes a change that was written at `location`, after all others.
    pub(super) fn apply(&mut self, key: &[u8], change: Change, location: Location) {
        match change {
            Change::Put { value_len, state } => self.put(key, value_len, state, location),
            Change::Delete => self.delete(key, location),
        }
    }

    fn put(&mut self, key: &[u8], value_len: u32, state: State, location: Location) {
        let first = match self.tombstones.remove(key) {
            Some(tombstone) => {
                self.bury(tombstone.location.segment, record::span(key.len(), 0));
                tombstone.first
            }
            None => location.segment,
        };
        let slot = Slot {
            location,
            value_len,
            first,
            state,
        };
        match self.slots.get_mut(key) {
            Some(old) => {
                let before = std::mem::replace(
                    old,
                    Slot {
                        first: old.first,
                        ..slot
                    },
                );
                self.value_bytes -= u64::from(before.value_len);
                self.bury(
                    before.location.segment,
                    record::span(key.len(), before.value_len),
                );
            }
            None => {
                self.slots.insert(key.into(), slot);
                self.key_bytes += length(key);
            }
        }
        self.value_bytes += u64::from(value_len);
        self.enliven(location.segment, record::span(key.len(), value_len));
    }

    fn delete(&mut self, key: &[u8], location: Location) {
        let Some(slot) = self.slots.remove(key) else {
            // Written twice: the first may be in the end of a segment whose sync failed.
            return self.relocate(key, Change::Delete, location);
        };
        self.key_bytes -= length(key);
        self.value_bytes -= u64::from(slot.value_len);
        self.bury(
            slot.location.segment,
            record::span(key.len(), slot.value_len),
        );
        let tombstone = Tombstone {
            location,
            first: slot.first,
            last: slot.location.segment,
        };
        self.tombstones.insert(key.into(), tombstone);
        self.enliven(location.segment, record::span(key.len(), 0));
    }

    /// Notes that a value was found damaged; `false` if that is known or no longer so.
    pub(super) fn damage(&mut self, key: &[u8], location: Location) -> bool {
        match self.slots.get_mut(key) {
            Some(slot) if slot.location == location && slot.state == State::Present => {
                slot.state = State::Damaged;
                true
            }
            _ => false,
        }
    }

    /// Returns whether the record at `location` is the deletion of `key` that must be kept.
    pub(super) fn holds_tombstone(&self, key: &[u8], location: Location) -> bool {
        self.tombstones
            .get(key)
            .is_some_and(|tombstone| tombstone.location == location)
    }

    /// Returns the records of a segment from `start` on that still count, in their order.
    pub(super) fn alive_in(&self, id: SegmentId, start: u32) -> Vec<(Location, Box<[u8]>)> {
        let slots = self.slots.iter().map(|(key, slot)| (slot.location, key));
        let tombstones = self
            .tombstones
            .iter()
            .map(|(key, tombstone)| (tombstone.location, key));
        let mut alive: Vec<_> = slots
            .chain(tombstones)
            .filter(|(location, _)| location.segment == id && location.offset >= start)
            .map(|(location, key)| (location, key.clone()))
            .collect();
        alive.sort_unstable();
        alive
    }

    /// Returns the slot of `key` if its record is the one at `location`.
    pub(super) fn slot_at(&self, key: &[u8], location: Location) -> Option<Slot> {
        self.slots
            .get(key)
            .copied()
            .filter(|slot| slot.location == location)
    }

    /// Notes that a record was copied to `to`.
    pub(super) fn relocate(&mut self, key: &[u8], change: Change, to: Location) {
        let old = match change {
            Change::Put { value_len, state } => self.slots.get_mut(key).map(|slot| {
                self.value_bytes -= u64::from(slot.value_len);
                self.value_bytes += u64::from(value_len);
                let old = (slot.location.segment, slot.value_len);
                *slot = Slot {
                    location: to,
                    value_len,
                    state,
                    ..*slot
                };
                (old, value_len)
            }),
            Change::Delete => self.tombstones.get_mut(key).map(|tombstone| {
                let old = (tombstone.location.segment, 0);
                tombstone.location = to;
                (old, 0)
            }),
        };
        if let Some(((segment, old_len), new_len)) = old {
            self.bury(segment, record::span(key.len(), old_len));
            self.enliven(to.segment, record::span(key.len(), new_len));
        }
    }

    // === Segments ===

    /// Returns the segments.
    pub(super) fn segments(&self) -> &BTreeMap<SegmentId, Segment> {
        &self.segments
    }

    /// Adds a segment.
    pub(super) fn add_segment(&mut self, id: SegmentId, segment: Segment) {
        self.segments.insert(id, segment);
    }

    /// Notes where a segment ends and what it occupies.
    pub(super) fn set_extent(&mut self, id: SegmentId, end: u32, disk_bytes: u64) {
        if let Some(segment) = self.segments.get_mut(&id) {
            segment.end = end;
            segment.disk_bytes = disk_bytes;
        }
    }

    /// Notes that records up to `end` were written.
    pub(super) fn extend_segment(&mut self, id: SegmentId, end: u32) {
        if let Some(segment) = self.segments.get_mut(&id) {
            segment.end = end;
            segment.disk_bytes = segment.disk_bytes.max(u64::from(end));
        }
    }

    /// Forgets a segment that is gone.
    pub(super) fn remove_segment(&mut self, id: SegmentId) -> Option<Segment> {
        self.segments.remove(&id)
    }

    /// Forgets the deletions that no other segment makes necessary, but for those in `unsynced`: if
    /// its end is lost, what they deleted is back.
    pub(super) fn sweep_tombstones(&mut self, unsynced: Option<SegmentId>) {
        let segments = &mut self.segments;
        self.tombstones.retain(|key, tombstone| {
            let home = tombstone.location.segment;
            let keep = unsynced == Some(home) || tombstone.is_needed(segments, home);
            if !keep && let Some(segment) = segments.get_mut(&home) {
                segment.live = segment.live.saturating_sub(record::span(key.len(), 0));
            }
            keep
        });
    }

    /// Returns the file that a location is in.
    pub(super) fn file(&self, id: SegmentId) -> io::Result<Arc<dyn DiskFile>> {
        let segment = self.segments.get(&id).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::clone(&segment.file))
    }

    fn enliven(&mut self, id: SegmentId, bytes: u64) {
        if let Some(segment) = self.segments.get_mut(&id) {
            segment.live += bytes;
        }
    }

    fn bury(&mut self, id: SegmentId, bytes: u64) {
        if let Some(segment) = self.segments.get_mut(&id) {
            segment.live = segment.live.saturating_sub(bytes);
        }
    }
}

fn length(key: &[u8]) -> u64 {
    u64::try_from(key.len()).unwrap_or(u64::MAX)
}
