//! Reading a segment from its beginning to its end, whatever its bytes are.

use std::io;

use super::disk::DiskFile;
use super::record::{self, Header};
use super::segment;

/// How much is read at once; longer values are checked piece by piece.
const WINDOW: usize = 256 << 10;

/// What is lost when a read fails: a page.
const PAGE: usize = 4096;

/// Where records begin: at multiples of this, with a check and the salt.
const STEP: usize = 8;
const STEP_SPAN: u64 = 8;

/// Something found in a segment, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A record whose header and key are as they were written.
    Record(Found),
    /// Bytes that are no record.
    Gap(Gap),
}

impl Item {
    /// Returns where the next item begins.
    pub(super) fn end(&self) -> u32 {
        match self {
            Self::Record(found) => found.end,
            Self::Gap(gap) => gap.end,
        }
    }
}

/// A record that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) offset: u32,
    pub(super) end: u32,
    pub(super) header: Header,
    pub(super) key: Vec<u8>,
    pub(super) condition: Condition,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// As it was written.
    Intact,
    /// A bit of the header or the key was flipped; it is known which.
    Repaired,
    /// The value is not what was written.
    Damaged,
}

/// A stretch without a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) offset: u32,
    pub(super) end: u32,
    pub(super) content: Content,
}

/// What stands in a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing was ever written there.
    Zeros,
    /// Bytes that nobody can read any more.
    Garbage,
}

/// Walks over the records of a segment.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    window: Window<'a>,
    salt: u32,
    at: u64,
    end: u64,
}

impl<'a> Scanner<'a> {
    /// Returns a scanner of the records from `start` to `end`.
    pub(super) fn new(file: &'a dyn DiskFile, salt: u32, start: u32, end: u32) -> Self {
        Self {
            window: Window::new(file, u64::from(end)),
            salt,
            at: u64::from(start),
            end: u64::from(end),
        }
    }

    /// Returns what comes next, or `None` at the end.
    pub(super) fn next(&mut self) -> Option<Item> {
        if self.at >= self.end {
            return None;
        }
        let start = self.at;
        let item = self
            .record(start, Header::decode_repaired)
            .map_or_else(|| Item::Gap(self.gap(start)), Item::Record);
        self.at = u64::from(item.end());
        Some(item)
    }

    /// Returns the record at `at`, if `decode` takes its header and its key can be known.
    fn record(
        &mut self,
        at: u64,
        decode: fn(&[u8; record::HEADER_LEN], u32) -> Option<Header>,
    ) -> Option<Found> {
        let bytes = self.window.header(at)?;
        let header = decode(&bytes, self.salt)?;
        let end = at
            .checked_add(header.span())
            .filter(|end| *end <= self.end)?;
        let mut repaired = Header::decode(&bytes, self.salt).is_none();
        let key_len = usize::from(header.key_len);
        let mut key = self
            .window
            .bytes(at + record::HEADER_SPAN, key_len)
            .to_vec();
        if key.len() != key_len {
            return None;
        }
        if !header.is_of(&key) {
            if repaired {
                return None;
            }
            header.repair_key(&mut key)?;
            repaired = true;
        }
        let check = self.window.check(
            crc32c::crc32c(&key),
            at + record::HEADER_SPAN + u64::from(header.key_len),
            u64::from(header.value_len),
        );
        let condition = match (header.body_is(check), repaired) {
            (true, false) => Condition::Intact,
            (true, true) => Condition::Repaired,
            (false, false) => Condition::Damaged,
            // Two parts disagree: whether the repair was right is anybody's guess.
            (false, true) => return None,
        };
        Some(Found {
            offset: u32::try_from(at).ok()?,
            end: u32::try_from(end).ok()?,
            header,
            key,
            condition,
        })
    }

