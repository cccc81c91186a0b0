//! The client's end of a tunnel: plain on the unix socket, TLS on TCP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::unix::pipe::Receiver;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::answer::ESTABLISHED;
use super::head::{self, BadHead, MAX_HEAD_LEN};
use super::socket;
use crate::dial::Address;
use crate::splice::{End, HangUp};

/// Probes a silent client. One that does not read may stall for ever: no TCP_USER_TIMEOUT, which would end it.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// How long the target's first bytes wait for the client to read the head, where that cannot be seen.
const HEAD_READ_LIMIT: Duration = Duration::from_secs(2);

/// How long a refused client has to read the answer, and how much it may still send: closing a connection with
/// unread bytes resets it, which may overtake the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 256 << 10;

/// A client with its connection.
#[derive(Debug)]
pub(super) struct Client {
    end: Connection,
    /// What the target gets first: the bytes that came behind the head, or the request that is passed on.
    first_bytes: Bytes,
    /// Whether the request itself is passed on, so that nothing may follow it.
    is_single_request: bool,
    hang_up: HangUp,
    /// How long its last bytes may take to arrive once it is gone.
    orphan: Duration,
    /// Started when it was gone, or by the last of its bytes.
    orphaned: Option<Pin<Box<Sleep>>>,
    /// The head of the answer, until the client has read it.
    unread: Option<Unread>,
}

#[derive(Debug)]
struct Unread {
    closed: Receiver,
    patience: Pin<Box<Sleep>>,
}

#[derive(Debug)]
enum Connection {
    Socket(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why there is no head.
#[derive(Debug)]
pub(super) enum NoHead {
    /// The client hung up before it was complete.
    HungUp,
    Bad(BadHead),
}

impl Client {
    pub(super) fn plain(stream: UnixStream) -> Self {
        Self::new(Connection::Socket(stream))
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self::new(Connection::Tls(Box::new(stream)))
    }

    fn new(end: Connection) -> Self {
        Self {
            end,
            first_bytes: Bytes::new(),
            is_single_request: false,
            hang_up: HangUp::default(),
            orphan: Duration::ZERO,
            orphaned: None,
            unread: None,
        }
    }

    /// Reads the head of the request; the bytes behind it are kept for the target.
    pub(super) async fn head(&mut self) -> Result<Address, NoHead> {
        let mut bytes = BytesMut::with_capacity(512);
        loop {
            let room = (MAX_HEAD_LEN - bytes.len()) as u64;
            match (&mut self.end).take(room).read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return Err(NoHead::HungUp),
                Ok(_) => {}
            }
            if let Some(head) = head::head(&bytes).map_err(NoHead::Bad)? {
                let behind = bytes.split_off(head.len).freeze();
                self.first_bytes = match head.forward {
                    None => behind,
                    Some(_) if !behind.is_empty() => return Err(NoHead::Bad(BadHead::Body)),
                    Some(request) => {
                        self.is_single_request = true;
                        request
                    }
                };
                return Ok(head.address);
            }
        }
    }

    /// Returns when the client has ended its direction, even if bytes of it are unread.
    pub(super) async fn hung_up(&self) {
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        loop {
            let ready = match &self.end {
                Connection::Socket(stream) => stream.ready(Interest::PRIORITY).await,
                Connection::Tls(stream) => stream.get_ref().0.ready(Interest::PRIORITY).await,
            };
            if !ready.is_ok_and(|ready| !ready.is_read_closed()) {
                return;
            }
            let _until_it_is_new = match &self.end {
                Connection::Socket(stream) => stream.try_io(Interest::PRIORITY, nothing),
                Connection::Tls(stream) => stream.get_ref().0.try_io(Interest::PRIORITY, nothing),
            };
        }
    }

    /// Tells the client that the tunnel is open, if it asked for one. Nothing more is written until it has read that.
    pub(super) async fn establish(&mut self) -> io::Result<()> {
        if self.is_single_request {
            return Ok(());
        }
        match &mut self.end {
            Connection::Socket(stream) => {
                self.unread = Some(Unread {
                    closed: socket::send_apart(stream, ESTABLISHED).await?,
                    patience: Box::pin(tokio::time::sleep(HEAD_READ_LIMIT)),
                });
                Ok(())
            }
            // One record, and a flush so that the next has its own.
            Connection::Tls(stream) => {
                stream.write_all(ESTABLISHED).await?;
                stream.flush().await
            }
        }
    }

    /// Sends the answer that refuses the tunnel, and closes the connection.
    pub(super) async fn refuse(mut self, answer: &[u8]) {
        let farewell = async {
            self.end.write_all(answer).await?;
            self.end.flush().await?;
            self.end.shutdown().await?;
            let mut rest = (&mut self.end).take(LINGER_BYTES);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        // A client that does not read it does without.
        let _read_or_not = tokio::time::timeout(LINGER, farewell).await;
    }

    /// Sets how long to wait for the last bytes of a client that is gone.
    pub(super) fn set_orphan(&mut self, orphan: Duration) {
        self.orphan = orphan;
    }

    /// Resets the connection when it is dropped, so that nobody takes this for a clean end. A unix socket has no reset.
    pub(super) fn reset(&mut self) {
        if let Connection::Tls(stream) = &mut self.end {
            // Without the option the end is one without TLS's farewell.
            drop(SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO)));
        }
    }

    /// Waits until the client has read the head of the answer.
    fn poll_read_head(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(Unread { closed, patience }) = &mut self.unread {
            let mut nothing = [0];
            let ended = Pin::new(closed).poll_read(cx, &mut ReadBuf::new(&mut nothing));
            if ended.is_pending() {
                ready!(patience.as_mut().poll(cx));
            }
            self.unread = None;
        }
        Poll::Ready(())
    }
}

/// Prepares a socket for a tunnel: no byte waits for another, and a peer that is gone is noticed.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE)
}

impl End for Client {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        ready!(match &self.end {
            Connection::Socket(stream) => self.hang_up.poll(stream, cx),
            Connection::Tls(stream) => self.hang_up.poll(stream.get_ref().0, cx),
        });
        let orphan = self.orphan;
        let orphaned = self
            .orphaned
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(orphan)));
        ready!(orphaned.as_mut().poll(cx));
        Poll::Ready(io::Error::new(
            io::ErrorKind::BrokenPipe,
            "the client is gone",
        ))
    }
}

impl AsyncRead for Client {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.first_bytes.has_remaining() {
            let length = this.first_bytes.len().min(buf.remaining());
            buf.put_slice(&this.first_bytes.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.end).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            if this.is_single_request {
                let message = "a connection serves one request to an http:// address";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, message)));
            }
            this.orphaned = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_read_head(cx));
        Pin::new(&mut this.end).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().end).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().end).poll_shutdown(cx)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
