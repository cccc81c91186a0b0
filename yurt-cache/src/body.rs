//! The one body type of requests and responses inside the hub.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;

/// Whatever went wrong while a body was read.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A streaming body.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body of no bytes, which says so before it is read.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body whose bytes are at hand.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body that a peer is still sending.
pub(crate) fn incoming(body: Incoming) -> Body {
    body.map_err(BoxError::from).boxed_unsync()
}

/// Ties something to a body: it is dropped when the body has ended or is dropped.
pub(crate) fn holding<T: Send + Unpin + 'static>(body: Body, held: T) -> Body {
    Holding {
        body,
        held: Some(held),
    }
    .boxed_unsync()
}

struct Holding<T> {
    body: Body,
    held: Option<T>,
}

impl<T: Unpin> http_body::Body for Holding<T> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.held = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads a body that is small by nature, and no more of it than `limit`.
pub(crate) async fn read(mut body: Body, limit: usize) -> Result<Bytes, BoxError> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame?.into_data() else {
            continue;
        };
        if read.len() + chunk.len() > limit {
            return Err("the body is too long".into());
        }
        read.extend_from_slice(&chunk);
    }
    Ok(read.freeze())
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    #[test]
    fn an_empty_body_says_so_before_it_is_read() {
        assert!(empty().is_end_stream());
    }

    #[tokio::test]
    async fn what_a_body_holds_is_let_go_with_its_end() {
        let held = std::sync::Arc::new(());
        let mut body = holding(full("four"), held.clone());
        assert_eq!(body.size_hint().exact(), Some(4));
        assert!(body.frame().await.is_some());
        assert_eq!(std::sync::Arc::strong_count(&held), 2);
        assert!(body.frame().await.is_none());
        assert_eq!(std::sync::Arc::strong_count(&held), 1);
    }

    #[test]
    fn a_full_body_knows_its_length() {
        assert_eq!(full("four").size_hint().exact(), Some(4));
    }
}
