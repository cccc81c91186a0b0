//! A request's body on its way to the cloud: no longer than the server takes, and no slower than it waits.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, Sleep};

use crate::body::{Body, BoxError};
use crate::codec::Status;

/// How long the hub waits for the bytes of a body, all waits together: as kube-apiserver's `--request-timeout`.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a body was given up, for whoever answers its sender.
#[derive(Clone, Debug, Default)]
pub(super) struct UploadFault(Arc<OnceLock<Fault>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("the body is longer than {0} bytes")]
    TooLong(u64),
    #[error("the body did not come in time")]
    TooSlow,
}

impl UploadFault {
    /// Returns what the sender is told, if its body was given up.
    pub(super) fn status(&self) -> Option<Status> {
        self.0.get().map(|fault| match fault {
            Fault::TooLong(limit) => Status::too_large(*limit),
            Fault::TooSlow => Status::request_timeout(),
        })
    }
}

/// Returns the refusal of a body that says itself that it is too long.
pub(super) fn check_length(headers: &HeaderMap, limit: u64) -> Result<(), Status> {
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok());
    match length {
        Some(length) if length > limit => Err(Status::too_large(limit)),
        Some(_) | None => Ok(()),
    }
}

/// Bounds a body; the fault tells afterwards whether it kept to it.
pub(super) fn bounded(body: Body, limit: u64) -> (Body, UploadFault) {
    let fault = UploadFault::default();
    let bounded = Upload {
        body,
        limit,
        left: limit,
        patience: PATIENCE,
        waiting: None,
        fault: fault.clone(),
    };
    (bounded.boxed_unsync(), fault)
}

struct Upload {
    body: Body,
    limit: u64,
    left: u64,
    patience: Duration,
    /// Since when the next bytes are waited for, and until when at most.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    fault: UploadFault,
}

impl Upload {
    fn give_up(&self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let fault = *self.fault.0.get_or_init(|| fault);
        Poll::Ready(Some(Err(fault.into())))
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending => {
                let patience = this.patience;
                let (_, end) = this.waiting.get_or_insert_with(|| {
                    (Instant::now(), Box::pin(tokio::time::sleep(patience)))
                });
                std::task::ready!(end.as_mut().poll(cx));
                this.give_up(Fault::TooSlow)
            }
            Poll::Ready(frame) => {
                if let Some((since, _)) = this.waiting.take() {
                    this.patience = this.patience.saturating_sub(since.elapsed());
                }
                let data = frame
                    .as_ref()
                    .and_then(|frame| frame.as_ref().ok()?.data_ref());
                let length = data.map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
                match this.left.checked_sub(length) {
                    None => this.give_up(Fault::TooLong(this.limit)),
                    Some(left) => {
                        this.left = left;
                        Poll::Ready(frame)
                    }
                }
            }
        }
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
    use http_body_util::Channel;

    use super::*;

    fn channel() -> (http_body_util::channel::Sender<Bytes>, Body) {
        let (sender, body) = Channel::<Bytes>::new(8);
        (sender, body.map_err(|never| match never {}).boxed_unsync())
    }

    async fn send(sender: &mut http_body_util::channel::Sender<Bytes>, text: &'static str) {
        sender.send_data(text.into()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_within_its_bounds_passes_whole() {
        let (mut sender, body) = channel();
        let (body, fault) = bounded(body, 6);
        send(&mut sender, "one").await;
        send(&mut sender, "two").await;
        drop(sender);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "onetwo");
        assert_eq!(fault.status(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_too_long_ends_before_it_is_passed_on() {
        let (mut sender, body) = channel();
        let (mut body, fault) = bounded(body, 5);
        send(&mut sender, "one").await;
        send(&mut sender, "two").await;
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(fault.status().unwrap().code, 413);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up_when_all_waits_together_are_too_long() {
        let (mut sender, body) = channel();
        let (mut body, fault) = bounded(body, 1_000);
        for _ in 0..5 {
            let trickle = async {
                tokio::time::sleep(PATIENCE / 6).await;
                send(&mut sender, "x").await;
            };
            let (frame, ()) = tokio::join!(body.frame(), trickle);
            assert!(frame.unwrap().is_ok());
        }
        let began = Instant::now();
        assert!(body.frame().await.unwrap().is_err());
        assert!(began.elapsed() <= PATIENCE / 5);
        assert_eq!(fault.status().unwrap().code, 408);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cloud_that_takes_its_time_is_not_the_senders_fault() {
        let (mut sender, body) = channel();
        let (mut body, _) = bounded(body, 1_000);
        for _ in 0..3 {
            send(&mut sender, "x").await;
            tokio::time::sleep(PATIENCE).await;
            assert!(body.frame().await.unwrap().is_ok());
        }
    }
}
