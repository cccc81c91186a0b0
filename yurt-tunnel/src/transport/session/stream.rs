//! A stream that stands: its owner's bytes, as far as the link gives credit.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use yurt_core::transport::{Error, ErrorKind, Priority, State, Stream};

use super::{Carrier, Core, Tail};
use crate::link::StreamId;
use crate::transport::pipe::{ReceivePipe, SendPipe, lost_error, transport_error};

/// The code of a stream whose owner dropped it.
const DROPPED: u16 = 0;

/// One end of a stream.
pub(super) struct TunnelStream<C: Carrier> {
    core: Arc<Core<C>>,
    id: StreamId,
    send: C::Send,
    receive: C::Receive,
    is_finished: bool,
    is_ended: bool,
    /// Why the stream is over before its end, once that is known.
    failure: Option<(ErrorKind, String)>,
}

impl<C: Carrier> TunnelStream<C> {
    pub(super) fn new(
        core: Arc<Core<C>>,
        id: StreamId,
        (send, receive): (C::Send, C::Receive),
    ) -> Self {
        Self {
            core,
            id,
            send,
            receive,
            is_finished: false,
            is_ended: false,
            failure: None,
        }
    }

    /// Ends the stream for the reason that the link knows, or else the one that the pipe says.
    fn fail(&mut self, error: &io::Error) -> io::Error {
        let said = transport_error(error);
        let (kind, message) = self.core.with(|inner, _| {
            let failure = inner
                .slots
                .get_mut(&self.id)
                .and_then(|slot| slot.failure.take());
            if let Some(failure) = failure {
                return failure;
            }
            match (said.kind(), inner.link.state()) {
                (ErrorKind::Closed, State::Closed { reason, .. }) => {
                    (ErrorKind::Closed, reason.clone())
                }
                (kind, _) => (kind, said.to_string()),
            }
        });
        if !matches!(kind, ErrorKind::Reset(_)) {
            self.send.reset(DROPPED);
            self.core
                .with(|inner, _| inner.link.reset(self.id, DROPPED));
        }
        self.over(kind, message)
    }

    fn over(&mut self, kind: ErrorKind, message: String) -> io::Error {
        self.core.with(|inner, _| inner.link.forget(self.id));
        let error = Error::new(kind, message.clone());
        self.failure = Some((kind, message));
        error.into()
    }

    fn end(&mut self, code: u16) {
        if self.failure.is_some() || (self.is_finished && self.is_ended) {
            return;
        }
        self.send.reset(code);
        self.receive.stop(code);
        self.core.with(|inner, _| inner.link.reset(self.id, code));
        let message = format!("the stream was reset with code {code}");
        let _ = self.over(ErrorKind::Reset(code), message);
    }

    /// Fails what is done to a stream that is over before its end.
    fn check(&self) -> io::Result<()> {
        match &self.failure {
            None => Ok(()),
            Some((kind, message)) => Err(Error::new(*kind, message.clone()).into()),
        }
    }

    /// Credit, or a place among those who wait for it.
    fn poll_credit(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let credit = self.core.with(|inner, now| {
            let credit = inner.link.use_credit(self.id, now);
            if credit > 0 {
                return Some(credit);
            }
            let slot = inner.slots.entry(self.id).or_default();
            if slot.failure.is_some() {
                return None;
            }
            if slot.writer.replace(cx.waker().clone()).is_none() {
                inner.link.stalled();
            }
            Some(0)
        });
        match credit {
            None => return Poll::Ready(Err(self.fail(&lost_error("the session has ended")))),
            Some(0) => {}
            Some(credit) => return Poll::Ready(Ok(usize::try_from(credit).unwrap_or(usize::MAX))),
        }
        let stopped = ready!(self.send.poll_stopped(cx));
        Poll::Ready(Err(self.fail(&stopped)))
    }
}

