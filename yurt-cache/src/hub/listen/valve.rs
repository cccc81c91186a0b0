//! Keeps an answer of HTTP/1.1 from piling up here for a client that does not read: hyper buffers as much of it as it
//! takes of a request's head.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use crate::body::{Body, BoxError};

/// Whether a connection takes more bytes now.
#[derive(Debug, Default)]
pub(super) struct Valve {
    is_shut: AtomicBool,
    waiting: AtomicWaker,
}

impl Valve {
    /// Notes whether the connection took what was written.
    pub(super) fn set(&self, is_shut: bool) {
        let was_shut = self.is_shut.swap(is_shut, Ordering::AcqRel);
        if was_shut && !is_shut {
            self.waiting.wake();
        }
    }
}

/// Ties an answer to the connection that it goes over.
pub(super) fn paced(body: Body, valve: Arc<Valve>) -> Body {
    Paced { body, valve }.boxed_unsync()
}

struct Paced {
    body: Body,
    valve: Arc<Valve>,
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.valve.waiting.register(cx.waker());
        if self.valve.is_shut.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::body;

    #[tokio::test]
    async fn an_answer_waits_while_its_connection_takes_nothing() {
        let valve = Arc::new(Valve::default());
        let mut answer = paced(body::full("text"), valve.clone());
        valve.set(true);
        assert!(answer.frame().now_or_never().is_none());
        let (frame, ()) = tokio::join!(answer.frame(), async {
            tokio::task::yield_now().await;
            valve.set(false);
        });
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "text");
        assert!(answer.frame().await.is_none());
    }
}
