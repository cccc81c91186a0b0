//! Where hyper puts its own tasks: with an owner that waits for them.

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
