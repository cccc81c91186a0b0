//! Connections that bytes take their time on; none is lost, and none overtakes another of its pipe.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use yurt_core::transport::{Priority, Traffic};

use super::Road;
use crate::transport::pipe::{Carrier, Path, ReceivePipe, SendPipe, lost_error};

type Pipe = (AirSend, AirReceive);

/// One end of a connection.
pub(super) struct AirCarrier {
    road: Road,
    remote: SocketAddr,
    gone: CancellationToken,
    begins: mpsc::UnboundedSender<Pipe>,
    begun: tokio::sync::Mutex<mpsc::UnboundedReceiver<Pipe>>,
}

/// This end's direction of a pipe.
pub(super) struct AirSend {
    road: Road,
    last: Instant,
    sent: Option<mpsc::UnboundedSender<Piece>>,
}

/// The peer's direction of a pipe.
pub(super) struct AirReceive {
    pieces: mpsc::UnboundedReceiver<Piece>,
    next: Option<(Pin<Box<Sleep>>, Bytes)>,
}

/// What arrives when; the end of a direction is an empty one.
type Piece = (Instant, Bytes);

/// Both ends of a connection: that at `own`, and that at the other address.
pub(super) fn connection(
    road: &Road,
    (own, other): (SocketAddr, SocketAddr),
) -> (AirCarrier, AirCarrier) {
    let gone = CancellationToken::new();
    let (to, from) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let end = |remote, begins, begun| AirCarrier {
        road: road.clone(),
        remote,
        gone: gone.clone(),
        begins,
        begun: tokio::sync::Mutex::new(begun),
    };
    (end(other, to.0, from.1), end(own, from.0, to.1))
}

impl Drop for AirCarrier {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

impl Carrier for AirCarrier {
    type Send = AirSend;
    type Receive = AirReceive;
    const TELLS_ARRIVAL: bool = false;

    async fn open(&self, _: Priority) -> io::Result<Pipe> {
        let direction = || {
            let (sent, pieces) = mpsc::unbounded_channel();
            let send = AirSend {
                road: self.road.clone(),
                last: Instant::now(),
                sent: Some(sent),
            };
            (send, AirReceive { pieces, next: None })
        };
        let ((our_send, their_receive), (their_send, our_receive)) = (direction(), direction());
        let begun = self.begins.send((their_send, their_receive));
        begun.map_err(|_| lost_error("the peer has hung up"))?;
        Ok((our_send, our_receive))
    }

    async fn accept(&self) -> io::Result<Pipe> {
        let mut begun = self.begun.lock().await;
        tokio::select! {
            Some(pipe) = begun.recv() => Ok(pipe),
            () = self.gone.cancelled() => Err(lost_error("the peer has hung up")),
        }
    }

    fn close(&self, _: &str) {
        self.gone.cancel();
    }

    fn path(&self) -> Path {
        Path {
            remote: self.remote,
            round_trip: None,
            lost: 0,
            migrations: 0,
            wire: Traffic::default(),
        }
    }
}

impl SendPipe for AirSend {
    fn poll_stopped(&mut self, _: &mut Context<'_>) -> Poll<io::Error> {
        Poll::Pending
    }

    fn reset(&mut self, _: u16) {
        self.sent = None;
    }

    fn set_priority(&mut self, _: Priority) {}
}

impl AirSend {
    fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        let lost = || lost_error("the peer has hung up");
        self.last = self.last.max(self.road.arrival());
        let sent = self.sent.as_ref().ok_or_else(lost)?;
        sent.send((self.last, bytes)).map_err(|_| lost())
    }
}

impl AsyncWrite for AirSend {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = self.send(Bytes::copy_from_slice(bytes));
        Poll::Ready(sent.map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = self.send(Bytes::new()); // nobody is there to be told
        self.sent = None;
        Poll::Ready(Ok(()))
    }
}

impl ReceivePipe for AirReceive {
    fn stop(&mut self, _: u16) {
        self.pieces.close();
    }
}

impl AsyncRead for AirReceive {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.next.is_none() {
            let Some((at, bytes)) = ready!(self.pieces.poll_recv(cx)) else {
                return Poll::Ready(Err(lost_error("the peer has hung up")));
            };
            self.next = Some((Box::pin(sleep_until(at)), bytes));
        }
        let Some((arrival, bytes)) = &mut self.next else {
            return Poll::Pending;
        };
        ready!(arrival.as_mut().poll(cx));
        let length = bytes.len().min(buffer.remaining());
        buffer.put_slice(&bytes.split_to(length));
        // The end stays the end.
        if length > 0 && bytes.is_empty() {
            self.next = None;
        }
        Poll::Ready(Ok(()))
    }
}
