//! A response's body that holds its place on the connection until it ends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::pool::Permit;
use crate::body::BoxError;

/// A body that gives its stream back when it ended, broke or was dropped.
#[derive(Debug)]
pub(super) struct Held {
    body: Incoming,
    permit: Option<Permit>,
}

impl Held {
    /// Ties the stream to the body.
    pub(super) fn new(body: Incoming, permit: Permit) -> Self {
        Self {
            body,
            permit: Some(permit),
        }
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.permit = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
