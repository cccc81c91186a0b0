//! What is said on a session's control pipe.

use yurt_core::transport::{ErrorKind, MAX_MESSAGE_LEN};

use super::body::{Body, Malformed, message, put_number, put_text};
use super::opening::{kind_of, number_of};

/// The version of the protocol; ends of different versions do not talk.
pub const VERSION: u64 = 1;

const HELLO: u8 = 1;
const CREDIT: u8 = 2;
const PING: u8 = 3;
const PONG: u8 = 4;
const DRAIN: u8 = 5;
const CLOSE: u8 = 6;
const RESET: u8 = 7;
const RELEASE: u8 = 8;
const END: u8 = 9;

/// A message about the session, or about the credit of one of its streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first message of each end, and only that.
    Hello(Hello),
    /// The peer may send a stream's bytes up to this one, counted from the stream's first.
    Credit {
        /// The stream.
        stream: u64,
        /// How many bytes of it may be sent in all.
        limit: u64,
    },
    /// Who sent nothing for long gives credit back: it keeps to the lower limit from now on, unless more credit than the
    /// peer had given when this was said is on its way.
    Release {
        /// The stream.
        stream: u64,
        /// The limit so far.
        from: u64,
        /// The limit from now on.
        to: u64,
    },
    /// To be answered by a [`Pong`](Self::Pong) with the same number.
    Ping(u64),
    /// The answer to a ping.
    Pong(u64),
    /// No more streams are to be opened.
    Drain,
    /// The session is over.
    Close {
        /// Why, for the program.
        kind: ErrorKind,
        /// Why, for whoever reads the log.
        reason: String,
    },
    /// A stream is over before its end. Its pipe says so, too, but not to an end that reads nothing of it.
    Reset {
        /// The stream.
        stream: u64,
        /// Why, for the program.
        code: u16,
    },
    /// The end of what the peer said on a stream was read; said where what carries the session does not tell.
    End {
        /// The stream.
        stream: u64,
    },
}

/// What an end is ready to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version that it speaks.
    pub version: u64,
    /// How many streams it holds at once.
    pub streams: u64,
    /// How many bytes of each stream it takes before the first [`Frame::Credit`].
    pub window: u64,
    /// Whether it says [`Frame::End`]; earlier versions do not.
    pub tells_ends: bool,
    /// Whether it understands [`Frame::Release`]; earlier versions do not.
    pub takes_credit_back: bool,
}

const TELLS_ENDS: u64 = 1;
const TAKES_CREDIT_BACK: u64 = 2;

impl Hello {
    /// What it can do, a bit for each.
    fn abilities(&self) -> u64 {
        let tells_ends = if self.tells_ends { TELLS_ENDS } else { 0 };
        let takes_credit_back = if self.takes_credit_back {
            TAKES_CREDIT_BACK
        } else {
            0
        };
        tells_ends | takes_credit_back
    }

    fn decode(body: &mut Body<'_>) -> Result<Self, Malformed> {
        let (version, streams, window) = (body.number()?, body.number()?, body.number()?);
        // An earlier version ends here.
        let abilities = if body.is_empty() { 0 } else { body.number()? };
        Ok(Self {
            version,
            streams,
            window,
            tells_ends: abilities & TELLS_ENDS != 0,
            takes_credit_back: abilities & TAKES_CREDIT_BACK != 0,
        })
    }
}

impl Frame {
    /// Appends the frame as a message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => message(out, HELLO, |out| {
                put_number(out, hello.version);
                put_number(out, hello.streams);
                put_number(out, hello.window);
                put_number(out, hello.abilities());
            }),
            Self::Credit { stream, limit } => message(out, CREDIT, |out| {
                put_number(out, *stream);
                put_number(out, *limit);
            }),
            Self::Release { stream, from, to } => message(out, RELEASE, |out| {
                put_number(out, *stream);
                put_number(out, *from);
                put_number(out, *to);
            }),
            Self::Ping(number) => message(out, PING, |out| put_number(out, *number)),
            Self::Pong(number) => message(out, PONG, |out| put_number(out, *number)),
            Self::Drain => message(out, DRAIN, |_| ()),
            Self::Close { kind, reason } => message(out, CLOSE, |out| {
                let (kind, code) = number_of(*kind);
                out.push(kind);
                put_number(out, u64::from(code));
                put_text(out, reason, MAX_MESSAGE_LEN);
            }),
            Self::Reset { stream, code } => message(out, RESET, |out| {
                put_number(out, *stream);
                put_number(out, u64::from(*code));
            }),
            Self::End { stream } => message(out, END, |out| put_number(out, *stream)),
        }
    }

    /// Reads the body of a message; `None` is a frame of a later version.
    ///
    /// # Errors
    /// When the body is not that of its type.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut body = Body::new(body);
        Ok(Some(match kind {
            HELLO => Self::Hello(Hello::decode(&mut body)?),
            CREDIT => Self::Credit {
                stream: body.number()?,
                limit: body.number()?,
            },
            RELEASE => Self::Release {
                stream: body.number()?,
                from: body.number()?,
                to: body.number()?,
            },
            PING => Self::Ping(body.number()?),
            PONG => Self::Pong(body.number()?),
            DRAIN => Self::Drain,
            CLOSE => Self::Close {
                kind: kind_of(body.byte()?, body.number()?),
                reason: body.text(MAX_MESSAGE_LEN)?.to_owned(),
            },
            RESET => Self::Reset {
                stream: body.number()?,
                code: u16::try_from(body.number()?)
                    .map_err(|_| Malformed("a code that is too large"))?,
            },
            END => Self::End {
                stream: body.number()?,
            },
            _ => return Ok(None),
        }))
    }
}
