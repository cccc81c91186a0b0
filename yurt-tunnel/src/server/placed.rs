//! A client's stream to a node, which has a place among those that clients may have.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use yurt_core::name::NodeName;
use yurt_core::transport::{Priority, Stream};

use crate::shares::Place;

/// A stream, and its place until it ends.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) stream: Box<dyn Stream>,
    pub(super) _place: Place<NodeName>,
}

impl Stream for Placed {
    fn id(&self) -> u64 {
        self.stream.id()
    }

    fn reset(&mut self, code: u16) {
        self.stream.reset(code);
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.stream.poll_reset(cx)
    }

    fn set_priority(&mut self, priority: Priority) {
        self.stream.set_priority(priority);
    }
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
