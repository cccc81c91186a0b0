//! A panic where it is caught.

use std::any::Any;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use yurt_core::store::{self, ErrorKind};

use crate::codec::Status;

/// Panics that were caught since the process began: they are the program's, whichever hub of it they come from.
static CAUGHT: AtomicU64 = AtomicU64::new(0);

/// Something panicked. It is counted and told already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Panicked(String);

impl Panicked {
    fn new(payload: &(dyn Any + Send), begun: &Location<'_>) -> Self {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        let text = text.unwrap_or("without a word");
        CAUGHT.fetch_add(1, Ordering::Relaxed);
        tracing::error!(panic = text, %begun, "something panicked: please report it");
        Self(format!("it panicked: {text}"))
    }

    /// What was never begun, since the program ends.
    pub(super) fn unbegun() -> Self {
        Self("the program ends".to_owned())
    }
}

impl From<Panicked> for store::Error {
    fn from(panicked: Panicked) -> Self {
        Self::new(ErrorKind::Other, "work on the store").with_source(panicked)
    }
}

impl From<Panicked> for Status {
    fn from(panicked: Panicked) -> Self {
        Self::internal(&panicked.to_string())
    }
}

/// Returns how many panics were caught since the process began.
pub(crate) fn panics() -> u64 {
    CAUGHT.load(Ordering::Relaxed)
}

/// Does it, up to a panic.
#[track_caller]
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    caught_of(work, Location::caller())
}

/// Does what was `begun` there, up to a panic. A lock that it held is let go, with what it guards as it was then.
pub(super) fn caught_of<T>(work: impl FnOnce() -> T, begun: &Location<'_>) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked::new(&*payload, begun))
}

/// Runs a future, up to a panic.
#[track_caller]
pub(crate) fn contained<F: Future>(
    future: F,
) -> impl Future<Output = Result<F::Output, Panicked>> + use<F> {
    let begun = Location::caller();
    async move {
        let mut future = pin!(future);
        std::future::poll_fn(
            |context| match caught_of(|| future.as_mut().poll(context), begun) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
                Err(panicked) => Poll::Ready(Err(panicked)),
            },
        )
        .await
    }
}
