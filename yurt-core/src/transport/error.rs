//! Why there is no session, no stream, or no more bytes.

use std::error::Error as StdError;
use std::{fmt, io};

/// What failed in a transport.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of a call to a transport.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a session or a stream failed, as far as a caller acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No end of a session is known for the node.
    NoPeer,
    /// There is an end, and it will not: what was dialled refused the connection.
    Refused,
    /// What was dialled cannot be reached.
    Unreachable,
    /// Nobody answered in time.
    Timeout,
    /// Who asks may not, or is not who it says.
    Forbidden,
    /// The peer has more than it can take; later it may not.
    Overloaded,
    /// The session takes no new streams; another may.
    Draining,
    /// The stream was ended by the peer, with this code.
    Reset(u16),
    /// The session is over.
    Closed,
    /// The peer does not speak the protocol.
    Protocol,
    /// Anything else; the source says more.
    Other,
}

impl Error {
    /// Returns an error of this kind; `message` names the step and the object.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns why the call failed.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the transport's error inside that of a read or a write, if it is one.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind {
            ErrorKind::Refused => io::ErrorKind::ConnectionRefused,
            ErrorKind::NoPeer | ErrorKind::Unreachable => io::ErrorKind::HostUnreachable,
            ErrorKind::Timeout => io::ErrorKind::TimedOut,
            ErrorKind::Forbidden => io::ErrorKind::PermissionDenied,
            ErrorKind::Reset(_) => io::ErrorKind::ConnectionReset,
            ErrorKind::Closed | ErrorKind::Draining => io::ErrorKind::ConnectionAborted,
            ErrorKind::Protocol => io::ErrorKind::InvalidData,
            ErrorKind::Overloaded => io::ErrorKind::ResourceBusy,
            ErrorKind::Other => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
