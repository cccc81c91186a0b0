//! The metrics that both ends of the tunnel have, by the same names.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use yurt_core::transport::{Stats, Traffic};

use crate::identity::Credentials;
use crate::link::Buffers;
use crate::transport::NamedTransport;

/// The metrics of the process and its certificate.
#[derive(Debug)]
pub(crate) struct Process(pub(crate) Credentials);

impl Collector for Process {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(bytes) = resident() {
            let help = "Resident memory of the process";
            gauge(&mut to, "resident_memory_bytes", help, bytes)?;
        }
        let expires = self.0.own().expires.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = expires.unwrap_or_default().as_secs();
        let help = "When the certificate expires, in seconds since the Unix epoch";
        let name = "certificate_expiry_timestamp_seconds";
        gauge(&mut to, name, help, seconds)
    }
}

/// What sessions hold of their budget.
#[derive(Debug)]
pub(crate) struct Held(pub(crate) Buffers);

impl Collector for Held {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Bytes that sessions hold for slow readers beyond the first windows of streams";
        gauge(&mut to, "buffers_used_bytes", help, self.0.used())?;
        let help = "The most bytes that all sessions together may hold for slow readers";
        gauge(&mut to, "buffers_limit_bytes", help, self.0.limit())
    }
}

/// What sessions have counted, by transport.
#[derive(Clone, Debug)]
pub(crate) struct Totals(BTreeMap<&'static str, Stats>);

impl Totals {
    /// These transports are shown even if they have carried nothing.
    pub(crate) fn new(transports: &[NamedTransport]) -> Self {
        let names = transports.iter().map(|transport| transport.name);
        Self(names.map(|name| (name, Stats::default())).collect())
    }

    /// Adds what a session has counted.
    pub(crate) fn add(&mut self, transport: &'static str, stats: &Stats) {
        add(self.0.entry(transport).or_default(), stats);
    }

    /// Adds what a session that is over had counted: what only ever grows.
    pub(crate) fn add_past(&mut self, transport: &'static str, stats: &Stats) {
        add_past(self.0.entry(transport).or_default(), stats);
    }

    /// Returns what all have counted.
    pub(crate) fn sum(&self) -> Stats {
        let mut sum = Stats::default();
        self.0.values().for_each(|stats| add(&mut sum, stats));
        sum
    }

    /// Writes what all sessions have counted.
    pub(crate) fn encode(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        encode_sum(to, &self.sum())?;
        let help = "Bytes sent, by what they are for and by transport";
        self.encode_traffic(to, ("sent_bytes", help), |traffic| traffic.sent)?;
        let help = "Bytes received, by what they are for and by transport";
        self.encode_traffic(to, ("received_bytes", help), |traffic| traffic.received)
    }

    fn encode_traffic(
        &self,
        to: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        of: impl Fn(&Traffic) -> u64,
    ) -> fmt::Result {
        let mut family = to.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (transport, stats) in &self.0 {
            let streams = Traffic {
                sent: stats.sent,
                received: stats.received,
            };
            for (purpose, traffic) in [
                ("keep_alive", &stats.keep_alive),
                ("control", &stats.control),
                ("streams", &streams),
            ] {
                let labels = [("purpose", purpose), ("transport", *transport)];
                ConstCounter::new(of(traffic)).encode(family.encode_family(&labels)?)?;
            }
        }
        let name = format!("wire_{name}");
        let help = "Bytes on the wire by transport, for all purposes: with TLS and the frames of QUIC or HTTP/2, without the headers of IP, UDP and TCP";
        let mut family = to.encode_descriptor(&name, help, None, MetricType::Counter)?;
        for (transport, stats) in &self.0 {
            let labels = [("transport", *transport)];
            ConstCounter::new(of(&stats.wire)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Adds the counters of an open session.
fn add(sum: &mut Stats, stats: &Stats) {
    sum.streams += stats.streams;
    sum.credit += stats.credit;
    add_past(sum, stats);
}

/// Adds the counters of a closed session: those that only ever grow.
fn add_past(sum: &mut Stats, stats: &Stats) {
    sum.opened += stats.opened;
    sum.reset += stats.reset;
    sum.sent += stats.sent;
    sum.received += stats.received;
    sum.keep_alive += stats.keep_alive;
    sum.control += stats.control;
    sum.wire += stats.wire;
    sum.stalls += stats.stalls;
    sum.lost += stats.lost;
    sum.migrations += stats.migrations;
}

/// Writes the counters of all sessions.
fn encode_sum(to: &mut DescriptorEncoder<'_>, stats: &Stats) -> fmt::Result {
    for (name, help, value) in [
        (
            "streams",
            "Streams that are open or being opened, or whose last bytes are on their way",
            stats.streams,
        ),
        (
            "credit_bytes",
            "Bytes that peers may still send before anything more is read",
            stats.credit,
        ),
    ] {
        gauge(to, name, help, value)?;
    }
    for (name, help, value) in [
        ("streams_opened", "Streams that were accepted", stats.opened),
        ("streams_reset", "Streams that were reset", stats.reset),
        (
            "credit_stalls",
            "Times that a writer waited for credit",
            stats.stalls,
        ),
        ("lost_packets", "Packets lost, by QUIC", stats.lost),
        (
            "migrations",
            "Address changes that QUIC sessions survived",
            stats.migrations,
        ),
    ] {
        let counter = ConstCounter::new(value);
        counter.encode(to.encode_descriptor(name, help, None, counter.metric_type())?)?;
    }
    Ok(())
}

pub(crate) fn gauge(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> fmt::Result {
    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    gauge.encode(to.encode_descriptor(name, help, None, gauge.metric_type())?)
}

/// The resident memory of this process, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}
