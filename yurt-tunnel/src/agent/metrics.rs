//! What the agent counts, in Prometheus' words. Label sets are bounded: servers that are known, and reasons.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use yurt_core::transport::ErrorKind;

use super::board::{Board, Seen};
use super::policy::Forbidden;
use super::want::Reason;

/// How a dial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Connected,
    Refused,
    Unreachable,
    Timeout,
    Forbidden,
    Overloaded,
    Cancelled,
    Failed,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ConnectLabels {
    reason: &'static str,
    result: &'static str,
}

/// The agent's counters.
pub(super) struct Metrics {
    dials: Family<ResultLabels, Counter>,
    dial_times: Histogram,
    forbidden: Family<ReasonLabels, Counter>,
    connects: Family<ConnectLabels, Counter>,
    registry: Mutex<Registry>,
}

impl Metrics {
    pub(super) fn new(board: Arc<Board>) -> Self {
        let metrics = Self {
            dials: Family::default(),
            dial_times: Histogram::new([0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]),
            forbidden: Family::default(),
            connects: Family::default(),
            registry: Mutex::new(Registry::with_prefix("yurt_tunnel_agent")),
        };
        for outcome in Outcome::ALL {
            drop(metrics.dials.get_or_create(&outcome.labels()));
        }
        for why in Forbidden::ALL {
            let reason = why.label();
            drop(metrics.forbidden.get_or_create(&ReasonLabels { reason }));
        }
        {
            let mut registry = metrics.registry.lock();
            let dials = metrics.dials.clone();
            registry.register(
                "dials",
                "Dials that servers asked for, by how they ended",
                dials,
            );
            let times = metrics.dial_times.clone();
            registry.register(
                "dial_duration_seconds",
                "Time until a dial had ended",
                times,
            );
            let forbidden = metrics.forbidden.clone();
            registry.register(
                "forbidden",
                "Dials that the policy forbids, by reason",
                forbidden,
            );
            let connects = metrics.connects.clone();
            let help = "Attempts to connect to a server, by why and how they ended";
            registry.register("connects", help, connects);
            registry.register_collector(Box::new(Sessions(board)));
        }
        metrics
    }

    /// Adds what another part reads at each scrape.
    pub(super) fn collect(&self, collector: Box<dyn Collector>) {
        self.registry.lock().register_collector(collector);
    }

    pub(super) fn dialled(&self, outcome: Outcome, took: Duration) {
        self.dials.get_or_create(&outcome.labels()).inc();
        self.dial_times.observe(took.as_secs_f64());
    }

    pub(super) fn forbidden(&self, why: Forbidden) {
        let reason = why.label();
        self.forbidden.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(super) fn connected(&self, reason: Reason, is_connected: bool) {
        let reason = match reason {
            Reason::Missing => "missing",
            Reason::Silent => "silent",
            Reason::Poor => "poor",
            Reason::Renewal => "renewal",
            Reason::Preferred => "preferred",
        };
        let result = if is_connected { "connected" } else { "failed" };
        let labels = ConnectLabels { reason, result };
        self.connects.get_or_create(&labels).inc();
    }

    /// Writes everything as text.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry.lock()).expect("writing to a string does not fail");
        out
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Outcome {
    const ALL: [Self; 8] = [
        Self::Connected,
        Self::Refused,
        Self::Unreachable,
        Self::Timeout,
        Self::Forbidden,
        Self::Overloaded,
        Self::Cancelled,
        Self::Failed,
    ];

    /// Returns the outcome of a dial that failed in this way.
    pub(super) fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Refused => Self::Refused,
            ErrorKind::Unreachable => Self::Unreachable,
            ErrorKind::Timeout => Self::Timeout,
            ErrorKind::Forbidden => Self::Forbidden,
            ErrorKind::Overloaded => Self::Overloaded,
            _ => Self::Failed,
        }
    }

    fn labels(self) -> ResultLabels {
        let result = match self {
            Self::Connected => "connected",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Forbidden => "forbidden",
            Self::Overloaded => "overloaded",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        };
        ResultLabels { result }
    }
}

/// What is read from the sessions at each scrape.
#[derive(Debug)]
struct Sessions(Arc<Board>);

impl Collector for Sessions {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (seen, totals) = self.0.look(Instant::now());
        encode_sessions(&mut encoder, &seen)?;
        totals.encode(&mut encoder)
    }
}

fn encode_sessions(encoder: &mut DescriptorEncoder<'_>, seen: &[Seen]) -> fmt::Result {
    let mut sessions = std::collections::BTreeMap::new();
    for one in seen {
        let state = if one.is_leaving { "draining" } else { "open" };
        let key = (one.server.to_string(), one.transport, state);
        *sessions.entry(key).or_insert(0_i64) += 1;
    }
    let help = "Sessions by server, transport and state";
    let mut family = encoder.encode_descriptor("sessions", help, None, MetricType::Gauge)?;
    for ((server, transport, state), count) in &sessions {
        let labels = [
            ("server", server.as_str()),
            ("transport", transport),
            ("state", state),
        ];
        ConstGauge::new(*count).encode(family.encode_family(&labels)?)?;
    }
    let help = "The round trip to a server";
    let name = "round_trip_seconds";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for one in seen.iter().filter(|one| !one.is_leaving) {
        if let Some(round_trip) = one.stats.round_trip {
            let server = one.server.to_string();
            let labels = [("server", server.as_str()), ("transport", one.transport)];
            ConstGauge::new(round_trip.as_secs_f64()).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
