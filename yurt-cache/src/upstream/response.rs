//! A response's body that holds its place on the connection until it ends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
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
        let permit = Some(permit);
        let mut held = Self { body, permit };
        held.finish_at_end();
        held
    }

    /// Gives the stream back if nothing more can come: a reader that knows does not read on.
    fn finish_at_end(&mut self) {
        if self.body.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.finish();
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
        match &frame {
            None => self.finish(),
            Some(Ok(_)) => self.finish_at_end(),
            Some(Err(_)) => self.permit = None,
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
