//! A socket under TLS, and how many bytes have passed it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use yurt_core::transport::Traffic;

/// Bytes that have passed one connection, or all of a session's.
#[derive(Debug, Default)]
pub(super) struct Wire {
    sent: AtomicU64,
    received: AtomicU64,
    /// Where more is counted, once it is known whose connection it is.
    session: OnceLock<Arc<Self>>,
}

impl Wire {
    pub(super) fn traffic(&self) -> Traffic {
        Traffic {
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
        }
    }

    /// Counts towards a session from now on, together with what has passed so far.
    pub(super) fn join(&self, session: &Arc<Self>) {
        if self.session.set(session.clone()).is_ok() {
            let before = self.traffic();
            session.count(before.sent, before.received);
        }
    }

    fn count(&self, sent: u64, received: u64) {
        let counted = self.session.get().map_or(self, Arc::as_ref);
        counted.sent.fetch_add(sent, Ordering::Relaxed);
        counted.received.fetch_add(received, Ordering::Relaxed);
    }
}

/// A socket that counts.
#[derive(Debug)]
pub(super) struct CountedStream {
    inner: TcpStream,
    wire: Arc<Wire>,
}

impl CountedStream {
    pub(super) fn new(inner: TcpStream, wire: Arc<Wire>) -> Self {
        Self { inner, wire }
    }

    fn sent(&self, written: io::Result<usize>) -> Poll<io::Result<usize>> {
        if let Ok(bytes) = written {
            self.wire.count(bytes as u64, 0);
        }
        Poll::Ready(written)
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let bytes = buffer.filled().len() - before;
        self.wire.count(0, bytes as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes));
        self.sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, pieces));
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
