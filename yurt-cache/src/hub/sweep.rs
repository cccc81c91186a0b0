//! Looks again and again for what nobody needs any more, and tells how much is kept and how much went.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use yurt_core::name::NodeName;
use yurt_core::store::Result;

use super::Config;
use super::state::State;
use super::survey::survey;
use crate::authorize::{self, Verdicts};
use crate::discovery::Documents;
use crate::follow::registry::Registry;
use crate::retention::{Bounds, Held, Retention};
use crate::tasks::{Panicked, blocking};
use crate::upstream::{Link, Reach, Upstream};

/// How often what nobody needs is looked for.
const EVERY: Duration = Duration::from_secs(30);

/// How often it is written how far mirrors have followed a cloud in which nothing of theirs happens: a restart resumes
/// there. Each is some hundred bytes, so that an idle node's flash hardly notices.
const PROGRESS: Duration = Duration::from_secs(1_800);

/// How long whoever asks for room waits, so that many are served by one look.
const GATHER: Duration = Duration::from_secs(1);

/// Kinds that are shown by themselves, so that a scrape stays small.
const KINDS: usize = 200;

/// What is counted as gone, by what it was.
type Counts = Family<[(&'static str, &'static str); 1], Counter>;

/// What looks.
#[derive(Debug)]
pub(super) struct Sweeping {
    upstream: Upstream,
    registry: Arc<Registry>,
    documents: Documents,
    verdicts: Arc<Verdicts>,
    node: NodeName,
    every: Duration,
    gone: Counts,
}

/// Returns how long and how much is kept: of mirrors and objects, of documents, of verdicts.
pub(super) fn retention(config: &Config) -> (Retention, Bounds, authorize::Retention) {
    let mirrors = Retention {
        mirror_idle: config.mirror_idle,
        age: config.forget_after,
        by_name: config.objects_by_name,
        per_kind: config.per_kind,
        kinds: config.kinds.clone(),
    };
    let documents = Bounds {
        age: config.forget_after,
        budget: config.documents,
    };
    let verdicts = authorize::Retention {
        limit: config.verdict_limit,
        secret_limit: config.secret_verdict_limit,
        age: config.forget_after,
        count: config.verdicts,
        of_caller: config.limits.caller_verdicts,
    };
    (mirrors, documents, verdicts)
}

impl Sweeping {
    pub(super) fn new(config: &Config, state: &State) -> Self {
        Self {
            upstream: state.upstream.clone(),
            registry: state.registry.clone(),
            documents: state.documents.clone(),
            verdicts: state.verdicts.clone(),
            node: config.node_name.clone(),
            every: EVERY.min(config.mirror_idle),
            gone: Family::default(),
        }
    }

    /// Looks until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut progress = tokio::time::interval_at(Instant::now() + PROGRESS, PROGRESS);
        let sweeping = Arc::new(self);
        let remembered = sweeping.registry.remembered().clone();
        loop {
            let crowded = async {
                remembered.crowded.notified().await;
                tokio::time::sleep(GATHER).await;
            };
            tokio::select! {
                () = stop.cancelled() => return sweeping.note_progress().await,
                _ = progress.tick() => {
                    sweeping.note_progress().await;
                    continue;
                }
                _ = ticks.tick() => {}
                () = crowded => {}
            }
            let swept = sweeping.clone();
            if let Err(error) = blocking(move || swept.sweep(Instant::now())).await {
                tracing::warn!(%error, "what nobody needs is not erased");
            }
        }
    }

    async fn note_progress(&self) {
        let registry = self.registry.clone();
        let noting = move || {
            registry.note_progress();
            Ok::<_, Panicked>(())
        };
        // A panic is told already.
        let _told = blocking(noting).await;
    }

    fn sweep(&self, now: Instant) -> Result<()> {
        let is_online = matches!(*self.upstream.reach().borrow(), Reach::Online);
        let needs = is_online.then(|| survey(&self.registry, &self.node).settled());
        let needs = needs.flatten();
        let link = if is_online { Link::Up } else { Link::Cut };
        let gone = self.registry.sweep(now, link, needs.as_ref())?;
        self.count("mirror", gone.mirrors);
        self.count("object", gone.objects);
        if let Some(needs) = &needs {
            self.count("verdict", self.verdicts.sweep(now, needs));
        }
        if is_online {
            self.count("document", self.documents.sweep(now)?);
        }
        Ok(())
    }

    fn count(&self, what: &'static str, gone: usize) {
        let gone = u64::try_from(gone).unwrap_or(u64::MAX);
        self.gone.get_or_create(&[("what", what)]).inc_by(gone);
    }

    /// Returns what tells the metrics.
    pub(super) fn collector(&self) -> SweepCollector {
        SweepCollector {
            registry: Arc::clone(&self.registry),
            documents: self.documents.clone(),
            verdicts: self.verdicts.clone(),
            gone: self.gone.clone(),
        }
    }
}

/// How much is kept, read at each scrape.
#[derive(Debug)]
pub(super) struct SweepCollector {
    registry: Arc<Registry>,
    documents: Documents,
    verdicts: Arc<Verdicts>,
    gone: Counts,
}

impl Collector for SweepCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::result::Result<(), fmt::Error> {
        self.gone.encode(encoder.encode_descriptor(
            "forgotten",
            "What went because nobody used it or it was over a budget",
            None,
            MetricType::Counter,
        )?)?;
        let verdicts = Held {
            objects: self.verdicts.held().map(|(held, _)| held).iter().sum(),
            bytes: 0,
        };
        let remembered = [
            ("object", self.registry.remembered().held()),
            ("document", self.documents.held()),
            ("verdict", verdicts),
        ];
        // Several versions of a resource have one name.
        let mut of_names: BTreeMap<String, Held> = BTreeMap::new();
        for kind in self.registry.kinds() {
            let held = of_names.entry(kind.resource.to_string()).or_default();
            *held = held.plus(kind.held());
        }
        let kinds: Vec<(String, Held)> = of_names.into_iter().take(KINDS).collect();
        let mut family = |name, help, label, rows: &[(String, i64)]| -> fmt::Result {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (value, figure) in rows {
                let labels = [(label, value.as_str())];
                ConstGauge::new(*figure).encode(family.encode_family(&labels)?)?;
            }
            Ok(())
        };
        let remembered = remembered.map(|(what, held)| (what.to_owned(), held));
        family(
            "remembered",
            "What is remembered outside of mirrors",
            "what",
            &counts(&remembered),
        )?;
        family("remembered_bytes", "Its bytes", "what", &bytes(&remembered))?;
        family(
            "kind_objects",
            "Objects of the kind",
            "resource",
            &counts(&kinds),
        )?;
        family(
            "kind_bytes",
            "Bytes of the kind's objects",
            "resource",
            &bytes(&kinds),
        )
    }
}

fn counts(rows: &[(String, Held)]) -> Vec<(String, i64)> {
    let count = |held: &Held| i64::try_from(held.objects).unwrap_or(i64::MAX);
    rows.iter()
        .map(|(name, held)| (name.clone(), count(held)))
        .collect()
}

fn bytes(rows: &[(String, Held)]) -> Vec<(String, i64)> {
    let bytes = |held: &Held| i64::try_from(held.bytes).unwrap_or(i64::MAX);
    rows.iter()
        .map(|(name, held)| (name.clone(), bytes(held)))
        .collect()
}
