//! Numbers and texts inside a message's body.

use super::{MAX_BODY, PREFIX};

/// Bytes of a peer that are not what the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer sent {0}")]
pub struct Malformed(pub &'static str);

/// Reads a body from its start.
pub(super) struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (byte, rest) = self
            .0
            .split_first()
            .ok_or(Malformed("a message that is too short"))?;
        self.0 = rest;
        Ok(*byte)
    }

    /// A variable number (RFC 9000, section 16): the two highest bits tell its length.
    pub(super) fn number(&mut self) -> Result<u64, Malformed> {
        let first = self.byte()?;
        let more = (1_usize << (first >> 6)) - 1;
        self.take(more)?
            .iter()
            .try_fold(u64::from(first & 0x3f), |number, byte| {
                Ok(number << 8 | u64::from(*byte))
            })
    }

    /// A text with its length before it.
    pub(super) fn text(&mut self, max: usize) -> Result<&'a str, Malformed> {
        let len = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if len > max {
            return Err(Malformed("a text that is too long"));
        }
        std::str::from_utf8(self.take(len)?).map_err(|_| Malformed("a text that is not UTF-8"))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(Malformed("a message that is too short"))?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Appends a message to `out`; `body` writes what it says.
pub(super) fn message(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let start = out.len() + PREFIX - 1;
    out.extend_from_slice(&[0, 0]);
    body(out);
    let len = out.len() - start;
    debug_assert!(len <= MAX_BODY, "messages' parts are bounded");
    let len = u16::try_from(len).expect("a body is shorter than 64 KiB");
    out[start - 2..start].copy_from_slice(&len.to_be_bytes());
}

/// Appends a variable number; numbers of 2^62 and more are sent as the largest.
pub(super) fn put_number(out: &mut Vec<u8>, number: u64) {
    let number = number.min((1 << 62) - 1);
    let (len, tag) = match number {
        0..0x40 => (1, 0),
        0x40..0x4000 => (2, 0x40),
        0x4000..0x4000_0000 => (4, 0x80),
        _ => (8, 0xc0),
    };
    let bytes = number.to_be_bytes();
    let start = out.len();
    out.extend_from_slice(&bytes[8 - len..]);
    out[start] |= tag;
}

/// Appends a text, cut to `max` bytes where a character begins.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str, max: usize) {
    let text = &text[..text.floor_char_boundary(max)];
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}
