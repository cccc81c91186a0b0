//! Streams to a peer that nobody can dial: what a tunnel between cloud and edge is made of.
//!
//! The edge connects, the cloud opens. A node behind two NATs calls out once; from then on the cloud opens
//! as many streams to it as it likes, each on its own: one that nobody reads holds up no other, one that
//! ends in one direction goes on in the other, and none ends silently.

mod error;
mod peer;

use std::net::SocketAddr;
use std::ops::AddAssign;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

pub use self::error::{Error, ErrorKind, Result};
pub use self::peer::{Chain, InvalidSubject, Peer};
use crate::name::NodeName;

/// The longest host that an [`Open`] may name, in bytes: that of a DNS name.
pub const MAX_HOST_LEN: usize = 253;

/// The longest message that travels with a rejection, in bytes; longer ones are cut.
pub const MAX_MESSAGE_LEN: usize = 1024;

/// A way to connect two ends: QUIC, HTTP/2 over TLS, or a vendor's own.
///
/// The end that listens [opens](Opener::open) streams, the end that connects [accepts](Acceptor::accept) them.
///
/// # Contract
///
/// Of opening:
///
/// 1. An open arrives at the peer as it was requested, and is a stream for both when the peer accepts it.
/// 2. A rejected open fails with the kind and the message of the rejection.
/// 3. An open that the peer does not answer fails as a timeout at its deadline.
/// 4. An open that is dropped is cancelled at the peer, and leaves nothing.
/// 5. An open beyond the limit of streams waits until one ends; at its deadline it fails as overload.
/// 6. Opens that nobody takes are refused as overload beyond a bound, and the session lives.
///
/// Of a stream:
///
/// 7. Bytes arrive as they were written, in both directions at once, whatever the size of the pieces.
/// 8. A shutdown ends one direction after its last byte, and the other goes on.
/// 9. A flush sends what was written without waiting for more.
/// 10. A reset fails the peer's reads and writes with its code, and touches no other stream.
/// 11. A stream dropped before both directions ended is reset, never ended cleanly.
/// 12. A stream that nobody reads stops its writer after a bounded number of bytes and holds up no other.
/// 13. A stream that was not read for long delivers every byte when it is.
/// 14. A change of priority changes no byte.
///
/// Of a session:
///
/// 15. A ping returns when the peer has answered.
/// 16. After a drain of either end new opens fail as draining, and open streams finish.
/// 17. A close of either end is seen by both and fails every stream, open and accept.
/// 18. A session whose last owner dropped it is closed.
/// 19. A thousand streams that ended leave nothing in the session.
/// 20. Each end knows who the other is before the first stream.
///
/// Of a stream's end:
///
/// 21. What was written before both directions ended arrives, though its writer has dropped the stream.
/// 22. A reset is told to an end that only waits, whatever it has not read or sent; the end of the session is, as long
///     as the end has more to send.
/// 23. An accept that is dropped ends the stream before it begins, or resets it, and leaves nothing.
///
/// # For implementers
///
/// Authenticate both ends before a session exists, bound what an unauthenticated peer costs, and end a session
/// whose peer has gone silent. What a peer sends must never make you panic, nor allocate what it only declares.
/// Run `yurt_core::transport_conformance!` over your transport.
///
/// # For callers
///
/// A [`Session`] is closed when its last `Arc` is dropped. Streams outlive neither the session nor a reset: they
/// fail with an [`std::io::Error`] in which [`Error::of`] finds the reason.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use yurt_core::transport::{Open, Opener, Target};
///
/// async fn ask(node: &dyn Opener) -> Result<String, Box<dyn std::error::Error>> {
///     let target = Target::dial("192.0.2.7", 10250)?;
///     let mut stream = node.open(Open::new(target, Duration::from_secs(5))).await?;
///     stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
///     stream.shutdown().await?;
///     let mut answer = String::new();
///     stream.read_to_string(&mut answer).await?;
///     Ok(answer)
/// }
/// ```
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Connects to a listener at `address` that proves to be `name`.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`], [`ErrorKind::Refused`] and [`ErrorKind::Timeout`] when there is no listener,
    /// [`ErrorKind::Forbidden`] when either end does not believe the other.
    ///
    /// # Cancel safety
    /// Dropped, nothing is left of the attempt.
    async fn connect(&self, address: SocketAddr, name: &str) -> Result<Arc<dyn Acceptor>>;

    /// Listens at `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`ErrorKind::Other`] if the address cannot be had.
    ///
    /// # Cancel safety
    /// Dropped, the address is free again.
    async fn listen(&self, address: SocketAddr) -> Result<Box<dyn Listener>>;
}

