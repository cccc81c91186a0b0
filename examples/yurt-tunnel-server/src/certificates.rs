//! Certificates that somebody renews on disk are taken up while the server runs.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use yurt_core::error::Chain;
use yurt_tunnel::identity::Credentials;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Takes up what changes, until the shutdown.
pub(crate) async fn keep(credentials: Credentials, shutdown: CancellationToken) {
    let mut last = String::new();
    loop {
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            () = shutdown.cancelled() => return,
        }
        let files = credentials.clone();
        let reloaded = spawn_blocking(move || files.reload()).await;
        let problem = match reloaded.expect("reading certificates does not panic") {
            Ok(is_new) => {
                if is_new {
                    info!(user = credentials.own().user, "certificates have changed");
                }
                String::new()
            }
            Err(error) => Chain(&error).to_string(),
        };
        if problem != last && !problem.is_empty() {
            warn!(error = problem, "the certificates of before stay in use");
        }
        last = problem;
    }
}