impl<C: Carrier> TunnelStream<C> {
    /// A reset that the pipe may not tell of: one of its connections is gone at the other end only.
    fn poll_reset_while_reading(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let is_reset = self.core.with(|inner, _| {
            let slot = inner.slots.entry(self.id).or_default();
            slot.reader = Some(cx.waker().clone());
            matches!(slot.failure, Some((ErrorKind::Reset(_), _)))
        });
        if is_reset {
            return Poll::Ready(self.fail(&lost_error("the stream was reset")));
        }
        Poll::Pending
    }
}

impl<C: Carrier> AsyncRead for TunnelStream<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        if self.is_ended || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut self.receive).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(self.fail(&error))),
            Poll::Pending => return self.poll_reset_while_reading(cx).map(Err),
        }
        let bytes = (buffer.filled().len() - before) as u64;
        let id = self.id;
        if bytes == 0 {
            self.is_ended = true;
            self.core.with(|inner, now| inner.link.ended(id, now));
            return Poll::Ready(Ok(()));
        }
        let received = self
            .core
            .with(|inner, now| inner.link.received(id, bytes, now));
        match received {
            Ok(Some(priority)) => self.send.set_priority(priority),
            Ok(None) => {}
            Err(error) => {
                self.receive.stop(DROPPED);
                return Poll::Ready(Err(self.fail(&error.into())));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<C: Carrier> AsyncWrite for TunnelStream<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        if self.is_finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let credit = ready!(self.poll_credit(cx))?;
        let allowed = &bytes[..bytes.len().min(credit)];
        let written = match ready!(Pin::new(&mut self.send).poll_write(cx, allowed)) {
            Ok(written) => written,
            Err(error) => return Poll::Ready(Err(self.fail(&error))),
        };
        let (id, count) = (self.id, written as u64);
        if let Some(priority) = self.core.with(|inner, now| inner.link.sent(id, count, now)) {
            self.send.set_priority(priority);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        if self.is_finished {
            return Poll::Ready(Ok(()));
        }
        let flushed = ready!(Pin::new(&mut self.send).poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| self.fail(&error)))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        if self.is_finished {
            return Poll::Ready(Ok(()));
        }
        if let Err(error) = ready!(Pin::new(&mut self.send).poll_shutdown(cx)) {
            return Poll::Ready(Err(self.fail(&error)));
        }
        self.is_finished = true;
        let id = self.id;
        self.core.with(|inner, now| inner.link.finished(id, now));
        Poll::Ready(Ok(()))
    }
}

impl<C: Carrier> Stream for TunnelStream<C> {
    fn id(&self) -> u64 {
        self.id
    }

    fn reset(&mut self, code: u16) {
        self.end(code);
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Err(error) = self.check() {
            return Poll::Ready(error);
        }
        if self.is_finished && self.is_ended {
            return Poll::Pending;
        }
        let has_failed = self.core.with(|inner, _| {
            let slot = inner.slots.entry(self.id).or_default();
            slot.watcher = Some(cx.waker().clone());
            match &slot.failure {
                Some((ErrorKind::Reset(_), _)) => true,
                // What the peer said to its end may have arrived.
                Some(_) => !self.is_finished,
                None => false,
            }
        });
        if has_failed {
            return Poll::Ready(self.fail(&lost_error("the session has ended")));
        }
        Poll::Pending
    }

    fn set_priority(&mut self, priority: Priority) {
        self.send.set_priority(priority);
    }
}

impl<C: Carrier> Drop for TunnelStream<C> {
    fn drop(&mut self) {
        let has_ended = self.failure.is_none() && self.is_finished && self.is_ended;
        if has_ended && let Some(arrival) = self.send.arrival() {
            let tail = Tail::new(&self.core);
            self.core.later(async move {
                arrival.await;
                drop(tail);
            });
        }
        self.end(DROPPED);
        self.core.with(|inner, _| inner.slots.remove(&self.id));
    }
}

impl<C: Carrier> fmt::Debug for TunnelStream<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
