//! The owner of every task of a server: none outlives it.

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Spawns tasks that end when the server stops.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker
            .spawn(async move { stop.run_until_cancelled(task).await });
    }

    /// Tells every task to end.
    pub(crate) fn cancel(&self) {
        self.stop.cancel();
        self.tracker.close();
    }

    /// Waits until the last task has ended.
    pub(crate) async fn ended(&self) {
        self.tracker.wait().await;
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}
