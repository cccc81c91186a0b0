//! What a carrier brings, and the messages that begin each pipe.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use yurt_core::transport::{Error, ErrorKind, Priority, Traffic};

use crate::wire::{Malformed, PREFIX, Prefix};

/// Codes of resets are sent above those that protocols use by themselves.
const CODES: u32 = 0x1_0000;

/// Waits for the last bytes of a direction that has ended; it does not keep the pipe.
pub(crate) type Arrival = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One authenticated connection to a peer, or several that act as one.
pub(crate) trait Carrier: Send + Sync + 'static {
    /// This end's direction of a pipe.
    type Send: SendPipe;
    /// The peer's direction of a pipe.
    type Receive: ReceivePipe;
    /// Whether [`SendPipe::arrival`] tells when all has arrived; else the ends of a session tell each other.
    const TELLS_ARRIVAL: bool;

    /// Begins a pipe; only the end that listened can.
    fn open(
        &self,
        priority: Priority,
    ) -> impl Future<Output = io::Result<(Self::Send, Self::Receive)>> + Send;

    /// Returns the next pipe that the peer begins. Cancel safe.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Send, Self::Receive)>> + Send;

    /// Ends the connection at once; pipes fail.
    fn close(&self, reason: &str);

    /// Returns what is known of the way to the peer.
    fn path(&self) -> Path;
}

/// This end's direction of a pipe. Dropped before its end, it is reset.
pub(crate) trait SendPipe: AsyncWrite + Send + Unpin + 'static {
    /// Returns why the peer wants no more, when it does not.
    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<io::Error>;

    /// Ends the direction; the peer's reads fail.
    fn reset(&mut self, code: u16);

    /// Returns what is done when all that was said has arrived, or will not any more; nothing if it has already, or if
    /// the carrier does not know.
    fn arrival(&self) -> Option<Arrival> {
        None
    }

    /// Sets how the direction's bytes are preferred.
    fn set_priority(&mut self, priority: Priority);
}

/// The peer's direction of a pipe. Dropped before its end, it is stopped.
pub(crate) trait ReceivePipe: AsyncRead + Send + Unpin + 'static {
    /// Wants no more; the peer's writes fail.
    fn stop(&mut self, code: u16);
}

/// What is known of the way to a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) remote: SocketAddr,
    pub(crate) round_trip: Option<Duration>,
    pub(crate) lost: u64,
    pub(crate) migrations: u64,
    pub(crate) wire: Traffic,
}

/// The code of a reset as it is sent.
pub(crate) fn sent_code(code: u16) -> u32 {
    CODES + u32::from(code)
}

/// The error of a pipe that the peer has reset; what a protocol does by itself is code 0.
pub(crate) fn reset_error(sent: u64) -> io::Error {
    let code = sent.saturating_sub(u64::from(CODES));
    let code = u16::try_from(code).unwrap_or_default();
    let message = format!("the peer has reset the stream with code {code}");
    Error::new(ErrorKind::Reset(code), message).into()
}

/// The error of a connection that is no more.
pub(crate) fn lost_error(reason: impl Into<String>) -> io::Error {
    Error::new(ErrorKind::Closed, reason).into()
}

/// Reads one message from a pipe on which more may follow.
pub(crate) async fn read_message(
    pipe: &mut (impl AsyncRead + Unpin),
) -> Result<(u8, Vec<u8>), io::Error> {
    let mut prefix = [0; PREFIX];
    pipe.read_exact(&mut prefix).await?;
    let prefix = Prefix::decode(prefix).map_err(malformed)?;
    let mut body = vec![0; prefix.len];
    pipe.read_exact(&mut body).await?;
    Ok((prefix.kind, body))
}

/// The error of a peer that does not speak the protocol.
pub(crate) fn malformed(malformed: Malformed) -> io::Error {
    Error::new(ErrorKind::Protocol, malformed.to_string()).into()
}

/// The transport's error inside an error of a pipe, or one that says that the session is lost.
pub(crate) fn transport_error(error: &io::Error) -> Error {
    match Error::of(error) {
        Some(error) => Error::new(error.kind(), error.to_string()),
        None => Error::new(ErrorKind::Closed, error.to_string()),
    }
}
