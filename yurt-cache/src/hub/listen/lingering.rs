//! The end of a connection. What its client still sends is read for a while: a kernel that closes over bytes that
//! nobody has read resets the connection, and with it goes the answer that the client has not read yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a client may go on sending after it was told that nobody listens.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes that are thrown away at a time.
const SCRAP: usize = 8 << 10;

/// A stream that reads on after its shutdown, until its client has closed as well, or [`LINGER`] is over.
#[derive(Debug)]
pub(super) struct Lingering<S> {
    stream: S,
    /// Set once nothing more is written.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Lingering<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            until: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let until = match &mut this.until {
            Some(until) => until,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                this.until.insert(Box::pin(sleep(LINGER)))
            }
        };
        let mut scrap = [0; SCRAP];
        while until.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut scrap);
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer));
            // A client that is gone has read what it wanted.
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn it_reads_until_the_client_has_closed() {
        let (mut client, server) = duplex(16);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { Lingering::new(server).shutdown().await });
        // More than fits: it is read, or this would wait for ever.
        client.write_all(&[0; 100_000]).await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(tasks.try_join_next().is_none());
        drop(client);
        tasks.join_next().await.unwrap().unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_closes_is_left() {
        let (_client, server) = duplex(16);
        let began = Instant::now();
        Lingering::new(server).shutdown().await.unwrap();
        assert!((LINGER..2 * LINGER).contains(&began.elapsed()));
    }
}
