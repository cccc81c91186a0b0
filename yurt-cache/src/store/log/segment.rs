//! A segment file: its name, its header, and how much of it is alive.

use std::sync::Arc;

use super::disk::DiskFile;
use super::record;

/// The length of a segment's header; the first record begins here.
pub(super) const HEADER_LEN: usize = 48;

/// The same, as a place in the file.
pub(super) const HEADER_LEN_U32: u32 = 48;

const MAGIC: u64 = u64::from_le_bytes(*b"yurtlog1");
const SUFFIX: &str = ".segment";

/// A segment's number; later segments have higher ones.
pub(super) type SegmentId = u32;

/// Returns the name of a segment's file.
pub(super) fn name(id: SegmentId) -> String {
    format!("{id:010}{SUFFIX}")
}

/// Returns the segment whose file has this name.
pub(super) fn id_of(file_name: &str) -> Option<SegmentId> {
    let id = file_name.strip_suffix(SUFFIX)?.parse().ok()?;
    (name(id) == file_name).then_some(id)
}

/// The name of a segment that is done with; its blocks are written once more under a new number.
pub(super) const SPARE: &str = "spare";

/// Returns the salt of the records in a segment: what an earlier life left in its file has another.
pub(super) fn record_salt(store: u32, id: SegmentId) -> u32 {
    store ^ id.wrapping_mul(0x9e37_79b9)
}

/// What a segment's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(super) struct Header {
    magic: u64,
    /// The store's: records are salted with it, so that a value never passes for one.
    pub(super) salt: u32,
    pub(super) id: SegmentId,
    /// The segment that was written before this one; itself, if there was none.
    pub(super) previous: SegmentId,
    /// Where the previous segment ends; what stands behind it is void.
    pub(super) previous_end: u32,
    /// The sequence number of the first batch in this segment.
    pub(super) sequence: u64,
    /// Where the batch ends without which the segment does not count; zero if there is none.
    pub(super) rescue_end: u32,
}

impl Header {
    /// Returns the header of a new segment.
    pub(super) fn new(
        salt: u32,
        id: SegmentId,
        previous: Option<(SegmentId, u32)>,
        sequence: u64,
    ) -> Self {
        let (previous, previous_end) = previous.unwrap_or((id, 0));
        Self {
            magic: MAGIC,
            salt,
            id,
            previous,
            previous_end,
            sequence,
            rescue_end: 0,
        }
    }

    /// Makes the segment count only once its first batch, which ends at `end`, is whole.
    #[must_use]
    pub(super) fn rescuing_until(self, end: u32) -> Self {
        Self {
            rescue_end: end,
            ..self
        }
    }

    /// Returns the bytes on the disk.
    pub(super) fn encode(self) -> [u8; HEADER_LEN] {
        record::seal(self)
    }

    /// Returns the header that the bytes are, one flipped bit undone.
    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        record::flip_each_bit(&mut bytes.clone(), |bytes| {
            record::unseal::<Self>(bytes).filter(|header| header.magic == MAGIC)
        })
    }
}

/// What the store knows of one segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: Arc<dyn DiskFile>,
    /// Where its records end.
    pub(super) end: u32,
    /// What it occupies.
    pub(super) disk_bytes: u64,
    /// The bytes of its records that still count.
    pub(super) live: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_segments() {
        for id in [0, 7, u32::MAX] {
            assert_eq!(id_of(&name(id)), Some(id));
        }
        for foreign in [
            "",
            "lock",
            "7.segment",
            "+000000007.segment",
            "0000000007.segment~",
        ] {
            assert_eq!(id_of(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_header_survives_each_flip_of_a_bit() {
        let header = Header::new(9, 3, Some((2, 4096)), 77);
        for bit in 0..HEADER_LEN * 8 {
            let mut bytes = header.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes), Some(header), "bit {bit}");
        }
        assert_eq!(Header::decode(&[0; HEADER_LEN]), None);
    }
}
