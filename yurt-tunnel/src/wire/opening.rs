//! How a stream begins: what its opener wants, and what the acceptor says to it.

use std::time::Duration;

use yurt_core::transport::{
    Error, ErrorKind, MAX_HOST_LEN, MAX_MESSAGE_LEN, Open, Priority, Target,
};

use super::body::{Body, Malformed, message, put_number, put_text};

const HEAD: u8 = 0x10;
const ACCEPTED: u8 = 0x11;
const REJECTED: u8 = 0x12;

/// The first message of an opener on a stream's pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The stream's number: each is greater than all before it.
    pub stream: u64,
    /// What is wanted.
    pub open: Open,
}

/// The first message of an acceptor on a stream's pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The stream stands.
    Accepted,
    /// It does not.
    Rejected {
        /// Why, for the program.
        kind: ErrorKind,
        /// Why, for whoever reads the log.
        message: String,
    },
}

impl Head {
    /// Appends the head as a message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        message(out, HEAD, |out| {
            put_number(out, self.stream);
            out.push(match self.open.priority {
                Priority::Bulk => 0,
                Priority::Interactive => 1,
            });
            let deadline = u64::try_from(self.open.deadline.as_millis()).unwrap_or(u64::MAX);
            put_number(out, deadline);
            put_target(out, &self.open.target);
        });
    }

    /// Reads the body of a message.
    ///
    /// # Errors
    /// When it is not a head.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, Malformed> {
        if kind != HEAD {
            return Err(Malformed("something else than the head of a stream"));
        }
        let mut body = Body::new(body);
        let stream = body.number()?;
        let priority = match body.byte()? {
            0 => Priority::Bulk,
            _ => Priority::Interactive,
        };
        let deadline = Duration::from_millis(body.number()?);
        let target = target(&mut body)?;
        let open = Open {
            target,
            priority,
            deadline,
        };
        Ok(Self { stream, open })
    }
}

impl Answer {
    /// Appends the answer as a message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Accepted => message(out, ACCEPTED, |_| ()),
            Self::Rejected { kind, message: why } => message(out, REJECTED, |out| {
                let (kind, code) = number_of(*kind);
                out.push(kind);
                put_number(out, u64::from(code));
                put_text(out, why, MAX_MESSAGE_LEN);
            }),
        }
    }

    /// Reads the body of a message.
    ///
    /// # Errors
    /// When it is not an answer.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, Malformed> {
        let mut body = Body::new(body);
        match kind {
            ACCEPTED => Ok(Self::Accepted),
            REJECTED => Ok(Self::Rejected {
                kind: kind_of(body.byte()?, body.number()?),
                message: body.text(MAX_MESSAGE_LEN)?.to_owned(),
            }),
            _ => Err(Malformed("something else than an answer")),
        }
    }
}

impl From<&Error> for Answer {
    fn from(error: &Error) -> Self {
        Self::Rejected {
            kind: error.kind(),
            message: error.to_string(),
        }
    }
}

fn put_target(out: &mut Vec<u8>, target: &Target) {
    match target {
        Target::Dial { node, host, port } => {
            out.push(1);
            let node = node.as_ref().map_or("", |node| node.as_str());
            put_text(out, node, MAX_HOST_LEN);
            put_text(out, host, MAX_HOST_LEN);
            put_number(out, u64::from(*port));
        }
        Target::Echo => out.push(2),
        Target::Servers => out.push(3),
        // A target of a later contract, which no peer of this version can serve.
        _ => out.push(0),
    }
}

fn target(body: &mut Body<'_>) -> Result<Target, Malformed> {
    Ok(match body.byte()? {
        1 => {
            let node = match body.text(MAX_HOST_LEN)? {
                "" => None,
                name => Some(name.parse().map_err(|_| Malformed("a node of no name"))?),
            };
            let host = body.text(MAX_HOST_LEN)?.to_owned();
            if host.is_empty() {
                return Err(Malformed("an empty host"));
            }
            let port = u16::try_from(body.number()?).map_err(|_| Malformed("a port of no use"))?;
            Target::Dial { node, host, port }
        }
        2 => Target::Echo,
        3 => Target::Servers,
        _ => return Err(Malformed("a target that is not known here")),
    })
}

/// The number of a kind, and the code of a reset.
pub(super) fn number_of(kind: ErrorKind) -> (u8, u16) {
    let number = match kind {
        ErrorKind::NoPeer => 1,
        ErrorKind::Refused => 2,
        ErrorKind::Unreachable => 3,
        ErrorKind::Timeout => 4,
        ErrorKind::Forbidden => 5,
        ErrorKind::Overloaded => 6,
        ErrorKind::Draining => 7,
        ErrorKind::Reset(code) => return (8, code),
        ErrorKind::Closed => 9,
        ErrorKind::Protocol => 10,
        _ => 0,
    };
    (number, 0)
}

/// The kind of a number; those of a later version are other reasons.
pub(super) fn kind_of(number: u8, code: u64) -> ErrorKind {
    match number {
        1 => ErrorKind::NoPeer,
        2 => ErrorKind::Refused,
        3 => ErrorKind::Unreachable,
        4 => ErrorKind::Timeout,
        5 => ErrorKind::Forbidden,
        6 => ErrorKind::Overloaded,
        7 => ErrorKind::Draining,
        8 => ErrorKind::Reset(u16::try_from(code).unwrap_or(u16::MAX)),
        9 => ErrorKind::Closed,
        10 => ErrorKind::Protocol,
        _ => ErrorKind::Other,
    }
}