/// Where a [`Transport`] listens. Dropped, it takes no new sessions; those that it gave go on.
#[async_trait]
pub trait Listener: fmt::Debug + Send + Sync + 'static {
    /// Returns the address that it listens at.
    fn address(&self) -> SocketAddr;

    /// Returns the next peer that has proven who it is, or `None` when the listener has ended: no peer will come
    /// any more.
    ///
    /// Peers are authenticated side by side: a slow one delays no other.
    ///
    /// # Errors
    /// The reason for which one peer was refused, of whatever kind: to be counted, and accept called again.
    ///
    /// # Cancel safety
    /// Dropped, no peer is lost.
    async fn accept(&self) -> Option<Result<Arc<dyn Opener>>>;
}

/// One authenticated peer, whichever end this is.
#[async_trait]
pub trait Session: fmt::Debug + Send + Sync + 'static {
    /// Returns who the peer has proven to be.
    fn peer(&self) -> &Peer;

    /// Returns where the peer's bytes come from now.
    fn remote(&self) -> SocketAddr;

    /// Returns the state, which may be waited on. The last is [`State::Closed`].
    fn state(&self) -> watch::Receiver<State>;

    /// Asks the peer for an answer and returns the round trip's time.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the session ends meanwhile.
    ///
    /// # Cancel safety
    /// Dropped, the answer is ignored.
    async fn ping(&self) -> Result<Duration>;

    /// Lets no more streams be opened, tells the peer so, and returns at once. Open streams go on.
    fn drain(&self);

    /// Ends the session and all of its streams, tells the peer why, and returns when nothing is left of it.
    ///
    /// # Cancel safety
    /// Dropped, the session ends all the same.
    async fn close(&self, reason: &str);

    /// Returns what has been counted so far; cheap enough to be asked every second.
    fn stats(&self) -> Stats;
}

/// The end of a session that opens streams: the one that listened.
#[async_trait]
pub trait Opener: Session {
    /// Opens a stream and returns it when the peer has accepted it.
    ///
    /// # Errors
    /// The peer's rejection with its kind; [`ErrorKind::Timeout`] at the deadline, [`ErrorKind::Draining`],
    /// [`ErrorKind::Overloaded`], [`ErrorKind::Closed`].
    ///
    /// # Cancel safety
    /// Dropped, the peer is told that nobody waits any more.
    async fn open(&self, open: Open) -> Result<Box<dyn Stream>>;
}

/// The end of a session that accepts streams: the one that connected.
#[async_trait]
pub trait Acceptor: Session {
    /// Returns the next stream that the peer wants.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] when the session has ended.
    ///
    /// # Cancel safety
    /// Dropped, no stream is lost.
    async fn accept(&self) -> Result<Box<dyn Incoming>>;
}

/// A stream that the peer wants, to be accepted or rejected. Dropped, it is rejected as [`ErrorKind::Other`].
#[async_trait]
pub trait Incoming: fmt::Debug + Send + 'static {
    /// Returns what the peer asked for. Its deadline is what is left of it.
    fn request(&self) -> &Open;

    /// Returns when the peer no longer waits for an answer.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    async fn cancelled(&mut self);

    /// Tells the peer that the stream stands, and returns it.
    ///
    /// # Errors
    /// [`ErrorKind::Reset`] if the peer gave up, [`ErrorKind::Closed`] if the session ended.
    ///
    /// # Cancel safety
    /// Dropped, the stream is reset.
    async fn accept(self: Box<Self>) -> Result<Box<dyn Stream>>;

    /// Tells the peer why there is no stream: the kind and the message, never the source.
    fn reject(self: Box<Self>, why: Error);
}

/// Bytes in both directions.
///
/// A shutdown of the writing half ends that direction only. Errors of reads and writes carry an [`Error`].
pub trait Stream: fmt::Debug + AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Returns the number that both ends, and their logs, know the stream by.
    fn id(&self) -> u64;

    /// Ends both directions at once: the peer's reads and writes fail as [`ErrorKind::Reset`] with this code.
    fn reset(&mut self, code: u16);

    /// Returns why the stream is over before its end: it was reset, or its session has ended. Pending otherwise, also
    /// after a clean end, and after the end of a session when this end has said all: what the peer said may be there
    /// to be read.
    ///
    /// For an owner that can neither read nor write at the moment, and so would not learn it.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error>;

    /// Sets how this end's bytes are preferred to those of the session's other streams from now on.
    fn set_priority(&mut self, priority: Priority);
}

