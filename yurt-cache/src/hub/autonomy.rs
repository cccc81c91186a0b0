//! Looks again and again whether the node would survive a reboot, and tells whoever asks: a page, the
//! metrics, and the cloud by a condition of the Node.

mod observe;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use yurt_core::name::NodeName;

use super::Config;
use super::state::State;
use crate::api::well_known::node_scope;
use crate::autonomy::condition::{self, Attempt, Condition, MANAGER, Seen};
use crate::autonomy::{Certificate, Outcome, Report, assess};
use crate::codec::Status;
use crate::identity::Caller;
use crate::metrics::gauge;
use crate::store::synced::Flushing;
use crate::tasks::{Panicked, blocking};
use crate::upstream::client::{Content, outcome};

/// Whether a condition is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    Cloud,
    Nobody,
}

/// What looks.
pub(super) struct Autonomy {
    state: State,
    flushing: Arc<Flushing>,
    clock: fn() -> Timestamp,
    object_limit: usize,
    node: NodeName,
    /// The certificates to look at.
    certificates: Vec<(Certificate, PathBuf)>,
    telling: Telling,
    /// Between two looks.
    period: Duration,
    latest: Arc<Mutex<Report>>,
    /// One look at a time, however many ask.
    looking: tokio::sync::Mutex<()>,
}

impl Autonomy {
    pub(super) fn new(config: &Config, state: State, flushing: Arc<Flushing>) -> Self {
        let client = config.upstream.client_certificate.clone();
        let telling = if client.is_some() && config.autonomy_condition {
            Telling::Cloud
        } else {
            Telling::Nobody
        };
        // One of the hub's own making is renewed by a restart, with or without the cloud.
        let serving = config.serving_certificate.clone();
        let certificates = [
            (Certificate::Client, client),
            (Certificate::Serving, serving),
        ]
        .into_iter()
        .filter_map(|(which, path)| Some((which, path?)))
        .collect();
        Self {
            state,
            flushing,
            clock: config.clock,
            object_limit: config.object_limit,
            node: config.node_name.clone(),
            certificates,
            telling,
            period: config.autonomy_period,
            latest: Arc::default(),
            looking: tokio::sync::Mutex::default(),
        }
    }

    /// Returns what tells the metrics.
    pub(super) fn collector(&self) -> AutonomyCollector {
        AutonomyCollector(self.latest.clone())
    }

    /// Looks again and again, and when the link comes and goes, until `stop`.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reach = self.state.upstream.reach();
        let mut last = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                Ok(()) = reach.changed() => {}
            }
            let report = self.look().await;
            if self.telling == Telling::Cloud {
                let told = self.tell(&report, last);
                match stop.run_until_cancelled(told).await {
                    None => return,
                    Some(told) => last = told,
                }
            }
        }
    }

    /// Looks now.
    pub(super) async fn look(self: &Arc<Self>) -> Report {
        let _looking = self.looking.lock().await;
        let autonomy = self.clone();
        let look = move || {
            let facts = autonomy.observe(Instant::now());
            Ok::<_, Panicked>(assess(&facts, (autonomy.clock)()))
        };
        // Without findings nothing is decided.
        let report = blocking(look).await.unwrap_or_default();
        *self.latest.lock() = report.clone();
        report
    }

    // === Telling ===

    /// Writes the condition if it is due; returns when that was tried last, and whether it was refused.
    async fn tell(
        &self,
        report: &Report,
        last: Option<(Instant, bool)>,
    ) -> Option<(Instant, bool)> {
        let attempt = last.map(|(at, was_refused)| Attempt {
            ago: at.elapsed(),
            was_refused,
        });
        let now = (self.clock)();
        // What the cloud has is known while the Node is followed, and nothing is written blindly.
        let due = self
            .seen()
            .and_then(|seen| condition::plan(report, &seen, attempt, self.period, now));
        let Some(condition) = due else {
            return last;
        };
        let refused = self.write(&condition, now).await.err();
        match &refused {
            None => {
                tracing::info!(
                    status = condition.status,
                    reason = condition.reason,
                    "told the cloud of the node's autonomy"
                )
            }
            Some(status) => {
                tracing::warn!(code = %status.code, message = status.message, "the cloud does not take the node's autonomy condition")
            }
        }
        Some((Instant::now(), refused.is_some()))
    }

    /// Returns what the cloud has now; `None` while that is not known.
    fn seen(&self) -> Option<Seen> {
        let registry = &self.state.registry;
        let mirror = registry.find(&node_scope(&self.node))?;
        if !mirror.is_live() {
            return None;
        }
        let (_, text) = mirror.kind.newest("", self.node.as_str()).ok()??;
        condition::read(&text)
    }

    /// Writes the condition as the node.
    async fn write(&self, condition: &Condition, now: Timestamp) -> Result<(), Status> {
        let node = self.node.as_str();
        let uri = format!("/api/v1/nodes/{node}/status?fieldManager={MANAGER}&force=true");
        let patch = condition::patch(node, condition, now).to_string();
        let content = Content {
            media_type: "application/apply-patch+yaml",
            bytes: patch.into(),
        };
        let client = Caller::Node.client(&self.state.upstream);
        let sent = client.patch(&uri, content).await;
        let response =
            sent.map_err(|error| Status::internal(&format!("write the condition: {error}")))?;
        let answer = outcome(response, self.object_limit).await;
        answer
            .map_err(|error| Status::internal(&format!("read the answer: {error}")))?
            .map(drop)
    }
}

impl fmt::Debug for Autonomy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Autonomy")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// What the metrics tell: the latest look.
#[derive(Debug)]
pub(super) struct AutonomyCollector(Arc<Mutex<Report>>);

impl Collector for AutonomyCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let report = self.0.lock().clone();
        if let Some(until) = report.until {
            gauge(
                &mut encoder,
                "autonomy_until_timestamp_seconds",
                "When a certificate ends that the node depends on",
                until.as_second(),
            )?;
        }
        let mut family = encoder.encode_descriptor(
            "autonomy",
            "Whether the node would survive a reboot without the cloud, by check: 1 yes, 0 no, -1 unknown",
            None,
            MetricType::Gauge,
        )?;
        for finding in &report.findings {
            let value: i64 = match finding.outcome {
                Outcome::Holds => 1,
                Outcome::Fails => 0,
                Outcome::Unknown => -1,
            };
            let labels = [("check", finding.check.as_str())];
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
