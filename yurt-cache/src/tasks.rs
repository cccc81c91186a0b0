//! Where hyper puts its own tasks: with an owner that waits for them; and where work on the store is done.

use tokio_util::task::TaskTracker;

/// Spawns into a tracker.
#[derive(Clone, Debug)]
pub(crate) struct Spawner(pub(crate) TaskTracker);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// Does work on the store where that is allowed.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .expect("work on the store does not panic")
}
