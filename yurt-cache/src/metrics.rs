//! What the hub counts, in Prometheus' words. Label sets are bounded: resources that were mirrored, scopes
//! up to a number, never a caller's own words.

mod collector;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Exposition;
use yurt_core::store::Store;

use self::collector::HubCollector;
use crate::api::Resource;
use crate::api::request::Verb;
use crate::follow::registry::Registry;
use crate::tasks;
use crate::upstream::Upstream;

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ServedFrom {
    Cloud,
    Mirror,
    Store,
    /// The hub's own word: a refusal.
    Hub,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    resource: String,
    served_from: &'static str,
    code: u16,
}

/// Why a client was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refused {
    /// Too many requests of a caller at a time.
    Requests,
    /// Too many watches of a caller.
    Watches,
    /// It went on asking while it was refused.
    Overrun,
    /// Too many connections of a caller.
    Connections,
    /// An anonymous connection had to make room for another.
    Anonymous,
    /// Its token was refused without the cloud.
    Stranger,
    /// Too many large request heads of everybody at a time.
    LargeHeads,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusedLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LatencyLabels {
    verb: &'static str,
    served_from: &'static str,
}

/// The hub's counters.
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    latencies: Family<LatencyLabels, Histogram>,
    refused: Family<RefusedLabels, Counter>,
    exposition: Mutex<Exposition>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let requests = Family::default();
        let latencies = Family::new_with_constructor(histogram as fn() -> Histogram);
        let mut exposition = Exposition::with_prefix("yurthub");
        exposition.register(
            "requests",
            "Requests by verb, resource, where the answer came from, and code",
            requests.clone(),
        );
        exposition.register(
            "request_duration_seconds",
            "Time until the head of the answer",
            latencies.clone(),
        );
        let refused = Family::default();
        exposition.register(
            "refused",
            "Requests and connections of clients that asked too much, by reason",
            refused.clone(),
        );
        exposition.register_collector(Box::new(Caught));
        Self {
            requests,
            latencies,
            refused,
            exposition: Mutex::new(exposition),
        }
    }

    /// Adds what is read at each scrape.
    pub(crate) fn observe(
        &self,
        registry: Arc<Registry>,
        upstream: Upstream,
        store: Arc<dyn Store>,
    ) {
        self.exposition
            .lock()
            .register_collector(Box::new(HubCollector {
                registry,
                upstream,
                store,
            }));
    }

    /// Adds what another part reads at each scrape.
    pub(crate) fn collect(&self, collector: Box<dyn Collector>) {
        self.exposition.lock().register_collector(collector);
    }

    /// Counts one request.
    pub(crate) fn request(
        &self,
        verb: Verb,
        resource: Option<&Resource>,
        from: ServedFrom,
        code: StatusCode,
        took: Duration,
    ) {
        let verb = match verb {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Write => "write",
        };
        let resource = resource.map_or_else(|| "other".to_owned(), ToString::to_string);
        let labels = RequestLabels {
            verb,
            resource,
            served_from: from.as_str(),
            code: code.as_u16(),
        };
        self.requests.get_or_create(&labels).inc();
        self.latencies
            .get_or_create(&LatencyLabels {
                verb,
                served_from: from.as_str(),
            })
            .observe(took.as_secs_f64());
    }

    /// Counts a client that was turned away.
    pub(crate) fn refused(&self, why: Refused) {
        let reason = match why {
            Refused::Requests => "requests",
            Refused::Watches => "watches",
            Refused::Overrun => "overrun",
            Refused::Stranger => "stranger",
            Refused::Connections => "connections",
            Refused::Anonymous => "anonymous",
            Refused::LargeHeads => "large_heads",
        };
        self.refused.get_or_create(&RefusedLabels { reason }).inc();
    }

    /// Writes everything as text.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.exposition.lock()).expect("writing to a string does not fail");
        out
    }
}

fn histogram() -> Histogram {
    Histogram::new([
        0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0,
    ])
}

impl ServedFrom {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Mirror => "mirror",
            Self::Store => "store",
            Self::Hub => "hub",
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Panics, which the whole process has in common.
#[derive(Debug)]
struct Caught;

impl Collector for Caught {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Panics that were caught since the process began: each is a fault to report";
        let counter = ConstCounter::new(tasks::panics());
        let family = encoder.encode_descriptor("panics", help, None, MetricType::Counter)?;
        counter.encode(family)
    }
}

pub(crate) fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: i64,
) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}
