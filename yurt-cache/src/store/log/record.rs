//! One record of the log: a header that proves itself, a key, a value.
//!
//! The entries of a batch are records in a row. Each is found and checked without its neighbours, so
//! that damage costs one; the header's `index` of `count` tells whether the batch is whole.

use yurt_core::store::{MAX_KEY_LEN, MAX_VALUE_LEN};

/// The length of a record's header.
pub(super) const HEADER_LEN: usize = 40;

/// The same, as a distance in a file.
pub(super) const HEADER_SPAN: u64 = 40;

const ALIGNMENT: u64 = 8;
const VERSION: u8 = 1;
const CHECK_LEN: usize = 4;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The key has the value.
    Put,
    /// The key has no value.
    Delete,
    /// The key had a value that was found damaged.
    Lost,
    /// Everything up to `sequence` was synced.
    Mark,
    /// Nothing follows in this segment.
    Seal,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Put, Self::Delete, Self::Lost, Self::Mark, Self::Seal];

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    const fn code(self) -> u8 {
        match self {
            Self::Put => 1,
            Self::Delete => 2,
            Self::Lost => 3,
            Self::Mark => 4,
            Self::Seal => 5,
        }
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) place: Place,
    pub(super) key_len: u16,
    pub(super) value_len: u32,
    key_check: u32,
    body_check: u32,
}

/// A record's place among the batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) sequence: u64,
    pub(super) index: u32,
    pub(super) count: u32,
}

/// The layout on the disk, after the check.
#[derive(bincode::Encode, bincode::Decode)]
struct Layout {
    salt: u32,
    version: u8,
    kind: u8,
    key_len: u16,
    value_len: u32,
    sequence: u64,
    index: u32,
    count: u32,
    key_check: u32,
    body_check: u32,
}

impl Header {
    /// Returns the header, if the bytes are one of this store.
    pub(super) fn decode(bytes: &[u8; HEADER_LEN], salt: u32) -> Option<Self> {
        let layout: Layout = unseal(bytes)?;
        if layout.salt != salt || layout.version != VERSION {
            return None;
        }
        let fits = usize::from(layout.key_len) <= MAX_KEY_LEN
            && usize::try_from(layout.value_len).is_ok_and(|len| len <= MAX_VALUE_LEN);
        fits.then_some(Self {
            kind: Kind::from_code(layout.kind)?,
            place: Place {
                sequence: layout.sequence,
                index: layout.index,
                count: layout.count,
            },
            key_len: layout.key_len,
            value_len: layout.value_len,
            key_check: layout.key_check,
            body_check: layout.body_check,
        })
    }

    /// As `decode`, and undoes one flipped bit.
    pub(super) fn decode_repaired(bytes: &[u8; HEADER_LEN], salt: u32) -> Option<Self> {
        let mut bytes = *bytes;
        flip_each_bit(&mut bytes, |bytes| Self::decode(bytes, salt))
    }

    /// Returns the salt of whatever store wrote these bytes as a header.
    pub(super) fn salt_of(bytes: &[u8; HEADER_LEN]) -> Option<u32> {
        let layout: Layout = unseal(bytes)?;
        Self::decode(bytes, layout.salt).map(|_| layout.salt)
    }

    /// Returns the length of the record on the disk, padding included.
    pub(super) fn span(&self) -> u64 {
        span(usize::from(self.key_len), self.value_len)
    }

    /// Returns whether this is the header of `key`.
    pub(super) fn is_of(&self, key: &[u8]) -> bool {
        usize::from(self.key_len) == key.len() && crc32c::crc32c(key) == self.key_check
    }

    /// Returns whether the check of key and value, grown from `is_of`'s key over the value, is right.
    pub(super) fn body_is(&self, check: u32) -> bool {
        check == self.body_check
    }

    /// Makes `key` the one that was written, if at most one bit of it is flipped.
    pub(super) fn repair_key(&self, key: &mut [u8]) -> Option<()> {
        flip_each_bit(key, |key| self.is_of(key).then_some(()))
    }
}

/// Appends a record to `buffer`, which holds whole records.
pub(super) fn append(
    buffer: &mut Vec<u8>,
    salt: u32,
    kind: Kind,
    place: Place,
    key: &[u8],
    value: &[u8],
) {
    let key_check = crc32c::crc32c(key);
    let layout = Layout {
        salt,
        version: VERSION,
        kind: kind.code(),
        key_len: u16::try_from(key.len()).expect("the batch was checked for its limits"),
        value_len: u32::try_from(value.len()).expect("the batch was checked for its limits"),
        sequence: place.sequence,
        index: place.index,
        count: place.count,
        key_check,
        body_check: crc32c::crc32c_append(key_check, value),
    };
    buffer.extend_from_slice(&seal::<HEADER_LEN>(layout));
    buffer.extend_from_slice(key);
    buffer.extend_from_slice(value);
    buffer.resize(buffer.len().next_multiple_of(8), 0);
}

/// Returns the length on the disk of a record with such a key and value.
pub(super) fn span(key_len: usize, value_len: u32) -> u64 {
    let before_value = u64::try_from(HEADER_LEN + key_len).unwrap_or(u64::MAX);
    before_value
        .saturating_add(u64::from(value_len))
        .next_multiple_of(ALIGNMENT)
}

/// Encodes a fixed layout behind a check of it, filled up with zeros.
pub(super) fn seal<const LEN: usize>(layout: impl bincode::Encode) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bincode::encode_into_slice(layout, &mut bytes[CHECK_LEN..], config())
        .expect("a fixed layout fits its fixed length");
    let check = crc32c::crc32c(&bytes[CHECK_LEN..]);
    bytes[..CHECK_LEN].copy_from_slice(&check.to_le_bytes());
    bytes
}

/// Decodes what `seal` made, or nothing.
pub(super) fn unseal<L: bincode::Decode<()>>(bytes: &[u8]) -> Option<L> {
    let (check, body) = bytes.split_first_chunk::<CHECK_LEN>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*check) {
        return None;
    }
    let (layout, consumed) = bincode::decode_from_slice(body, config()).ok()?;
    body[consumed..]
        .iter()
        .all(|byte| *byte == 0)
        .then_some(layout)
}

/// Runs `attempt` with the bytes as they are and then with each bit flipped, until it succeeds.
pub(super) fn flip_each_bit<B: AsMut<[u8]> + ?Sized, T>(
    bytes: &mut B,
    attempt: impl Fn(&B) -> Option<T>,
) -> Option<T> {
    if let Some(found) = attempt(bytes) {
        return Some(found);
    }
    for at in 0..bytes.as_mut().len() {
        for bit in 0..8 {
            bytes.as_mut()[at] ^= 1 << bit;
            if let Some(found) = attempt(bytes) {
                return Some(found);
            }
            bytes.as_mut()[at] ^= 1 << bit;
        }
    }
    None
}

/// Fixed-width little-endian numbers; no header is longer than the limit, whatever its bytes claim.
fn config() -> impl bincode::config::Config {
    bincode::config::legacy().with_limit::<64>()
}
