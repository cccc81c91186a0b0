//! What the two ends of a session say to each other: frames, encoded and decoded.
//!
//! Each session has one control pipe, on which each end sends [`Frame`]s, the first of them its [`Hello`].
//! Each stream has a pipe of its own: the opener begins it with a [`Head`], the acceptor with an [`Answer`],
//! and what follows are the stream's bytes and nothing else.
//!
//! A message is a type of one byte, a length of two, big endian, and a body of at most [`MAX_BODY`] bytes.
//! Numbers in bodies are variable (RFC 9000, section 16). A body may be longer than this version knows: the
//! rest is ignored, as are control frames of an unknown type.

mod body;
mod control;
mod opening;

pub use self::body::Malformed;
pub use self::control::{Frame, Hello, VERSION};
pub use self::opening::{Answer, Head};

/// The bytes of a message before its body.
pub const PREFIX: usize = 3;

/// The longest body of a message: a message's text, a host and a few numbers.
pub const MAX_BODY: usize = 2048;

/// The type of a message and the length of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// What the message is.
    pub kind: u8,
    /// How many bytes follow.
    pub len: usize,
}

impl Prefix {
    /// Reads what is before a body.
    ///
    /// # Errors
    /// When the body would be longer than [`MAX_BODY`].
    pub fn decode(bytes: [u8; PREFIX]) -> Result<Self, Malformed> {
        let [kind, high, low] = bytes;
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len > MAX_BODY {
            return Err(Malformed("a message that is too long"));
        }
        Ok(Self { kind, len })
    }
}

#[cfg(test)]
mod tests;
