//! What is read of the mirrors, the API servers and the store at each scrape.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use yurt_core::store::Store;

use super::gauge;
use crate::api::elapsed;
use crate::follow::registry::Registry;
use crate::mirror::Mirror;
use crate::upstream::{Reach, Upstream};

/// Scopes that are shown by themselves; the rest is left out, so that a scrape stays small.
const SCOPES: usize = 200;

/// A name, what it means, and how to read it off a mirror.
type Figure<N> = (&'static str, &'static str, fn(&Mirror) -> N);

#[derive(Debug)]
pub(super) struct HubCollector {
    pub(super) registry: Arc<Registry>,
    pub(super) upstream: Upstream,
    pub(super) store: Arc<dyn Store>,
}

impl Collector for HubCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut mirrors = self.registry.all();
        let count = mirrors.len();
        mirrors.truncate(SCOPES);
        self.encode_mirrors(&mut encoder, &mirrors, count)?;
        self.encode_reach(&mut encoder)?;
        self.encode_store(&mut encoder)
    }
}

impl HubCollector {
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

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
