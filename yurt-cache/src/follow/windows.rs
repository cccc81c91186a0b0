//! Keeps the windows of all mirrors to their budget.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::registry::Registry;
use crate::mirror::window::WindowBudget;

/// How long events may gather before it is looked again who has most.
const PAUSE: Duration = Duration::from_millis(100);

impl Registry {
    /// Takes from the largest windows whatever is over the budget, whenever there is any, until `stop`.
    pub(crate) async fn balance_windows(self: Arc<Self>, stop: CancellationToken) {
        let balancing = async {
            loop {
                self.windows.crowded().await;
                self.shrink_windows();
                tokio::time::sleep(PAUSE).await;
            }
        };
        stop.run_until_cancelled(balancing).await;
    }

    fn shrink_windows(&self) {
        let mirrors = self.all();
        let bytes: Vec<usize> = mirrors.iter().map(|mirror| mirror.window_bytes()).collect();
        let level = self.windows.level(&bytes);
        for (mirror, _) in mirrors
            .iter()
            .zip(bytes)
            .filter(|(_, bytes)| *bytes > level)
        {
            tracing::debug!(scope = %mirror.scope, level, "the window of a mirror shrinks");
            mirror.shrink_window(level);
        }
    }

    /// Returns how much all windows hold, and may.
    pub(crate) fn windows(&self) -> &Arc<WindowBudget> {
        &self.windows
    }
}
