//! The pages of a server: health, metrics, and the check of a node.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry as Prometheus;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use yurt_core::name::NodeName;
use yurt_core::transport::{ErrorKind, Opener, State};

use super::metrics::{Claims, Sessions};
use super::registry::Member;
use super::{Shared, check, router};
use crate::admin::{Page, Pages, scrape};
use crate::egress;
use crate::identity::Credentials;

/// How long a probe of a path may take.
const PROBE_LIMIT: Duration = Duration::from_secs(3);

/// How many agents are probed at once: one that is gone is no fault of the server, and must not delay the answer.
const PROBES: usize = 3;

/// Serves the pages.
pub(super) struct Status {
    shared: Arc<Shared>,
    metrics: Mutex<Prometheus>,
    credentials: Credentials,
    shutdown: CancellationToken,
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Status").finish_non_exhaustive()
    }
}

impl Status {
    pub(super) fn new(
        shared: Arc<Shared>,
        doors: &egress::Metrics,
        credentials: Credentials,
        shutdown: CancellationToken,
    ) -> Self {
        let mut metrics = Prometheus::with_prefix("yurt_tunnel_server");
        shared.metrics.register(&mut metrics);
        doors.register(&mut metrics);
        metrics.register_collector(Box::new(Sessions(shared.registry.clone())));
        metrics.register_collector(Box::new(Claims(shared.router.nodes.clone())));
        metrics.register_collector(Box::new(scrape::Held(shared.buffers.clone())));
        metrics.register_collector(Box::new(scrape::Process(credentials.clone())));
        Self {
            shared,
            metrics: Mutex::new(metrics),
            credentials,
            shutdown,
        }
    }

    /// Ready means: the nodes are known, and an agent echoes bytes, if one is connected.
    async fn readyz(&self) -> (bool, String) {
        if let Some(task) = self.shared.lost.get() {
            return (false, format!("[-] {task} has ended\nnot ready\n"));
        }
        if self.shutdown.is_cancelled() {
            return (false, "[-] the server is draining\nnot ready\n".to_owned());
        }
        if self.shared.router.nodes.borrow().nodes().next().is_none() {
            // Until then no route is known.
            return (false, "[-] no node is known yet\nnot ready\n".to_owned());
        }
        let mut agents = self.agents();
        if agents.is_empty() {
            return (true, "[+] no agent is connected\nready\n".to_owned());
        }
        fastrand::shuffle(&mut agents);
        let mut probes = JoinSet::new();
        for (node, session) in agents.into_iter().take(PROBES) {
            probes.spawn(async move { (node, router::echo(&session, PROBE_LIMIT).await) });
        }
        let mut report = String::new();
        while let Some(probe) = probes.join_next().await {
            let (node, came_back) = probe.expect("a probe neither panics nor is aborted");
            match came_back {
                Ok(trip) => {
                    let millis = trip.as_secs_f64() * 1000.0;
                    let _ = writeln!(report, "[+] bytes come back from {node} in {millis:.1} ms");
                    report.push_str("ready\n");
                    return (true, report);
                }
                // Overload is no reason to leave the load balancer.
                Err(error) if error.kind() == ErrorKind::Overloaded => {
                    let _ = writeln!(report, "[+] {node} is busy: {error}");
                    report.push_str("ready\n");
                    return (true, report);
                }
                Err(error) => {
                    let _ = writeln!(report, "[-] {node}: {error}");
                }
            }
        }
        report.push_str("not ready\n");
        (false, report)
    }

    /// Returns the agents that take streams, each with its newest session.
    fn agents(&self) -> Vec<(NodeName, Arc<dyn Opener>)> {
        let mut newest = BTreeMap::new();
        for (member, entry) in self.shared.registry.all() {
            let is_open = *entry.session.state().borrow() == State::Open;
            if let (Member::Agent(node), true) = (member, is_open) {
                newest.insert(node, entry.session);
            }
        }
        newest.into_iter().collect()
    }

    fn metrics(&self) -> String {
        let mut body = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut body, &self.metrics.lock());
        body
    }
}

#[async_trait]
impl Pages for Status {
    async fn page(&self, path: &str, query: &str) -> Page {
        match path {
            "/healthz" | "/livez" => Page::text(true, "ok\n"),
            "/readyz" => {
                let (is_ready, report) = self.readyz().await;
                Page::text(is_ready, report)
            }
            "/metrics" => Page::metrics(self.metrics()),
            "/check" => match query.strip_prefix("node=").map(str::parse) {
                Some(Ok(node)) => {
                    let report = check::check(&self.shared, &self.credentials, &node).await;
                    Page::text(report.is_ok(), report.to_string())
                }
                _ => Page {
                    code: "400 Bad Request",
                    ..Page::text(true, "the node is missing: /check?node=NAME\n")
                },
            },
            path => Page::missing(path, "/healthz, /readyz, /metrics, /check?node=NAME"),
        }
    }
}
