//! The tasks that their owner cannot be without.

use tokio::task::JoinSet;

use super::panics::{Panicked, contained};

/// Tasks of which none may end before its owner wants it to. Dropped with it.
#[derive(Debug, Default)]
pub(crate) struct Children(JoinSet<Ended>);

/// A task that has ended.
#[derive(Debug, thiserror::Error)]
#[error("{task} has ended")]
pub(crate) struct Ended {
    pub(crate) task: &'static str,
    #[source]
    pub(crate) panicked: Option<Panicked>,
}

impl Children {
    /// Begins one.
    #[track_caller]
    pub(crate) fn spawn(
        &mut self,
        task: &'static str,
        child: impl Future<Output = ()> + Send + 'static,
    ) {
        let child = contained(child);
        self.0.spawn(async move {
            let panicked = child.await.err();
            Ended { task, panicked }
        });
    }

    /// Returns the next that ends; never, if there is none.
    ///
    /// # Cancel safety
    /// One that has ended is not lost.
    pub(crate) async fn next_ended(&mut self) -> Ended {
        match self.0.join_next().await {
            Some(Ok(ended)) => ended,
            // They catch their panics themselves, and nobody aborts one.
            Some(Err(_)) | None => std::future::pending().await,
        }
    }

    /// Ends all, wherever they are, and waits for it.
    pub(crate) async fn shutdown(mut self) {
        self.0.shutdown().await;
    }

    /// Waits for the ends of all, who were told to end.
    pub(crate) async fn join(mut self) {
        while self.0.join_next().await.is_some() {}
    }
}
