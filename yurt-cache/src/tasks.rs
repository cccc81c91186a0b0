//! What runs beside, and what becomes of a panic: it is counted and told, and it ends nothing but what panicked.
//!
//! A request that panics is answered with 500, work on the store is an error for whoever waits for it, a task that the
//! hub cannot be without ends the hub. It is so in every build that unwinds, tests and releases alike.

mod children;
mod panics;

use std::panic::Location;

use tokio_util::task::TaskTracker;

pub(crate) use self::children::{Children, Ended};
pub(crate) use self::panics::{Panicked, caught, contained, panics};

/// Tasks that are waited for at the end. One that panics ends alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks(TaskTracker);

impl Tasks {
    /// Begins a task.
    #[track_caller]
    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.spawn(contained(task));
    }

    /// Begins work that may block.
    #[track_caller]
    pub(crate) fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        let begun = Location::caller();
        self.0
            .spawn_blocking(move || panics::caught_of(work, begun).unwrap_or_default());
    }

    /// Says that nothing comes any more.
    pub(crate) fn close(&self) {
        self.0.close();
    }

    /// Returns when they are closed and all have ended.
    pub(crate) async fn wait(&self) {
        self.0.wait().await;
    }

    /// Returns how many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Where hyper puts its own tasks: with an owner that waits for them.
impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

/// Does work that blocks where that is allowed. If it panics, that is an error.
///
/// # Cancel safety
/// The work goes on to its end.
#[track_caller]
pub(crate) fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> impl Future<Output = Result<T, E>> + Send
where
    T: Send + 'static,
    E: From<Panicked> + Send + 'static,
{
    let begun = Location::caller();
    let doing = tokio::task::spawn_blocking(move || panics::caught_of(work, begun));
    async move {
        match doing.await {
            Ok(done) => done?,
            // Only a runtime that ends gives work up.
            Err(_given_up) => Err(Panicked::unbegun().into()),
        }
    }
}

#[cfg(test)]
mod tests;
