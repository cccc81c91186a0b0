//! A request that is sent again where that is safe: its head, and what was read of its body so far.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;

use crate::body::{self, Body, BoxError};

/// Bytes of a body that are kept until the answer comes; a longer one is sent once.
const KEPT: u64 = 256 << 10;

/// What became of a request without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing of it left.
    Unsent,
    /// Its server says that it did not look at it.
    NotCarriedOut,
    /// It may have been carried out or not.
    Unknown,
}

/// A request and its attempts.
#[derive(Debug)]
pub(super) struct Replay {
    head: Parts,
    /// Nothing if there is no body.
    body: Option<Arc<Mutex<Kept>>>,
}

impl Replay {
    pub(super) fn new(request: Request<Body>) -> Self {
        let (head, body) = request.into_parts();
        let kept = (!body.is_end_stream()).then(|| Arc::new(Mutex::new(Kept::new(body))));
        Self { head, body: kept }
    }

    /// The request once more; nothing if its body is gone.
    pub(super) fn attempt(&self) -> Option<Request<Body>> {
        let body = match &self.body {
            None => body::empty(),
            Some(kept) => {
                let attempt = kept.lock().begin()?;
                let kept = kept.clone();
                Attempt { kept, attempt }.boxed_unsync()
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.head.uri.clone();
        *request.headers_mut() = self.head.headers.clone();
        Some(request)
    }

    /// Returns whether it may be sent again after that.
    pub(super) fn may_follow(&self, fate: Fate) -> bool {
        match fate {
            Fate::Unsent | Fate::NotCarriedOut => true,
            Fate::Unknown => {
                let is_read = matches!(self.head.method, Method::GET | Method::HEAD);
                is_read && self.body.is_none()
            }
        }
    }
}

impl Drop for Replay {
    /// There is no attempt after this one.
    fn drop(&mut self) {
        if let Some(kept) = &self.body {
            kept.lock().keep_no_more();
        }
    }
}

/// What was read of a body, and the rest of it.
struct Kept {
    read: Vec<Bytes>,
    /// How many of those the current attempt has sent.
    sent: usize,
    rest: Body,
    attempt: u32,
    keeps: bool,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept")
            .field("bytes", &self.length(0))
            .finish_non_exhaustive()
    }
}

impl Kept {
    fn new(rest: Body) -> Self {
        Self {
            read: Vec::new(),
            sent: 0,
            rest,
            attempt: 0,
            keeps: true,
        }
    }

    /// Begins at the start again, which ends the attempt before.
    fn begin(&mut self) -> Option<u32> {
        if !self.keeps {
            return None;
        }
        self.sent = 0;
        self.attempt += 1;
        Some(self.attempt)
    }

    fn keep_no_more(&mut self) {
        self.keeps = false;
        self.read.drain(..self.sent);
        self.sent = 0;
    }

    /// Bytes that were read, from one place on.
    fn length(&self, from: usize) -> u64 {
        let lengths = self.read.iter().skip(from).map(|chunk| chunk.len() as u64);
        lengths.sum()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(chunk) = self.read.get(self.sent).cloned() {
            if self.keeps {
                self.sent += 1;
            } else {
                self.read.remove(0);
            }
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        let frame = ready!(Pin::new(&mut self.rest).poll_frame(cx));
        if frame.is_none() {
            // The next attempt asks again.
            self.rest = body::empty();
        }
        if let (true, Some(Ok(frame))) = (self.keeps, &frame) {
            match frame.data_ref() {
                Some(chunk) if self.length(0) + chunk.len() as u64 <= KEPT => {
                    self.read.push(chunk.clone());
                    self.sent += 1;
                }
                // Too much, or trailers, which no client of Kubernetes sends.
                _ => self.keep_no_more(),
            }
        }
        Poll::Ready(frame)
    }
}

/// The body of one attempt.
struct Attempt {
    kept: Arc<Mutex<Kept>>,
    attempt: u32,
}

impl http_body::Body for Attempt {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut kept = self.kept.lock();
        if kept.attempt != self.attempt {
            return Poll::Ready(Some(Err("the request was sent again".into())));
        }
        kept.poll_next(cx)
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.kept.lock();
        kept.sent == kept.read.len() && kept.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let kept = self.kept.lock();
        let (read, rest) = (kept.length(kept.sent), kept.rest.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + read);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + read);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::channel::Channel;

    use super::*;

    fn post(body: Body) -> Replay {
        Replay::new(Request::post("/x").body(body).unwrap())
    }

    async fn text(request: Request<Body>) -> Bytes {
        request.into_body().collect().await.unwrap().to_bytes()
    }

    async fn chunk(request: &mut Request<Body>) -> Bytes {
        let frame = request.body_mut().frame().await.unwrap().unwrap();
        frame.into_data().unwrap()
    }

    #[tokio::test]
    async fn what_was_half_sent_is_sent_whole_again() {
        let (mut sender, channel) = Channel::<Bytes, BoxError>::new(2);
        let replay = post(channel.boxed_unsync());
        sender.send_data("one ".into()).await.unwrap();
        let mut first = replay.attempt().unwrap();
        assert_eq!(chunk(&mut first).await, "one ");
        let second = replay.attempt().unwrap();
        first.body_mut().frame().await.unwrap().unwrap_err();
        sender.send_data("two".into()).await.unwrap();
        drop(sender);
        assert_eq!(text(second).await, "one two");
        let third = replay.attempt().unwrap();
        assert_eq!(third.body().size_hint().lower(), 7);
        drop(replay);
        assert_eq!(text(third).await, "one two");
    }

    #[tokio::test]
    async fn a_body_with_a_length_keeps_it() {
        let replay = post(body::full("seven b"));
        for _ in 0..2 {
            let request = replay.attempt().unwrap();
            assert_eq!(request.body().size_hint().exact(), Some(7));
            assert_eq!(text(request).await, "seven b");
        }
    }

    #[tokio::test]
    async fn a_long_body_is_sent_once_and_not_kept() {
        let long = vec![b'x'; usize::try_from(KEPT).unwrap() + 1];
        let replay = post(body::full(long.clone()));
        assert_eq!(text(replay.attempt().unwrap()).await, long);
        assert!(replay.attempt().is_none());
        assert_eq!(replay.body.as_ref().unwrap().lock().length(0), 0);
    }

    #[test]
    fn only_a_read_is_sent_again_when_nobody_knows() {
        let get = || Request::get("/x");
        let table = [
            (get().body(body::empty()), true),
            (get().body(body::full("query")), false),
            (Request::head("/x").body(body::empty()), true),
            (Request::delete("/x").body(body::empty()), false),
            (Request::post("/x").body(body::full("x")), false),
        ];
        for (request, is_repeated) in table {
            let replay = Replay::new(request.unwrap());
            assert_eq!(replay.may_follow(Fate::Unknown), is_repeated, "{replay:?}");
            assert!(replay.may_follow(Fate::Unsent) && replay.may_follow(Fate::NotCarriedOut));
        }
    }
}
