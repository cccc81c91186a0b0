//! A QUIC connection as a carrier.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use quinn::{Connection, ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use yurt_core::transport::{Error, Priority, Traffic};

use super::peers::refused;
use crate::transport::pipe::{
    Arrival, Carrier, Path, ReceivePipe, SendPipe, lost_error, reset_error, sent_code,
};

type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send + Sync>>;

/// A QUIC connection.
#[derive(Clone)]
pub(super) struct QuicCarrier {
    connection: Connection,
    seen: Arc<Seen>,
}

/// Where the peer was seen last, and how often it has moved.
struct Seen {
    remote: Mutex<SocketAddr>,
    migrations: AtomicU64,
}

/// This end's direction of a stream.
pub(super) struct QuicSend {
    stream: SendStream,
    /// Asked only while nothing may be written: it costs an allocation.
    stopped: Option<Stopped>,
    is_over: bool,
}

/// The peer's direction of a stream; quinn stops it when it is dropped before its end.
pub(super) struct QuicReceive(RecvStream);

impl QuicCarrier {
    pub(super) fn new(connection: Connection) -> Self {
        let remote = Mutex::new(connection.remote_address());
        let migrations = AtomicU64::new(0);
        Self {
            connection,
            seen: Arc::new(Seen { remote, migrations }),
        }
    }

    /// Why the connection is over, if the peer did not want it.
    pub(super) fn refusal(&self, address: SocketAddr) -> Option<Error> {
        let reason = self.connection.close_reason()?;
        Some(refused(address, reason))
    }

    fn lost(&self, error: &quinn::ConnectionError) -> io::Error {
        lost_error(error.to_string())
    }
}

impl Carrier for QuicCarrier {
    type Send = QuicSend;
    type Receive = QuicReceive;
    const TELLS_ARRIVAL: bool = true;

    async fn open(&self, priority: Priority) -> io::Result<(QuicSend, QuicReceive)> {
        let opened = self.connection.open_bi().await;
        let (send, receive) = opened.map_err(|error| self.lost(&error))?;
        let mut send = QuicSend::new(send);
        send.set_priority(priority);
        Ok((send, QuicReceive(receive)))
    }

    async fn accept(&self) -> io::Result<(QuicSend, QuicReceive)> {
        let accepted = self.connection.accept_bi().await;
        let (send, receive) = accepted.map_err(|error| self.lost(&error))?;
        Ok((QuicSend::new(send), QuicReceive(receive)))
    }

    fn close(&self, reason: &str) {
        self.connection
            .close(VarInt::from_u32(0), reason.as_bytes());
    }

    fn path(&self) -> Path {
        let remote = self.connection.remote_address();
        let mut seen = self.seen.remote.lock();
        if *seen != remote {
            *seen = remote;
            self.seen.migrations.fetch_add(1, Ordering::Relaxed);
        }
        let stats = self.connection.stats();
        Path {
            remote: SocketAddr::new(remote.ip().to_canonical(), remote.port()),
            round_trip: Some(self.connection.rtt()),
            lost: stats.path.lost_packets,
            migrations: self.seen.migrations.load(Ordering::Relaxed),
            wire: Traffic {
                sent: stats.udp_tx.bytes,
                received: stats.udp_rx.bytes,
            },
        }
    }
}

// === QuicSend ===

impl QuicSend {
    fn new(stream: SendStream) -> Self {
        Self {
            stream,
            stopped: None,
            is_over: false,
        }
    }
}

impl SendPipe for QuicSend {
    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let stream = &self.stream;
        let stopped = self
            .stopped
            .get_or_insert_with(|| Box::pin(stream.stopped()));
        let outcome = ready!(stopped.as_mut().poll(cx));
        self.stopped = None;
        Poll::Ready(match outcome {
            Ok(Some(code)) => reset_error(code.into_inner()),
            Ok(None) => lost_error("the stream has ended"),
            Err(error) => lost_error(error.to_string()),
        })
    }

    fn reset(&mut self, code: u16) {
        self.is_over = true;
        // A stream that is over already needs no reset.
        let _ = self.stream.reset(VarInt::from_u32(sent_code(code)));
    }

    fn arrival(&self) -> Option<Arrival> {
        // A stream of which everything has arrived is known no more.
        self.stream.priority().ok()?;
        let stopped = self.stream.stopped();
        Some(Box::pin(async move { drop(stopped.await) }))
    }

    fn set_priority(&mut self, priority: Priority) {
        let level = match priority {
            Priority::Bulk => -1,
            Priority::Interactive => 0,
        };
        let _ = self.stream.set_priority(level); // a stream that is over has none
    }
}

impl AsyncWrite for QuicSend {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stopped = None;
        let written = ready!(SendStream::poll_write(
            Pin::new(&mut self.stream),
            cx,
            bytes
        ));
        Poll::Ready(written.map_err(|error| match error {
            WriteError::Stopped(code) => reset_error(code.into_inner()),
            error => lost_error(error.to_string()),
        }))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_over = true;
        let _ = self.stream.finish(); // one that the peer has stopped is over all the same
        Poll::Ready(Ok(()))
    }
}

impl Drop for QuicSend {
    fn drop(&mut self) {
        if !self.is_over {
            self.reset(0); // else quinn would end it cleanly
        }
    }
}

// === QuicReceive ===

impl ReceivePipe for QuicReceive {
    fn stop(&mut self, code: u16) {
        let _ = self.0.stop(VarInt::from_u32(sent_code(code))); // one that has ended needs no stop
    }
}

impl AsyncRead for QuicReceive {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(self.0.poll_read_buf(cx, buffer));
        Poll::Ready(read.map_err(|error| match error {
            ReadError::Reset(code) => reset_error(code.into_inner()),
            error => lost_error(error.to_string()),
        }))
    }
}
