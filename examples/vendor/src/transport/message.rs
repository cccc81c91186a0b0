//! What the two ends say to each other: JSON behind its length.

use std::io;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use yurt_core::transport::{Chain, Error, ErrorKind, Open, Peer, Priority, Result, Target};

/// The kinds that a rejection is told by; any other is the last.
const KINDS: [(&str, ErrorKind); 8] = [
    ("NoPeer", ErrorKind::NoPeer),
    ("Refused", ErrorKind::Refused),
    ("Unreachable", ErrorKind::Unreachable),
    ("Timeout", ErrorKind::Timeout),
    ("Forbidden", ErrorKind::Forbidden),
    ("Overloaded", ErrorKind::Overloaded),
    ("Draining", ErrorKind::Draining),
    ("Other", ErrorKind::Other),
];

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// The first of a session, in both directions; the listener's has the session's number.
    Hello {
        user: String,
        groups: Vec<String>,
        names: Vec<String>,
        /// Seconds since 1970.
        expires: u64,
        session: u64,
    },
    /// The first of a stream's own connection, and the only one.
    Join {
        session: u64,
        stream: u64,
    },
    Open {
        stream: u64,
        target: Wanted,
        is_bulk: bool,
        /// Milliseconds that are left.
        deadline: u64,
    },
    Reject {
        stream: u64,
        kind: String,
        message: String,
    },
    Reset {
        stream: u64,
        code: u16,
    },
    Ping {
        number: u64,
    },
    Pong {
        number: u64,
    },
    Drain,
    Close {
        reason: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Wanted {
    Dial {
        node: Option<String>,
        host: String,
        port: u16,
    },
    Echo,
    Servers,
}

impl Message {
    pub(super) fn hello(peer: &Peer, session: u64) -> Self {
        let expires = peer.expires.duration_since(SystemTime::UNIX_EPOCH);
        Self::Hello {
            user: peer.user.clone(),
            groups: peer.groups.clone(),
            names: peer.names.clone(),
            expires: expires.unwrap_or_default().as_secs(),
            session,
        }
    }

    /// Returns who says hello, and the session's number.
    pub(super) fn into_peer(self) -> Option<(Peer, u64)> {
        let Self::Hello {
            user,
            groups,
            names,
            expires,
            session,
        } = self
        else {
            return None;
        };
        let peer = Peer {
            user,
            groups,
            names,
            expires: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(expires))?,
            chain: Chain::default(),
        };
        Some((peer, session))
    }

    pub(super) fn open(stream: u64, open: &Open) -> Result<Self> {
        Ok(Self::Open {
            stream,
            target: Wanted::new(&open.target)?,
            is_bulk: open.priority == Priority::Bulk,
            deadline: u64::try_from(open.deadline.as_millis()).unwrap_or(u64::MAX),
        })
    }

    pub(super) fn reject(stream: u64, why: &Error) -> Self {
        let told = |(_, kind): &&(&str, ErrorKind)| *kind == why.kind();
        let kind = KINDS.iter().find(told).map_or("Other", |(name, _)| name);
        let mut message = why.to_string();
        message.truncate(message.floor_char_boundary(yurt_core::transport::MAX_MESSAGE_LEN));
        Self::Reject {
            stream,
            kind: kind.to_owned(),
            message,
        }
    }
}

/// Returns the kind that a rejection was told by.
pub(super) fn kind(told: &str) -> ErrorKind {
    let kind = KINDS.iter().find(|(name, _)| *name == told);
    kind.map_or(ErrorKind::Other, |(_, kind)| *kind)
}

impl Wanted {
    fn new(target: &Target) -> Result<Self> {
        match target {
            Target::Dial { node, host, port } => Ok(Self::Dial {
                node: node.as_ref().map(ToString::to_string),
                host: host.clone(),
                port: *port,
            }),
            Target::Echo => Ok(Self::Echo),
            Target::Servers => Ok(Self::Servers),
            other => Err(Error::new(
                ErrorKind::Other,
                format!("ask for {other}, which has no message"),
            )),
        }
    }

    /// Returns what is wanted, unless it is nothing that may be.
    pub(super) fn target(self) -> Option<Target> {
        let (wanted, host, port) = match self {
            Self::Echo => return Some(Target::Echo),
            Self::Servers => return Some(Target::Servers),
            Self::Dial { node, host, port } => (node, host, port),
        };
        let mut target = Target::dial(host, port).ok()?;
        if let Target::Dial { node, .. } = &mut target {
            *node = wanted.map(|name| name.parse()).transpose().ok()?;
        }
        Some(target)
    }
}

/// Reads a message, and nothing behind it.
pub(super) async fn read(socket: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Message> {
    // Two bytes of length: no peer makes us allocate more than 64 KiB.
    let len = socket.read_u16().await?;
    let mut text = vec![0; usize::from(len)];
    socket.read_exact(&mut text).await?;
    Ok(serde_json::from_slice(&text)?)
}

/// Writes a message.
pub(super) async fn write(
    socket: &mut (impl AsyncWriteExt + Unpin),
    message: &Message,
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let len = u16::try_from(text.len()).map_err(io::Error::other)?;
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.extend(text);
    socket.write_all(&bytes).await?;
    socket.flush().await
}

/// Tells the caller that its stream is expected; only then may bytes follow.
pub(super) async fn welcome(socket: &mut TcpStream) -> io::Result<()> {
    socket.write_u8(WELCOME).await
}

/// Waits until the other end expects the stream.
pub(super) async fn welcomed(socket: &mut TcpStream) -> io::Result<()> {
    match socket.read_u8().await? {
        WELCOME => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

const WELCOME: u8 = b'!';