impl<S: Stream + ?Sized> Stream for Box<S> {
    fn id(&self) -> u64 {
        (**self).id()
    }

    fn reset(&mut self, code: u16) {
        (**self).reset(code);
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        (**self).poll_reset(cx)
    }

    fn set_priority(&mut self, priority: Priority) {
        (**self).set_priority(priority);
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: Transport + ?Sized> Transport for Arc<T> {
    async fn connect(&self, address: SocketAddr, name: &str) -> Result<Arc<dyn Acceptor>> {
        (**self).connect(address, name).await
    }

    async fn listen(&self, address: SocketAddr) -> Result<Box<dyn Listener>> {
        (**self).listen(address).await
    }
}

/// What an opener wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// What is to be at the stream's other end.
    pub target: Target,
    /// How its bytes are preferred.
    pub priority: Priority,
    /// How long the opener waits for an answer.
    pub deadline: Duration,
}

/// What is to be at a stream's other end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// A TCP connection that the acceptor makes.
    Dial {
        /// The node that is to dial, for an acceptor that serves more than itself.
        node: Option<NodeName>,
        /// A name or an address, of 1 to [`MAX_HOST_LEN`] bytes.
        host: String,
        /// The port.
        port: u16,
    },
    /// The acceptor itself, which returns every byte: to see whether the path works.
    Echo,
    /// The acceptor itself, which is told where the opener's like can be found.
    Servers,
}

/// How a stream's bytes are preferred to those of the session's other streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// After the others, without being starved: copies, images, big answers.
    Bulk,
    /// First: somebody waits for each answer.
    #[default]
    Interactive,
}

/// Whether a session takes new streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It does.
    Open,
    /// It does not; those that are open finish.
    Draining,
    /// It is over.
    Closed {
        /// Why, as far as a caller acts on it.
        kind: ErrorKind,
        /// Why, in words.
        reason: String,
    },
}

/// What a session has counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Streams that are open now, those that wait for an answer included, and those whose last bytes are known to be
    /// on their way.
    pub streams: u64,
    /// Streams that were opened or accepted.
    pub opened: u64,
    /// Streams that ended by a reset.
    pub reset: u64,
    /// Bytes that streams' owners have written.
    pub sent: u64,
    /// Bytes that streams' owners have read.
    pub received: u64,
    /// Bytes of the questions whether the peer lives, and of their answers.
    pub keep_alive: Traffic,
    /// Bytes in which the ends say what they want: what streams are for, their credit, their resets, the session's end.
    pub control: Traffic,
    /// Bytes of the packets, or of the connections, that carry all this, if the transport knows: what encrypts and
    /// acknowledges it is in, the headers of IP and of UDP or TCP are not.
    pub wire: Traffic,
    /// Bytes that the peer may send before anything more is read: what unread streams can cost at most.
    pub credit: u64,
    /// Times that a writer had to wait for its peer to read.
    pub stalls: u64,
    /// The smoothed round trip, if it was measured.
    pub round_trip: Option<Duration>,
    /// Packets lost, if the transport knows.
    pub lost: u64,
    /// Times that the peer's address changed and the session went on.
    pub migrations: u64,
}

/// Bytes in the two directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Those to the peer.
    pub sent: u64,
    /// Those from the peer.
    pub received: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.sent += more.sent;
        self.received += more.received;
    }
}

// === Open, Target ===

impl Open {
    /// Returns a request for an interactive stream.
    #[must_use]
    pub fn new(target: Target, deadline: Duration) -> Self {
        Self {
            target,
            priority: Priority::default(),
            deadline,
        }
    }
}

impl Target {
    /// Returns a connection to `host`, a name or an address, that the acceptor makes by itself.
    ///
    /// # Errors
    /// [`ErrorKind::Other`] if the host is empty or longer than [`MAX_HOST_LEN`].
    pub fn dial(host: impl Into<String>, port: u16) -> Result<Self> {
        let host = host.into();
        if host.is_empty() || host.len() > MAX_HOST_LEN {
            let message = format!("a host of {} bytes", host.len());
            return Err(Error::new(ErrorKind::Other, message));
        }
        Ok(Self::Dial {
            node: None,
            host,
            port,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Dial { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Echo => f.write_str("echo"),
            Self::Servers => f.write_str("servers"),
        }
    }
}
