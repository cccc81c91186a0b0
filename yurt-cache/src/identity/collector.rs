//! What the node's people want to know about identities, as metrics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Authenticator;

/// Reads the figures at each scrape.
#[derive(Debug)]
pub(crate) struct IdentityCollector(pub(crate) Arc<Authenticator>);

impl Collector for IdentityCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauges = [
            (
                "token_keys_known",
                "Whether the keys of the cluster's service-account tokens are known",
                i64::from(self.0.cluster().is_some()),
            ),
            (
                "tokens_seen",
                "Bearer tokens that are remembered",
                i64::try_from(self.0.token_cache.len()).unwrap_or(i64::MAX),
            ),
        ];
        for (name, help, value) in gauges {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        let counters = [
            (
                "tokens_minted",
                "Tokens that the hub made for pods while the cloud was away",
                &self.0.minted,
            ),
            (
                "node_certificates_forgiven",
                "Handshakes of the node with a client certificate that was not valid any more, or not yet",
                &self.0.forgiven,
            ),
        ];
        for (name, help, value) in counters {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value.load(Ordering::Relaxed)).encode(metric)?;
        }
        Ok(())
    }
}
