//! A server's metrics. Label sets are bounded: routes, results, reasons, and connected nodes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Prometheus;
use tokio::sync::watch;
use yurt_core::transport::{Error, ErrorKind};

use super::registry::{Member, Registry};
use crate::admin::scrape::gauge;
use crate::identity::Refusal;
use crate::nodes::{ClaimRefusal, NodeTable};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DialLabels {
    route: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// The server's metrics; clones share their counters.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    dials: Family<DialLabels, Counter>,
    dial_times: Histogram,
    refusals: Family<ReasonLabels, Counter>,
}

impl Metrics {
    /// Returns metrics that start at zero.
    pub(super) fn new() -> Self {
        let metrics = Self {
            dials: Family::default(),
            dial_times: Histogram::new([0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]),
            refusals: Family::default(),
        };
        for refusal in Refusal::ALL {
            let reason = refusal.label();
            drop(metrics.refusals.get_or_create(&ReasonLabels { reason }));
        }
        metrics
    }

    pub(super) fn register(&self, metrics: &mut Prometheus) {
        let help = "Connections that the doors asked for, by route and result";
        metrics.register("dials", help, self.dials.clone());
        let help = "Time until a connection was made or failed";
        metrics.register("dial_duration_seconds", help, self.dial_times.clone());
        let help = "Agents and servers that were refused or disconnected, by reason";
        metrics.register("refusals", help, self.refusals.clone());
    }

    pub(super) fn dialled(&self, route: &'static str, error: Option<&Error>, took: Duration) {
        let result = error.map_or("connected", |error| result(error.kind()));
        self.dials
            .get_or_create(&DialLabels { route, result })
            .inc();
        self.dial_times.observe(took.as_secs_f64());
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        let reason = refusal.label();
        self.refusals.get_or_create(&ReasonLabels { reason }).inc();
    }
}

fn result(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NoPeer => "no_agent",
        ErrorKind::Refused => "refused",
        ErrorKind::Unreachable => "unreachable",
        ErrorKind::Timeout => "timeout",
        ErrorKind::Forbidden => "forbidden",
        ErrorKind::Overloaded => "overloaded",
        ErrorKind::Draining => "draining",
        ErrorKind::Reset(_) | ErrorKind::Closed => "lost",
        ErrorKind::Protocol => "protocol",
        _ => "other",
    }
}

/// Refused claims of Node objects, counted at each scrape.
#[derive(Debug)]
pub(super) struct Claims(pub(super) watch::Receiver<Arc<NodeTable>>);

impl Collector for Claims {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let table = self.0.borrow().clone();
        let mut family = to.encode_descriptor(
            "refused_claims",
            "Names and addresses of Node objects that are ignored, by reason",
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for reason in ClaimRefusal::ALL {
            let claims = table
                .refused()
                .iter()
                .filter(|claim| claim.reason == reason);
            let labels = [("reason", reason.label())];
            let encoder = family.encode_family(&labels)?;
            ConstGauge::new(claims.count() as u64).encode(encoder)?;
        }
        Ok(())
    }
}

/// The sessions' own counters, read at each scrape.
#[derive(Debug)]
pub(super) struct Sessions(pub(super) Arc<Registry>);

impl Collector for Sessions {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.0.all();
        let is_agent = |member: &Member| matches!(member, Member::Agent(_));
        let agents = all.iter().filter(|(member, _)| is_agent(member)).count();
        gauge(&mut to, "agents", "Sessions of agents", agents as u64)?;
        let peers = all.len() - agents;
        gauge(&mut to, "peers", "Sessions of other servers", peers as u64)?;
        self.0.totals().encode(&mut to)?;
        let help = "Round-trip time to a node's agent";
        let mut family = to.encode_descriptor(
            "round_trip_seconds",
            help,
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        // Of several sessions of one node by one transport the newest counts.
        let mut newest = BTreeMap::new();
        for (member, entry) in &all {
            if let Member::Agent(node) = member {
                let kept = newest.entry((node, entry.transport)).or_insert(entry);
                if kept.number < entry.number {
                    *kept = entry;
                }
            }
        }
        for ((node, transport), entry) in newest {
            let Some(trip) = entry.session.stats().round_trip else {
                continue;
            };
            let labels = [("node", node.as_str()), ("transport", transport)];
            let encoder = family.encode_family(&labels)?;
            ConstGauge::new(trip.as_secs_f64()).encode(encoder)?;
        }
        Ok(())
    }
}
