//! Reading one value, with all its checks.

use std::io;

use bytes::Bytes;

use super::disk::DiskFile;
use super::index::Slot;
use super::record::{self, Header, Kind};

/// Returns the value of `key` at its slot, or `None` if the bytes there are not what was written.
pub(super) fn value(
    file: &dyn DiskFile,
    salt: u32,
    key: &[u8],
    slot: Slot,
) -> io::Result<Option<Bytes>> {
    let Ok(value_len) = usize::try_from(slot.value_len) else {
        return Ok(None);
    };
    let value_offset = record::HEADER_LEN + key.len();
    let mut bytes = vec![0; value_offset + value_len];
    let count = file.read_at(&mut bytes, u64::from(slot.location.offset))?;
    let is_whole = count == bytes.len() && is_of(&bytes, salt, key, slot.value_len);
    Ok(is_whole.then(|| Bytes::from(bytes).slice(value_offset..)))
}

fn is_of(bytes: &[u8], salt: u32, key: &[u8], value_len: u32) -> bool {
    let Some((header, rest)) = bytes.split_first_chunk() else {
        return false;
    };
    // The key is the caller's: a bit that flipped in the one on the disk was undone at the opening.
    let Some(header) = Header::decode_repaired(header, salt) else {
        return false;
    };
    let check = rest
        .get(key.len()..)
        .map(|value| crc32c::crc32c_append(crc32c::crc32c(key), value));
    header.kind == Kind::Put
        && header.is_of(key)
        && header.value_len == value_len
        && check.is_some_and(|check| header.body_is(check))
}
