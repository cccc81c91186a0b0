//! Sockets that tell of their end while nobody reads them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::End;

/// Tells when a socket is over as a whole, whatever of it is unread: both directions have ended, or it was reset.
///
/// It has a descriptor of its own, made when it is asked first: one that is not woken by bytes.
#[derive(Debug, Default)]
pub(crate) struct HangUp(Option<AsyncFd<OwnedFd>>);

/// A TCP connection as an end of a splice.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    hang_up: HangUp,
}

// === HangUp ===

impl HangUp {
    pub(crate) fn poll(&mut self, socket: &impl AsFd, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.is_none() {
            self.0 = watched(socket).ok();
        }
        // Without another descriptor the end is seen when something is written.
        let Some(watched) = &self.0 else {
            return Poll::Pending;
        };
        loop {
            let Ok(mut ready) = ready!(watched.poll_read_ready(cx)) else {
                return Poll::Ready(()); // the runtime ends
            };
            if ready.ready().is_read_closed() {
                return Poll::Ready(());
            }
            ready.clear_ready(); // urgent bytes
        }
    }
}

/// Of all that may happen to a socket only its end is reported to who waits for urgent bytes.
#[expect(
    deprecated,
    reason = "its successor is unsafe, for descriptors that may not stay what they are; an owned one does"
)]
fn watched(socket: &impl AsFd) -> io::Result<AsyncFd<OwnedFd>> {
    let descriptor = socket.as_fd().try_clone_to_owned()?;
    AsyncFd::with_interest(descriptor, Interest::PRIORITY)
}

// === Socket ===

impl From<TcpStream> for Socket {
    fn from(tcp: TcpStream) -> Self {
        Self {
            tcp,
            hang_up: HangUp::default(),
        }
    }
}

impl Socket {
    /// Returns the connection.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }
}

impl End for Socket {
    /// A reset. Two clean ends are none: what came before the peer's is there to be read.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.hang_up.poll(&self.tcp, cx));
        match SockRef::from(&self.tcp).take_error() {
            Ok(None) => Poll::Pending,
            Ok(Some(error)) | Err(error) => Poll::Ready(error),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
