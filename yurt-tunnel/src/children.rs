//! The tasks that an end of the tunnel cannot do without.

use std::collections::HashMap;

use tokio::task::{Id, JoinError, JoinSet};

/// Tasks of which none may end before its owner wants it to. They are aborted when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Children {
    running: JoinSet<()>,
    names: HashMap<Id, String>,
}

/// A task that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) task: String,
    /// Its panic, unless it just returned.
    pub(crate) panicked: Option<JoinError>,
}

impl Children {
    /// Starts a task.
    pub(crate) fn spawn(
        &mut self,
        task: impl Into<String>,
        child: impl Future<Output = ()> + Send + 'static,
    ) {
        let id = self.running.spawn(child).id();
        self.names.insert(id, task.into());
    }

    /// Returns the next task that ends; never returns if there is none.
    ///
    /// # Cancel safety
    /// One that has ended is not lost.
    pub(crate) async fn next_ended(&mut self) -> Ended {
        let (id, panicked) = match self.running.join_next_with_id().await {
            Some(Ok((id, ()))) => (id, None),
            Some(Err(panicked)) => (panicked.id(), Some(panicked)),
            None => std::future::pending().await,
        };
        let task = self.names.remove(&id).unwrap_or_default();
        Ended { task, panicked }
    }

    /// Waits until all have ended.
    pub(crate) async fn join(&mut self) {
        while self.running.join_next().await.is_some() {}
    }

    /// Aborts all, and waits until they have ended.
    pub(crate) async fn shutdown(&mut self) {
        self.running.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_is_told_by_its_name_and_one_that_panics_with_its_words() {
        let mut children = Children::default();
        children.spawn("one that stays", std::future::pending());
        children.spawn("one that returns", async {});
        let ended = children.next_ended().await;
        assert_eq!(ended.task, "one that returns");
        assert!(ended.panicked.is_none());
        children.spawn("one that panics", async { panic!("a wrong turn") });
        let ended = children.next_ended().await;
        assert_eq!(ended.task, "one that panics");
        let words = ended.panicked.map(|panicked| panicked.to_string());
        assert!(words.is_some_and(|words| words.contains("a wrong turn")));
        children.shutdown().await;
    }
}
