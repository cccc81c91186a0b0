//! A pipe over HTTP/2: one stream, or two of which the second goes on where the first has ended.
//!
//! A direction that moves ends its first stream with the trailer `yurt-moved`, and goes on in the second.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use ::h2::client::ResponseFuture;
use ::h2::server::SendResponse;
use ::h2::{Reason, RecvStream, SendStream};
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use yurt_core::transport::Priority;

use super::second::Mover;
use crate::transport::pipe::{ReceivePipe, SendPipe, lost_error, reset_error, sent_code};

const MOVED: HeaderName = HeaderName::from_static("yurt-moved");

/// The peer's direction of one stream.
pub(super) enum Leg {
    /// This end is the client, and its request has no response yet.
    Asked(ResponseFuture),
    /// Bytes arrive.
    Open(RecvStream),
}

/// What the two directions of a pipe share.
pub(super) struct Shared {
    /// How to move, for the end that can.
    mover: Option<Mover>,
    next: Mutex<Next>,
}

/// Where a pipe goes on.
#[derive(Default)]
struct Next {
    is_wanted: bool,
    is_done: bool,
    /// This end's direction is over, and so has nothing to say in a second stream.
    is_over: bool,
    send: Option<SendStream<Bytes>>,
    receive: Option<Leg>,
    reader: Option<Waker>,
    /// The connection is gone, and with it whatever was to come.
    is_lost: bool,
}

/// This end's direction of a pipe.
pub(super) struct H2Send {
    stream: SendStream<Bytes>,
    /// What the pipe has moved away from, to be reset with it.
    left: Option<SendStream<Bytes>>,
    shared: Arc<Shared>,
    is_over: bool,
}

/// The peer's direction of a pipe.
pub(super) struct H2Receive {
    leg: Leg,
    shared: Arc<Shared>,
    unread: Bytes,
    /// The first stream has ended by moving; trailers are told once.
    has_moved: bool,
    is_ended: bool,
}

/// Makes a pipe of a stream.
pub(super) fn pipe(
    stream: SendStream<Bytes>,
    leg: Leg,
    mover: Option<Mover>,
) -> (H2Send, H2Receive) {
    let shared = Arc::new(Shared {
        mover,
        next: Mutex::default(),
    });
    let send = H2Send {
        stream,
        left: None,
        shared: shared.clone(),
        is_over: false,
    };
    let receive = H2Receive {
        leg,
        shared,
        unread: Bytes::new(),
        has_moved: false,
        is_ended: false,
    };
    (send, receive)
}

// === Shared ===

impl Shared {
    /// Gives the pipe the second stream that the peer has begun. A direction that is over ends in it at once.
    pub(super) fn go_on(&self, request: RecvStream, mut respond: SendResponse<Bytes>) {
        let mut next = self.next.lock();
        next.is_done = true;
        // One that is reset already can only be read, to learn why.
        next.send = respond.send_response(Response::new(()), next.is_over).ok();
        next.receive = Some(Leg::Open(request));
        if let Some(reader) = next.reader.take() {
            reader.wake();
        }
    }

    /// Fails a pipe of which a part was on a connection that has ended.
    pub(super) fn lose(&self) {
        let mut next = self.next.lock();
        next.is_lost = true;
        if let Some(reader) = next.reader.take() {
            reader.wake();
        }
    }

    /// Moves if that is wanted and possible by now.
    fn move_if_wanted(self: &Arc<Self>) {
        let Some(mover) = &self.mover else {
            return;
        };
        let mut next = self.next.lock();
        if next.is_wanted
            && !next.is_done
            && let Some((send, response)) = mover.second(self, next.is_over)
        {
            next.is_done = true;
            next.send = Some(send);
            next.receive = Some(Leg::Asked(response));
        }
    }

    /// The direction ends; returns where, if the pipe has moved.
    fn finish(&self) -> Option<SendStream<Bytes>> {
        let mut next = self.next.lock();
        next.is_over = true;
        next.send.take()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let unread = self.next.get_mut().receive.take();
        if let (Some(mover), Some(leg)) = (&self.mover, unread) {
            // Dropped before its end, the second stream would be reset, with what the peer has not read of it.
            mover.read_out(leg);
        }
    }
}

impl Leg {
    /// Reads to the end, whatever comes.
    pub(super) async fn read_out(self) {
        let mut stream = match self {
            Self::Open(stream) => stream,
            Self::Asked(response) => match response.await {
                Ok(response) => response.into_body(),
                Err(_) => return,
            },
        };
        while let Some(Ok(_)) = stream.data().await {}
    }
}

// === H2Send ===

impl H2Send {
    /// What the peer needs to move the pipe.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Goes on in the second stream, if there is one.
    fn follow(&mut self) {
        self.shared.move_if_wanted();
        let next = self.shared.next.lock().send.take();
        if let Some(next) = next {
            self.go_on(next);
        }
    }