    /// Returns the stretch from `start` to the next record.
    fn gap(&mut self, start: u64) -> Gap {
        let mut content = Content::Zeros;
        let mut at = start;
        while at < self.end {
            let step = self.window.bytes(at, STEP);
            let is_zero = step.iter().all(|byte| *byte == 0);
            let has_salt = step.ends_with(&self.salt.to_le_bytes());
            if has_salt && at > start && self.record(at, Header::decode).is_some() {
                break;
            }
            if !is_zero {
                content = Content::Garbage;
            }
            at += STEP_SPAN;
        }
        let narrow = |at: u64| u32::try_from(at.min(self.end)).unwrap_or(u32::MAX);
        Gap {
            offset: narrow(start),
            end: narrow(at),
            content,
        }
    }
}

/// Returns the salt of the first record that proves itself, for a segment without a header.
pub(super) fn find_salt(file: &dyn DiskFile, end: u32) -> Option<u32> {
    let mut window = Window::new(file, u64::from(end));
    let first = u64::try_from(segment::HEADER_LEN).unwrap_or(0);
    (first..u64::from(end))
        .step_by(STEP)
        .find_map(|at| Header::salt_of(&window.header(at)?))
}

/// A part of a file, read ahead.
#[derive(Debug)]
struct Window<'a> {
    file: &'a dyn DiskFile,
    end: u64,
    base: u64,
    buffer: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn DiskFile, end: u64) -> Self {
        Self {
            file,
            end,
            base: 0,
            buffer: Vec::new(),
        }
    }

    fn header(&mut self, at: u64) -> Option<[u8; record::HEADER_LEN]> {
        self.bytes(at, record::HEADER_LEN).try_into().ok()
    }

    /// Returns `len` bytes at `at`, fewer at the end of the file; `len` is at most a window.
    fn bytes(&mut self, at: u64, len: usize) -> &[u8] {
        if self.loaded(at, len).is_none() && at < self.end {
            self.load(at);
        }
        self.loaded(at, len).unwrap_or_else(|| self.tail(at))
    }

    fn loaded(&self, at: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(at.checked_sub(self.base)?).ok()?;
        self.buffer.get(start..start.checked_add(len)?)
    }

    fn tail(&self, at: u64) -> &[u8] {
        let start = at
            .checked_sub(self.base)
            .and_then(|start| usize::try_from(start).ok());
        start
            .and_then(|start| self.buffer.get(start..))
            .unwrap_or_default()
    }

    /// Grows a check over `len` bytes from `at`.
    fn check(&mut self, mut check: u32, mut at: u64, mut len: u64) -> u32 {
        while len > 0 {
            let piece = usize::try_from(len).unwrap_or(WINDOW).min(WINDOW);
            let available = self.tail(at).len();
            // What is loaded first: a value across the window's border is not read twice.
            let piece = if available > 0 {
                piece.min(available)
            } else {
                piece
            };
            let bytes = self.bytes(at, piece);
            if bytes.is_empty() {
                break;
            }
            check = crc32c::crc32c_append(check, bytes);
            let count = u64::try_from(bytes.len()).unwrap_or(len);
            at += count;
            len = len.saturating_sub(count);
        }
        check
    }

    fn load(&mut self, at: u64) {
        let len = usize::try_from(self.end - at).unwrap_or(WINDOW).min(WINDOW);
        self.base = at;
        self.buffer.resize(len, 0);
        let read = match self.file.read_at(&mut self.buffer, at) {
            Ok(count) => count,
            Err(_) => self.load_pages(at),
        };
        self.buffer.truncate(read);
    }

    /// Reads page by page; one that the disk refuses becomes bytes that prove nothing.
    fn load_pages(&mut self, at: u64) -> usize {
        let mut read = 0;
        for page in self.buffer.chunks_mut(PAGE) {
            let offset = at + u64::try_from(read).unwrap_or(0);
            let result: io::Result<usize> = self.file.read_at(page, offset);
            match result {
                Ok(count) if count < page.len() => return read + count,
                Ok(_) => {}
                Err(_) => page.fill(0xff),
            }
            read += page.len();
        }
        read
    }
}

#[cfg(test)]
mod tests;
