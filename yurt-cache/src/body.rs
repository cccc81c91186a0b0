//! The one body type of requests and responses inside the hub.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;

use crate::tasks;

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

/// Makes a panic in a body the body's error: its client sees it break off, and no other client does.
pub(crate) fn contained(body: Body) -> Body {
    Contained(body).boxed_unsync()
}

struct Contained(Body);

impl http_body::Body for Contained {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match tasks::caught(|| Pin::new(&mut self.0).poll_frame(cx)) {
            Ok(polled) => polled,
            Err(panicked) => {
                self.0 = empty();
                Poll::Ready(Some(Err(panicked.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
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

    #[tokio::test]
    async fn a_body_that_panics_breaks_off() {
        let chunks = futures_util::stream::poll_fn(|_| {
            let broken: Option<Poll<Option<Result<_, BoxError>>>> = std::hint::black_box(None);
            broken.expect("the test's own")
        });
        let body = http_body_util::StreamBody::new(chunks).boxed_unsync();
        let mut body = contained(body);
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "it panicked: the test's own");
        assert!(body.frame().await.is_none());
    }

    #[test]
    fn a_full_body_knows_its_length() {
        assert_eq!(full("four").size_hint().exact(), Some(4));
    }
}