    fn go_on(&mut self, next: SendStream<Bytes>) {
        let mut trailers = HeaderMap::new();
        trailers.insert(MOVED, HeaderValue::from_static("1"));
        let mut left = std::mem::replace(&mut self.stream, next);
        let _ = left.send_trailers(trailers); // one that is reset tells by itself
        self.left = Some(left);
    }
}

impl SendPipe for H2Send {
    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        Poll::Ready(match ready!(self.stream.poll_reset(cx)) {
            Ok(reason) => reset_error(u32::from(reason).into()),
            Err(error) => failed(&error),
        })
    }

    fn reset(&mut self, code: u16) {
        self.is_over = true;
        let reason = Reason::from(sent_code(code));
        let next = {
            let mut next = self.shared.next.lock();
            next.receive = None;
            next.send.take()
        };
        self.stream.send_reset(reason);
        for mut stream in [self.left.take(), next].into_iter().flatten() {
            stream.send_reset(reason);
        }
    }

    fn set_priority(&mut self, priority: Priority) {
        if priority == Priority::Bulk && self.shared.mover.is_some() {
            self.shared.next.lock().is_wanted = true;
            self.shared.move_if_wanted();
        }
    }
}

impl AsyncWrite for H2Send {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.follow();
        self.stream.reserve_capacity(bytes.len());
        let capacity = loop {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(0)) => {} // taken back meanwhile
                Some(Ok(capacity)) => break capacity.min(bytes.len()),
                Some(Err(error)) => return Poll::Ready(Err(failed(&error))),
                None => {
                    // Nothing can be sent any more: the reset says why.
                    return Poll::Ready(Err(ready!(self.poll_stopped(cx))));
                }
            }
        };
        let piece = Bytes::copy_from_slice(&bytes[..capacity]);
        match self.stream.send_data(piece, false) {
            Ok(()) => Poll::Ready(Ok(capacity)),
            Err(_) => Poll::Ready(Err(ready!(self.poll_stopped(cx)))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.move_if_wanted();
        if let Some(next) = self.shared.finish() {
            self.go_on(next);
        }
        self.is_over = true;
        let _ = self.stream.send_data(Bytes::new(), true); // one that is reset is over all the same
        Poll::Ready(Ok(()))
    }
}

impl Drop for H2Send {
    fn drop(&mut self) {
        if !self.is_over {
            self.reset(0);
        }
    }
}

// === H2Receive ===

impl ReceivePipe for H2Receive {
    /// HTTP/2 resets both directions at once, which the other half does; this one is only no longer read.
    fn stop(&mut self, _: u16) {}
}

impl H2Receive {
    /// Goes on in the second stream, when there is one.
    fn poll_follow(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let leg = self.shared.next.lock().receive.take();
        let Some(leg) = leg else {
            return self.poll_lost(cx).map(Err);
        };
        self.leg = leg;
        self.has_moved = false;
        Poll::Ready(Ok(()))
    }

    /// Waits for the end of a connection that would not be seen otherwise.
    fn poll_lost(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut next = self.shared.next.lock();
        if next.is_lost {
            return Poll::Ready(lost_error("the connection is gone"));
        }
        next.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Bytes, or none at the end of both streams.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            if self.has_moved {
                ready!(self.poll_follow(cx))?;
            }
            let stream = match &mut self.leg {
                Leg::Open(stream) => stream,
                Leg::Asked(response) => {
                    let response = ready!(Pin::new(response).poll(cx));
                    let response = response.map_err(|error| failed(&error))?;
                    self.leg = Leg::Open(response.into_body());
                    continue;
                }
            };
            match ready!(stream.poll_data(cx)) {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => return Poll::Ready(Ok(Some(bytes))),
                Some(Err(error)) => return Poll::Ready(Err(failed(&error))),
                None => {
                    let trailers =
                        ready!(stream.poll_trailers(cx)).map_err(|error| failed(&error))?;
                    if !trailers.is_some_and(|trailers| trailers.contains_key(MOVED)) {
                        return Poll::Ready(Ok(None));
                    }
                    self.has_moved = true;
                }
            }
        }
    }
}

impl AsyncRead for H2Receive {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_ended {
            return Poll::Ready(Ok(()));
        }
        if self.unread.is_empty() {
            self.shared.move_if_wanted();
            match self.poll_bytes(cx)? {
                Poll::Ready(Some(bytes)) => self.unread = bytes,
                Poll::Ready(None) => {
                    self.is_ended = true;
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => return self.poll_lost(cx).map(Err),
            }
        }
        let count = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..count]);
        self.unread.advance(count);
        if let Leg::Open(stream) = &mut self.leg {
            let _ = stream.flow_control().release_capacity(count); // of a stream that is over
        }
        Poll::Ready(Ok(()))
    }
}

fn failed(error: &::h2::Error) -> io::Error {
    match error.reason() {
        Some(reason) if error.is_reset() => reset_error(u32::from(reason).into()),
        _ => lost_error(error.to_string()),
    }
}
