//! Reloads certificates that are renewed on disk.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use yurt_core::error::Chain;
use yurt_tunnel::identity::Credentials;

/// How often the files are checked.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Reloads certificates that have changed, until the shutdown.
pub(crate) async fn run(credentials: Credentials, shutdown: CancellationToken) {
    let mut last = String::new();
    loop {
        tokio::select! {
            () = sleep(CHECK_EVERY) => {}
            () = shutdown.cancelled() => return,
        }
        let files = credentials.clone();
        let reloaded = spawn_blocking(move || files.reload()).await;
        let problem = match reloaded.expect("reading certificates does not panic") {
            Ok(is_new) => {
                if is_new {
                    info!(user = credentials.own().user, "reloaded the certificates");
                }
                String::new()
            }
            Err(error) => Chain(&error).to_string(),
        };
        if problem != last && !problem.is_empty() {
            warn!(
                error = problem,
                "cannot reload the certificates; the former ones stay in use"
            );
        }
        last = problem;
    }
}
