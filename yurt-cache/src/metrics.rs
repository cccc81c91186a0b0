//! What the hub counts, in Prometheus' words. Label sets are bounded: resources that were mirrored, scopes
//! up to a number, never a caller's own words.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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

use crate::api::request::Verb;
use crate::api::{Resource, elapsed};
use crate::follow::registry::Registry;
use crate::mirror::Mirror;
use crate::tasks;
use crate::upstream::{Reach, Upstream};

/// Scopes that are shown by themselves; the rest is left out, so that a scrape stays small.
const SCOPES: usize = 200;

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
        self.exposition.lock().register_collector(Box::new(State {
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
            Refused::Connections => "connections",
            Refused::Anonymous => "anonymous",
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

/// A name, what it means, and how to read it off a mirror.
type Figure<N> = (&'static str, &'static str, fn(&Mirror) -> N);

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

#[derive(Debug)]
struct State {
    registry: Arc<Registry>,
    upstream: Upstream,
    store: Arc<dyn Store>,
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut mirrors = self.registry.all();
        let count = mirrors.len();
        mirrors.truncate(SCOPES);
        self.encode_mirrors(&mut encoder, &mirrors, count)?;
        self.encode_reach(&mut encoder)?;
        self.encode_store(&mut encoder)
    }
}

impl State {
    fn encode_mirrors(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        mirrors: &[Arc<Mirror>],
        count: usize,
    ) -> fmt::Result {
        gauge(encoder, "mirrors", "Mirrors", whole(count))?;
        let counters: [Figure<u64>; 5] = [
            (
                "upstream_bytes",
                "Bytes from the cloud for the mirror",
                |mirror| mirror.counters.upstream_bytes.load(Ordering::Relaxed),
            ),
            ("upstream_events", "Events from the cloud", |mirror| {
                mirror.counters.events.load(Ordering::Relaxed)
            }),
            ("upstream_lists", "Lists asked of the cloud", |mirror| {
                mirror.counters.lists.load(Ordering::Relaxed)
            }),
            (
                "upstream_watches",
                "Watches opened to the cloud",
                |mirror| mirror.counters.watches.load(Ordering::Relaxed),
            ),
            (
                "malformed",
                "Answers of the cloud that could not be read",
                |mirror| mirror.counters.malformed.load(Ordering::Relaxed),
            ),
        ];
        for (name, help, value) in counters {
            let name = format!("mirror_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for mirror in mirrors {
                let labels = [("scope", mirror.scope.identity())];
                ConstCounter::new(value(mirror)).encode(family.encode_family(&labels)?)?;
            }
        }
        let gauges: [Figure<i64>; 7] = [
            ("objects", "Objects of the mirror", |mirror| {
                whole(mirror.size().0)
            }),
            ("watchers", "Local clients that watch it", |mirror| {
                whole(mirror.counters.watchers.load(Ordering::Relaxed))
            }),
            ("live", "Whether its upstream watch is open", |mirror| {
                i64::from(mirror.is_live())
            }),
            ("bytes", "Bytes of its objects", |mirror| {
                i64::try_from(mirror.size().1).unwrap_or(i64::MAX)
            }),
            (
                "age_seconds",
                "For how long its upstream watch has not been open",
                |mirror| {
                    mirror.behind_since().map_or(0, |since| {
                        i64::try_from(since.elapsed().as_secs()).unwrap_or(i64::MAX)
                    })
                },
            ),
            ("revision", "The revision it stands at", |mirror| {
                i64::try_from(mirror.revision()).unwrap_or(i64::MAX)
            }),
            ("idle_seconds", "Since when nobody asked", |mirror| {
                mirror.idle_since().map_or(0, |since| {
                    i64::try_from(since.elapsed().as_secs()).unwrap_or(i64::MAX)
                })
            }),
        ];
        for (name, help, value) in gauges {
            let name = format!("mirror_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for mirror in mirrors {
                let labels = [("scope", mirror.scope.identity())];
                ConstGauge::new(value(mirror)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_reach(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let reach = *self.upstream.reach().borrow();
        let cut = match reach {
            Reach::CutOff { since } => elapsed(since, jiff::Timestamp::now()).as_secs(),
            Reach::Online | Reach::Unknown => 0,
        };
        gauge(
            encoder,
            "cloud_reachable",
            "Whether an API server is reachable",
            i64::from(matches!(reach, Reach::Online)),
        )?;
        gauge(
            encoder,
            "cut_off_seconds",
            "For how long no API server has been reachable",
            i64::try_from(cut).unwrap_or(i64::MAX),
        )?;
        let mut family = encoder.encode_descriptor(
            "server_up",
            "Whether this API server is reachable",
            None,
            MetricType::Gauge,
        )?;
        for server in self.upstream.servers() {
            ConstGauge::new(i64::from(server.is_up))
                .encode(family.encode_family(&[("server", server.url.to_string())])?)?;
        }
        Ok(())
    }

    fn encode_store(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let health = self.store.health();
        let gauges = [
            ("store_records", "Records in the store", health.records),
            (
                "store_live_bytes",
                "Bytes of the records that are there",
                health.live_bytes,
            ),
            (
                "store_disk_bytes",
                "Bytes that the store occupies",
                health.disk_bytes,
            ),
            ("store_segments", "Files of the store", health.segments),
        ];
        for (name, help, value) in gauges {
            gauge(
                encoder,
                name,
                help,
                i64::try_from(value).unwrap_or(i64::MAX),
            )?;
        }
        let counters = [
            (
                "store_written_bytes",
                "Bytes given to the disk",
                health.written_bytes,
            ),
            ("store_syncs", "Syncs of the disk", health.syncs),
            ("store_damaged", "Damaged records found", health.damaged),
        ];
        for (name, help, value) in counters {
            ConstCounter::new(value).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Counter,
            )?)?;
        }
        Ok(())
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

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
