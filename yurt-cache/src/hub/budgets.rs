//! How much of each budget is used, and how much there is: read at each scrape.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::authorize::Verdicts;
use crate::discovery::Documents;
use crate::follow::registry::Registry;
use crate::limits::{Connections, Limits};
use crate::proxy::unread::Unread;
use crate::upstream::{Credential, Upstream};

/// Whatever has a budget.
#[derive(Debug)]
pub(super) struct Budgets {
    pub(super) limits: Limits,
    pub(super) registry: Arc<Registry>,
    pub(super) upstream: Upstream,
    pub(super) verdicts: Arc<Verdicts>,
    pub(super) documents: Documents,
    pub(super) connections: Arc<Connections>,
    pub(super) unread: Arc<Unread>,
}

/// A budget: its name, what is used, and what there is.
type Row = (&'static str, u64, u64);

impl Budgets {
    fn rows(&self) -> Vec<Row> {
        let of = |name, (used, limit): (usize, usize)| (name, whole(used), whole(limit));
        let (mirrors, of_callers) = self.registry.taken();
        let seats = self.registry.seats();
        let windows = self.registry.windows();
        let [allowed, denied] = self.verdicts.held();
        let (connections, anonymous) = self.connections.counts();
        let documents = (self.documents.held(), self.documents.budget());
        let remembered = self.registry.remembered();
        let objects = (remembered.held(), remembered.budget());
        vec![
            of("mirrors", (mirrors, seats.all)),
            of("caller_mirrors", (of_callers, seats.of_callers())),
            of("node_streams", self.upstream.lasting(Credential::Node)),
            of("bearer_streams", self.upstream.lasting(Credential::Bearer)),
            of("window_bytes", (windows.used(), windows.limit())),
            of("pinned_bytes", self.registry.pinned().held()),
            of("answer_bytes", self.unread.held()),
            of("verdicts", allowed),
            of("denials", denied),
            of("documents", (documents.0.objects, documents.1.objects)),
            ("document_bytes", documents.0.bytes, documents.1.bytes),
            of("objects", (objects.0.objects, objects.1.objects)),
            ("object_bytes", objects.0.bytes, objects.1.bytes),
            of("connections", (connections, self.limits.connections)),
            of(
                "anonymous_connections",
                (anonymous, self.limits.anonymous_connections),
            ),
        ]
    }
}

impl Collector for Budgets {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let rows = self.rows();
        let mut family = |name, help, of: fn(&Row) -> u64| -> fmt::Result {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for row in &rows {
                let value = i64::try_from(of(row)).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(family.encode_family(&[("budget", row.0)])?)?;
            }
            Ok(())
        };
        family("budget_used", "How much of a budget is used", |row| row.1)?;
        family("budget_limit", "How much a budget is", |row| row.2)
    }
}

fn whole(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
