//! A stream: a connection of its own, which the session can fail.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use yurt_core::transport::{Error, ErrorKind, Priority, Stream};

use super::link::Link;

/// The code of a stream whose owner dropped it.
pub(super) const DROPPED: u16 = 0;

/// How long the code of a reset may be behind the reset itself.
const CODE_LIMIT: Duration = Duration::from_secs(5);

/// Why a stream has failed, and who waits to hear of it.
#[derive(Debug, Default)]
pub(super) struct Fate(Mutex<FateInner>);

#[derive(Debug, Default)]
struct FateInner {
    failure: Option<ErrorKind>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    watcher: Option<Waker>,
}

/// What an owner waits with.
#[derive(Clone, Copy, Debug)]
enum Half {
    Read,
    Write,
    Neither,
}

impl Fate {
    pub(super) fn fail(&self, why: ErrorKind) {
        let mut inner = self.0.lock();
        inner.failure.get_or_insert(why);
        let inner = &mut *inner;
        for waiting in [&mut inner.reader, &mut inner.writer, &mut inner.watcher] {
            if let Some(waker) = waiting.take() {
                waker.wake();
            }
        }
    }

    /// Waits, as a reader, for the failure.
    pub(super) fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<ErrorKind> {
        self.ask(Half::Read, cx).map_or(Poll::Pending, Poll::Ready)
    }

    /// Returns the failure, or wakes whoever asks when there is one.
    fn ask(&self, half: Half, cx: &Context<'_>) -> Option<ErrorKind> {
        let mut inner = self.0.lock();
        let waker = Some(cx.waker().clone());
        match half {
            Half::Read => inner.reader = waker,
            Half::Write => inner.writer = waker,
            Half::Neither => inner.watcher = waker,
        }
        inner.failure
    }
}

/// One end of a stream.
#[derive(Debug)]
pub(super) struct TcpTunnelStream {
    id: u64,
    link: Arc<Link>,
    fate: Arc<Fate>,
    socket: TcpStream,
    /// Both ends have ended their directions, or one has reset both.
    is_over: bool,
    is_shut: bool,
    is_ended: bool,
    is_stalled: bool,
    /// The connection is broken; why comes on the session's.
    broken: Option<Pin<Box<Sleep>>>,
}

impl TcpTunnelStream {
    pub(super) fn new(id: u64, link: Arc<Link>, fate: Arc<Fate>, socket: TcpStream) -> Self {
        Self {
            id,
            link,
            fate,
            socket,
            is_over: false,
            is_shut: false,
            is_ended: false,
            is_stalled: false,
            broken: None,
        }
    }

    fn check(&self, half: Half, cx: &Context<'_>) -> io::Result<()> {
        match self.fate.ask(half, cx) {
            Some(kind) if !self.is_over || kind != ErrorKind::Closed => Err(self.error(kind)),
            _ => Ok(()),
        }
    }

    fn error(&self, kind: ErrorKind) -> io::Error {
        let message = format!("stream {} has ended before its end", self.id);
        Error::new(kind, message).into()
    }

    /// Waits for the reason, but not for ever.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let broken = self
            .broken
            .get_or_insert_with(|| Box::pin(sleep(CODE_LIMIT)));
        ready!(broken.as_mut().poll(cx));
        self.reset(DROPPED);
        Poll::Ready(self.error(ErrorKind::Reset(DROPPED)))
    }

    /// Gives the stream's place to another when it has ended.
    fn settle(&mut self) {
        if self.is_shut && self.is_ended && !self.is_over {
            self.is_over = true;
            self.link.forget(self.id);
        }
    }
}

impl Stream for TcpTunnelStream {
    fn id(&self) -> u64 {
        self.id
    }

    fn reset(&mut self, code: u16) {
        if self.is_over {
            return;
        }
        self.is_over = true;
        self.link.reset(self.id, code);
        self.fate.fail(ErrorKind::Reset(code));
        // So that the kernel does not end the connection as if all was said.
        let _ = self.socket.set_zero_linger();
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self.check(Half::Neither, cx) {
            Err(error) => Poll::Ready(error),
            Ok(()) => Poll::Pending,
        }
    }

    fn set_priority(&mut self, _: Priority) {
        // The kernel shares the wire among connections.
    }
}

impl Drop for TcpTunnelStream {
    fn drop(&mut self) {
        self.reset(DROPPED);
    }
}

impl AsyncRead for TcpTunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(Half::Read, cx)?;
        let before = buf.filled().len();
        if self.is_ended || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let read = match self.broken {
            Some(_) => Err(io::ErrorKind::ConnectionReset.into()),
            None => ready!(Pin::new(&mut self.socket).poll_read(cx, buf)),
        };
        if read.is_err() {
            return self.poll_broken(cx).map(Err);
        }
        let len = buf.filled().len() - before;
        let received = &self.link.counts.received;
        received.fetch_add(len as u64, Ordering::Relaxed);
        self.is_ended = len == 0;
        self.settle();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TcpTunnelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(Half::Write, cx)?;
        let written = match self.broken {
            Some(_) => Err(io::ErrorKind::ConnectionReset.into()),
            None => match Pin::new(&mut self.socket).poll_write(cx, buf) {
                Poll::Ready(written) => written,
                Poll::Pending => {
                    if !std::mem::replace(&mut self.is_stalled, true) {
                        self.link.counts.stalls.fetch_add(1, Ordering::Relaxed);
                    }
                    return Poll::Pending;
                }
            },
        };
        self.is_stalled = false;
        match written {
            Ok(len) => {
                let sent = &self.link.counts.sent;
                sent.fetch_add(len as u64, Ordering::Relaxed);
                Poll::Ready(Ok(len))
            }
            Err(_) if self.is_shut => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Err(_) => self.poll_broken(cx).map(Err),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.check(Half::Write, cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(Half::Write, cx)?;
        if !self.is_shut {
            if ready!(Pin::new(&mut self.socket).poll_shutdown(cx)).is_err() {
                return self.poll_broken(cx).map(Err);
            }
            self.is_shut = true;
            self.settle();
        }
        Poll::Ready(Ok(()))
    }
}
