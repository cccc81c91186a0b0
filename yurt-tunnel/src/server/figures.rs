//! What a server counts, in Prometheus' words. Label sets are bounded: roads, results, reasons, and nodes that are
//! connected.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Metrics;
use yurt_core::transport::{Error, ErrorKind};

use super::registry::{Member, Registry};
use crate::identity::{Credentials, Refusal};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DialLabels {
    road: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// The server's counters; clones count together.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    dials: Family<DialLabels, Counter>,
    dial_times: Histogram,
    refusals: Family<ReasonLabels, Counter>,
}

impl Figures {
    /// Returns counters that stand at zero.
    pub(super) fn new() -> Self {
        let figures = Self {
            dials: Family::default(),
            dial_times: Histogram::new([0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]),
            refusals: Family::default(),
        };
        for refusal in Refusal::ALL {
            let reason = refusal.label();
            drop(figures.refusals.get_or_create(&ReasonLabels { reason }));
        }
        figures
    }

    pub(super) fn register(&self, metrics: &mut Metrics) {
        let help = "Connections that the doors asked for, by road and result";
        metrics.register("dials", help, self.dials.clone());
        let help = "Time until a connection stood or was given up";
        metrics.register("dial_duration_seconds", help, self.dial_times.clone());
        let help = "Agents and servers that were not let in, by reason";
        metrics.register("refusals", help, self.refusals.clone());
    }

    pub(super) fn dialled(&self, road: &'static str, error: Option<&Error>, took: Duration) {
        let result = error.map_or("connected", |error| result(error.kind()));
        self.dials.get_or_create(&DialLabels { road, result }).inc();
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

/// What the sessions say of themselves, asked at each scrape.
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
        let stats = self.0.stats();
        gauge(
            &mut to,
            "streams",
            "Streams that are open or waited for",
            stats.streams,
        )?;
        let help = "Bytes that peers may send before anything more is read, at most";
        gauge(&mut to, "credit_bytes", help, stats.credit)?;
        if let Some(bytes) = resident() {
            gauge(
                &mut to,
                "resident_memory_bytes",
                "Memory of the process",
                bytes,
            )?;
        }
        counter(
            &mut to,
            "streams_opened",
            "Streams that peers have accepted",
            stats.opened,
        )?;
        counter(
            &mut to,
            "streams_reset",
            "Streams that ended by a reset",
            stats.reset,
        )?;
        counter(&mut to, "sent_bytes", "Bytes sent on streams", stats.sent)?;
        counter(
            &mut to,
            "received_bytes",
            "Bytes read of streams",
            stats.received,
        )?;
        counter(
            &mut to,
            "credit_stalls",
            "Times that a writer waited for its reader",
            stats.stalls,
        )?;
        counter(&mut to, "lost_packets", "Packets lost, by QUIC", stats.lost)?;
        counter(
            &mut to,
            "migrations",
            "Changes of a peer's address, by QUIC",
            stats.migrations,
        )?;
        let help = "Round trip to a node's agent";
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

/// When the certificate that is shown to peers expires, asked at each scrape.
#[derive(Debug)]
pub(super) struct Expiry(pub(super) Credentials);

impl Collector for Expiry {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let expires = self.0.own().expires.duration_since(SystemTime::UNIX_EPOCH);
        let help = "When the certificate expires, in seconds since 1970";
        let seconds = expires.unwrap_or_default().as_secs();
        gauge(
            &mut to,
            "certificate_expiry_timestamp_seconds",
            help,
            seconds,
        )
    }
}

fn gauge(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    gauge.encode(to.encode_descriptor(name, help, None, gauge.metric_type())?)
}

fn counter(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(to.encode_descriptor(name, help, None, counter.metric_type())?)
}

/// The memory of this process, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}
