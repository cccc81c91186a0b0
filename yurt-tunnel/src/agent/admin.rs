//! Health and metrics, for the node's own people.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Shared, Standing};
use crate::admin::{Page, Pages};

/// An answer of a server proves the path until the server is asked again, and so long after.
const LATELY: Duration = Duration::from_secs(15);

/// What is shown of an agent.
#[derive(Debug)]
pub(super) struct Status(pub(super) Arc<Shared>);

#[async_trait]
impl Pages for Status {
    async fn page(&self, path: &str, _query: &str) -> Page {
        match path {
            "/healthz" | "/livez" => Page::text(true, "ok\n"),
            "/readyz" => {
                let (is_ready, report) = readyz(&self.0);
                Page::text(is_ready, report)
            }
            "/metrics" => Page::metrics(self.0.metrics.text()),
            path => Page::missing(path, "/healthz, /readyz, /metrics"),
        }
    }
}

/// Ready means: a server that could open a stream now has answered lately.
fn readyz(shared: &Shared) -> (bool, String) {
    let (seen, _) = shared.board.look(Instant::now());
    let mut report = String::new();
    let mut is_ready = false;
    for one in seen.iter().filter(|one| !one.is_leaving) {
        let is_alive = one.answered.is_some_and(|ago| ago <= one.rest + LATELY);
        is_ready |= is_alive;
        let mark = if is_alive { '+' } else { '-' };
        let answered = match one.answered {
            Some(ago) => format!("answered {:.1} s ago", ago.as_secs_f64()),
            None => "has not answered yet".to_owned(),
        };
        let (server, transport) = (one.server, one.transport);
        let _written = writeln!(report, "[{mark}] {server} by {transport}: {answered}");
    }
    let away = {
        let standings = shared.standings.lock();
        let away = standings
            .iter()
            .filter(|(_, standing)| **standing == Standing::Away);
        away.map(|(server, _)| *server).collect::<Vec<_>>()
    };
    for server in away {
        let _written = writeln!(report, "[-] {server}: away");
    }
    if seen.is_empty() {
        report.push_str("[-] no server is connected\n");
    }
    report.push_str(if is_ready { "ready\n" } else { "not ready\n" });
    (is_ready, report)
}
