//! What the node's people want to know about waiting events, as metrics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Outbox;

/// Reads the figures at each scrape.
#[derive(Debug)]
pub(crate) struct OutboxCollector(pub(crate) Arc<Outbox>);

impl Collector for OutboxCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (count, bytes) = self.0.size();
        for (name, help, value) in [
            ("events_queued", "Events that wait for the cloud", count),
            (
                "events_queued_bytes",
                "Bytes of events that wait for the cloud",
                bytes,
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric)?;
        }
        for (name, help, counter) in [
            (
                "events_delivered",
                "Waiting events that the cloud took",
                &self.0.delivered,
            ),
            (
                "events_dropped",
                "Waiting events that had to make room",
                &self.0.dropped,
            ),
            (
                "events_refused",
                "Waiting events that the cloud did not want",
                &self.0.refused,
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(counter.load(Ordering::Relaxed)).encode(metric)?;
        }
        Ok(())
    }
}
