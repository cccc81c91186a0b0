//! A session on a carrier whose every first write has to wait.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::mpsc;
use yurt_core::testing::transport::{Pair, node, server};
use yurt_core::transport::{Priority, Traffic};

use super::Handle;
use crate::link::{Config, Role};
use crate::transport::pipe::{
    Carrier, Path, ReceivePipe, SendPipe, lost_error, reset_error, sent_code,
};

const LIMIT: u32 = 300;

/// One end of the carrier: pipes are begun at the one and taken at the other.
struct Slow {
    begun: Option<mpsc::UnboundedSender<Pipe>>,
    taken: tokio::sync::Mutex<Option<mpsc::UnboundedReceiver<Pipe>>>,
}

type Pipe = (SlowSend, SlowReceive);

/// The code by which a pipe was reset, and who waits to hear of it.
#[derive(Default)]
struct Fate {
    code: Option<u16>,
    waiting: Vec<Waker>,
}

struct SlowSend {
    bytes: WriteHalf<DuplexStream>,
    fate: Arc<Mutex<Fate>>,
    has_waited: bool,
    is_over: bool,
}

struct SlowReceive {
    bytes: ReadHalf<DuplexStream>,
    fate: Arc<Mutex<Fate>>,
}

async fn pair() -> Pair {
    let (begun, taken) = mpsc::unbounded_channel();
    let opening = Slow {
        begun: Some(begun),
        taken: tokio::sync::Mutex::new(None),
    };
    let accepting = Slow {
        begun: None,
        taken: tokio::sync::Mutex::new(Some(taken)),
    };
    let (server, node) = (server("cloud"), node("edge-1"));
    let config = Config {
        streams: LIMIT.into(),
        ..Config::default()
    };
    let (opener, acceptor) = tokio::join!(
        Handle::begin(opening, node.clone(), Role::Opener, config.clone()),
        Handle::begin(accepting, server.clone(), Role::Acceptor, config),
    );
    Pair {
        opener: Arc::new(opener.unwrap()),
        acceptor: Arc::new(acceptor.unwrap()),
        server,
        node,
        limit: LIMIT as usize,
        keep: Box::new(()),
    }
}

yurt_core::transport_clauses! { pair;
    an_open_arrives_as_it_was_requested,
    a_rejected_open_fails_with_the_kind_and_the_message,
    a_dropped_open_is_cancelled_at_the_peer,
    bytes_arrive_as_they_were_written,
    a_shutdown_ends_one_direction,
    a_reset_is_told_to_an_end_that_only_waits,
    a_dropped_accept_ends_the_stream,
}

fn pipe(end: DuplexStream, fate: &Arc<Mutex<Fate>>) -> Pipe {
    let (read, write) = split(end);
    let send = SlowSend {
        bytes: write,
        fate: fate.clone(),
        has_waited: false,
        is_over: false,
    };
    let receive = SlowReceive {
        bytes: read,
        fate: fate.clone(),
    };
    (send, receive)
}

impl Carrier for Slow {
    type Send = SlowSend;
    type Receive = SlowReceive;
    const TELLS_ARRIVAL: bool = false;

    async fn open(&self, _: Priority) -> io::Result<Pipe> {
        let (near, far) = duplex(64 << 10);
        let fate = Arc::default();
        let begun = self.begun.as_ref().unwrap().send(pipe(far, &fate));
        begun.map_err(|_| lost_error("the peer is gone"))?;
        Ok(pipe(near, &fate))
    }

    async fn accept(&self) -> io::Result<Pipe> {
        let mut taken = self.taken.lock().await;
        let pipe = taken.as_mut().unwrap().recv().await;
        pipe.ok_or_else(|| lost_error("the peer is gone"))
    }

    fn close(&self, _: &str) {}

    fn path(&self) -> Path {
        Path {
            remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 443)),
            round_trip: None,
            lost: 0,
            migrations: 0,
            wire: Traffic::default(),
        }
    }
}

// === Pipes ===

impl Fate {
    /// Fails what is done to a pipe that was reset, or wakes who does it when it is.
    fn check(&mut self, cx: &Context<'_>) -> io::Result<()> {
        match self.code {
            Some(code) => Err(reset_error(sent_code(code).into())),
            None => {
                self.waiting.retain(|waker| !waker.will_wake(cx.waker()));
                self.waiting.push(cx.waker().clone());
                Ok(())
            }
        }
    }
}

impl SendPipe for SlowSend {
    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self.fate.lock().check(cx) {
            Err(error) => Poll::Ready(error),
            Ok(()) => Poll::Pending,
        }
    }

    fn reset(&mut self, code: u16) {
        self.is_over = true;
        let mut fate = self.fate.lock();
        fate.code.get_or_insert(code);
        fate.waiting.drain(..).for_each(Waker::wake);
    }

    fn set_priority(&mut self, _: Priority) {}
}

impl AsyncWrite for SlowSend {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !std::mem::replace(&mut self.has_waited, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.fate.lock().check(cx)?;
        Pin::new(&mut self.bytes).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_over = true;
        Pin::new(&mut self.bytes).poll_shutdown(cx)
    }
}

impl Drop for SlowSend {
    fn drop(&mut self) {
        if !self.is_over {
            self.reset(0);
        }
    }
}

impl ReceivePipe for SlowReceive {
    fn stop(&mut self, _: u16) {}
}

impl AsyncRead for SlowReceive {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.fate.lock().check(cx)?;
        Pin::new(&mut self.bytes).poll_read(cx, buffer)
    }
}
