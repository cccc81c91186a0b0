//! A stream in memory: a bounded buffer for each direction, which ends, or fails, for both ends at once.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use crate::transport::{Error, ErrorKind, Priority, Stream};

/// Bytes that a writer may be ahead of its reader.
pub(super) const WINDOW: usize = 64 << 10;

/// The code of a stream whose owner dropped it.
const DROPPED: u16 = 0;

/// One of a session's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Opener,
    Acceptor,
}

impl Side {
    fn peer(self) -> Self {
        match self {
            Self::Opener => Self::Acceptor,
            Self::Acceptor => Self::Opener,
        }
    }
}

/// What one end has counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) reset: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) stalls: AtomicU64,
}

/// The two ends' counts, by [`Side`].
#[derive(Debug, Default)]
pub(super) struct BothCounts([Counts; 2]);

impl BothCounts {
    pub(super) fn of(&self, side: Side) -> &Counts {
        &self.0[side as usize]
    }
}

/// What both ends of a stream share.
#[derive(Debug)]
pub(super) struct Channel {
    id: u64,
    counts: Arc<BothCounts>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// By the [`Side`] that writes.
    pipes: [Pipe; 2],
    failure: Option<ErrorKind>,
    /// Who waits for a failure, by [`Side`].
    watchers: [Option<Waker>; 2],
    /// The stream's place among those of the session, until it has ended.
    permit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    is_shut: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn has_ended(&self) -> bool {
        self.is_shut && self.bytes.is_empty()
    }

    fn wake(&mut self) {
        for waker in self.reader.take().into_iter().chain(self.writer.take()) {
            waker.wake();
        }
    }
}

impl Channel {
    pub(super) fn new(id: u64, counts: Arc<BothCounts>, permit: OwnedSemaphorePermit) -> Self {
        Self {
            id,
            counts,
            inner: Mutex::new(Inner {
                pipes: <[Pipe; 2]>::default(),
                failure: None,
                watchers: [None, None],
                permit: Some(permit),
            }),
        }
    }

    /// Fails what both ends do from now on, unless all has been done.
    pub(super) fn fail(&self, why: ErrorKind) {
        let mut inner = self.inner();
        if inner.has_ended() || inner.failure.is_some() {
            return;
        }
        inner.failure = Some(why);
        inner.permit = None;
        for pipe in &mut inner.pipes {
            pipe.bytes = VecDeque::new();
            pipe.wake();
        }
        for watcher in inner.watchers.iter_mut().filter_map(Option::take) {
            watcher.wake();
        }
        if matches!(why, ErrorKind::Reset(_)) {
            for side in [Side::Opener, Side::Acceptor] {
                self.counts.of(side).reset.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }
}

impl Inner {
    fn pipe(&mut self, writer: Side) -> &mut Pipe {
        &mut self.pipes[writer as usize]
    }

    fn has_ended(&self) -> bool {
        self.pipes.iter().all(Pipe::has_ended)
    }

    /// Gives the stream's place to another if it has ended.
    fn settle(&mut self) {
        if self.has_ended() {
            self.permit = None;
        }
    }
}

// === MemoryStream ===

/// One end of a stream.
#[derive(Debug)]
pub(super) struct MemoryStream {
    channel: Arc<Channel>,
    side: Side,
}

impl MemoryStream {
    pub(super) fn new(channel: Arc<Channel>, side: Side) -> Self {
        Self { channel, side }
    }

    fn check(&self, inner: &Inner) -> io::Result<()> {
        let Some(kind) = inner.failure else {
            return Ok(());
        };
        let id = self.channel.id;
        let message = match kind {
            ErrorKind::Reset(code) => format!("stream {id} was reset with code {code}"),
            _ => format!("stream {id} ended with its session"),
        };
        Err(Error::new(kind, message).into())
    }
}

impl Stream for MemoryStream {
    fn id(&self) -> u64 {
        self.channel.id
    }

    fn reset(&mut self, code: u16) {
        self.channel.fail(ErrorKind::Reset(code));
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut inner = self.channel.inner();
        match self.check(&inner) {
            Err(error) => Poll::Ready(error),
            Ok(()) => {
                inner.watchers[self.side as usize] = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn set_priority(&mut self, _: Priority) {
        // Nobody has to wait for another here.
    }
}

impl AsyncRead for MemoryStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.channel.inner();
        self.check(&inner)?;
        let pipe = inner.pipe(self.side.peer());
        if pipe.bytes.is_empty() && !pipe.is_shut && buf.remaining() > 0 {
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let (front, _) = pipe.bytes.as_slices();
        let len = front.len().min(buf.remaining());
        buf.put_slice(&front[..len]);
        pipe.bytes.drain(..len);
        if let Some(writer) = pipe.writer.take_if(|_| len > 0) {
            writer.wake();
        }
        inner.settle();
        let received = &self.channel.counts.of(self.side).received;
        received.fetch_add(len as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.channel.inner();
        self.check(&inner)?;
        let counts = self.channel.counts.of(self.side);
        let pipe = inner.pipe(self.side);
        if pipe.is_shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let len = buf.len().min(WINDOW - pipe.bytes.len());
        if len == 0 && !buf.is_empty() {
            if pipe.writer.replace(cx.waker().clone()).is_none() {
                counts.stalls.fetch_add(1, Ordering::Relaxed);
            }
            return Poll::Pending;
        }
        pipe.bytes.extend(&buf[..len]);
        if let Some(reader) = pipe.reader.take_if(|_| len > 0) {
            reader.wake();
        }
        counts.sent.fetch_add(len as u64, Ordering::Relaxed);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.check(&self.channel.inner()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        let mut inner = self.channel.inner();
        let pipe = inner.pipe(self.side);
        pipe.is_shut = true;
        pipe.wake();
        inner.settle();
        Poll::Ready(Ok(()))
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        let is_done = {
            let mut inner = self.channel.inner();
            inner.pipe(self.side).is_shut && inner.pipe(self.side.peer()).has_ended()
        };
        if !is_done {
            self.channel.fail(ErrorKind::Reset(DROPPED));
        }
    }
}
