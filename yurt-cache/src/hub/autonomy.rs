//! Looks again and again whether the node would survive a reboot, and tells whoever asks: a page, the
//! metrics, and the cloud by a condition of the Node.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{Request, StatusCode};
use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use yurt_core::name::NodeName;
use yurt_core::store::Store;

use super::Config;
use super::flush::{Durability, Flushing};
use crate::authorize::Access;
use crate::autonomy::condition::{self, Attempt, Condition, MANAGER, Seen};
use crate::autonomy::{
    Absent, Certificate, CertificateFact, Facts, Report, ScopeFact, ScopeState, StoreFact,
    TokenFact, User, Verdict, assess,
};
use crate::body;
use crate::codec::Status;
use crate::identity::{Caller, certificate};
use crate::metrics::gauge;
use crate::mirror::fetch::AGENT;
use crate::mirror::scope::Scope;
use crate::mirror::{Mirror, Phase};
use crate::needs::survey::{Pods, survey};
use crate::needs::{Needed, node_scope};
use crate::proxy::Proxy;
use crate::tls;
use crate::upstream::Reach;

/// Clients whose reads are looked up, for one scope.
const READERS: [&str; 2] = ["list", "watch"];

/// Whether a condition is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    Cloud,
    Nobody,
}

/// What looks.
pub(super) struct Autonomy {
    proxy: Arc<Proxy>,
    flushing: Arc<Flushing>,
    node: NodeName,
    /// The certificates to look at.
    certificates: Vec<(Certificate, PathBuf)>,
    telling: Telling,
    /// Between two looks.
    period: Duration,
    latest: Arc<Mutex<Report>>,
    /// One look at a time, however many ask.
    looking: tokio::sync::Mutex<()>,
}

impl Autonomy {
    pub(super) fn new(config: &Config, proxy: Arc<Proxy>, flushing: Arc<Flushing>) -> Self {
        let client = config.upstream.client_certificate.clone();
        let telling = if client.is_some() && config.autonomy_condition {
            Telling::Cloud
        } else {
            Telling::Nobody
        };
        // One of the hub's own making is renewed by a restart, with or without the cloud.
        let serving = config.serving_certificate.clone();
        let certificates = [
            (Certificate::Client, client),
            (Certificate::Serving, serving),
        ]
        .into_iter()
        .filter_map(|(which, path)| Some((which, path?)))
        .collect();
        Self {
            proxy,
            flushing,
            node: config.node_name.clone(),
            certificates,
            telling,
            period: config.autonomy_period,
            latest: Arc::default(),
            looking: tokio::sync::Mutex::default(),
        }
    }

    /// Returns what tells the metrics.
    pub(super) fn told(&self) -> Told {
        Told(self.latest.clone())
    }

    /// Looks again and again, and when the link comes and goes, until `stop`.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reach = self.proxy.upstream.reach();
        let mut last = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                Ok(()) = reach.changed() => {}
            }
            let report = self.look().await;
            if self.telling == Telling::Cloud {
                let told = self.tell(&report, last);
                match stop.run_until_cancelled(told).await {
                    None => return,
                    Some(told) => last = told,
                }
            }
        }
    }

    /// Looks now.
    pub(super) async fn look(self: &Arc<Self>) -> Report {
        let _looking = self.looking.lock().await;
        let autonomy = self.clone();
        let look = move || {
            let facts = autonomy.observe(Instant::now());
            assess(&facts, (autonomy.proxy.clock)())
        };
        let report = tokio::task::spawn_blocking(look)
            .await
            .expect("looking at what is remembered does not panic");
        *self.latest.lock() = report.clone();
        report
    }

    // === Telling ===

    /// Writes the condition if it is due; returns when that was tried last, and whether it was refused.
    async fn tell(
        &self,
        report: &Report,
        last: Option<(Instant, bool)>,
    ) -> Option<(Instant, bool)> {
        let attempt = last.map(|(at, was_refused)| Attempt {
            ago: at.elapsed(),
            was_refused,
        });
        let now = (self.proxy.clock)();
        // What the cloud has is known while the Node is followed, and nothing is written blindly.
        let due = self
            .seen()
            .and_then(|seen| condition::plan(report, &seen, attempt, self.period, now));
        let Some(condition) = due else {
            return last;
        };
        let refused = self.write(&condition, now).await.err();
        match &refused {
            None => {
                tracing::info!(
                    status = condition.status,
                    reason = condition.reason,
                    "told the cloud of the node's autonomy"
                )
            }
            Some(status) => {
                tracing::warn!(code = %status.code, message = status.message, "the cloud does not take the node's autonomy condition")
            }
        }
        Some((Instant::now(), refused.is_some()))
    }

    /// Returns what the cloud has now; `None` while that is not known.
    fn seen(&self) -> Option<Seen> {
        let registry = &self.proxy.registry;
        let mirror = registry.find(&node_scope(&self.node))?;
        if !mirror.is_live() {
            return None;
        }
        let (_, text) = mirror.kind.newest("", self.node.as_str(), None).ok()??;
        condition::read(&text)
    }

    /// Writes the condition as the node.
    async fn write(&self, condition: &Condition, now: Timestamp) -> Result<(), Status> {
        let node = self.node.as_str();
        let uri = format!("/api/v1/nodes/{node}/status?fieldManager={MANAGER}&force=true");
        let patch = condition::patch(node, condition, now).to_string();
        let request = Request::patch(uri)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/apply-patch+yaml")
            .header(USER_AGENT, AGENT)
            .body(body::full(patch))
            .expect("a node's name is a part of a path");
        let sent = self.proxy.upstream.send(Caller::Node.credential(), request);
        let response = sent
            .await
            .map_err(|error| Status::internal(&format!("write the condition: {error}")))?;
        let code = response.status();
        let text = body::read(response.into_body(), self.proxy.object_limit)
            .await
            .map_err(|error| Status::internal(&format!("read the answer: {error}")))?;
        match code {
            StatusCode::OK | StatusCode::CREATED => Ok(()),
            code => Err(Status::received(code, &text)),
        }
    }

    // === Observing ===

    fn observe(&self, now: Instant) -> Facts {
        let survey = survey(&self.proxy.registry, &self.node);
        let mut scopes: Vec<ScopeFact> = survey
            .needs
            .kubelet
            .iter()
            .map(|scope| self.scope_fact(scope, now))
            .collect();
        let mirrors = self.proxy.registry.all();
        let others = mirrors.iter().filter(|mirror| {
            let is_kubelets = |needed: &Scope| mirror.scope.is_same(needed);
            !survey.needs.kubelet.iter().any(is_kubelets)
        });
        scopes.extend(others.map(|mirror| ScopeFact {
            scope: mirror.scope.to_string(),
            user: user(&mirror.scope),
            state: state(mirror, now),
        }));
        let absent = survey
            .needs
            .objects
            .iter()
            .filter(|one| self.is_absent(one));
        Facts {
            is_online: matches!(*self.proxy.upstream.reach().borrow(), Reach::Online),
            scopes,
            pods: (survey.pods == Pods::Known).then_some(survey.needs.pods),
            has_proxy: survey.needs.has_proxy,
            absent: absent
                .map(|one| Absent {
                    object: one.to_string(),
                    pod: one.pod.to_string(),
                })
                .collect(),
            certificates: self.certificates.iter().map(certificate_fact).collect(),
            tokens: survey.needs.has_tokens.then(|| TokenFact {
                has_keys: self.proxy.authenticator.cluster().is_some(),
                without: None,
            }),
            store: self.store_fact(now),
            unjudged: self.unjudged(&survey.needs.kubelet, &mirrors),
        }
    }

    fn scope_fact(&self, scope: &Scope, now: Instant) -> ScopeFact {
        let mirror = self.proxy.registry.find(scope);
        ScopeFact {
            scope: scope.to_string(),
            user: User::Kubelet,
            state: mirror.map_or(ScopeState::Missing, |mirror| state(&mirror, now)),
        }
    }

    /// Returns whether the kubelet would ask for the object in vain.
    fn is_absent(&self, needed: &Needed) -> bool {
        let registry = &self.proxy.registry;
        let Some(kind) = registry.known_kind(&needed.resource) else {
            return !needed.is_optional;
        };
        let stored = kind.newest(&needed.namespace, &needed.name, None);
        if !matches!(stored, Ok(Some(_))) {
            return !needed.is_optional;
        }
        let is_listed = |scope: &Scope| {
            let found = registry.find(scope);
            found.is_some_and(|mirror| mirror.is_synced())
        };
        // A kubelet that watches single objects lists them first, and what was read by name is no list.
        let is_watched_by_name = registry.all().iter().any(|mirror| {
            mirror.scope.resource == needed.resource && mirror.scope.name().is_some()
        });
        is_watched_by_name && !is_listed(&needed.scope())
    }

    fn store_fact(&self, now: Instant) -> StoreFact {
        let health = self.flushing.health();
        let mut fact = StoreFact {
            disk_bytes: health.disk_bytes,
            free_bytes: health.free_bytes,
            damaged: health.damaged,
            ..StoreFact::default()
        };
        match self.flushing.durability(now) {
            Durability::Synced { but_for } => fact.unsynced = but_for,
            Durability::Refuses(kind) => fact.refuses = Some(kind),
            Durability::Forgets(kind) => fact.forgets = Some(kind),
        }
        fact
    }

    /// Returns reads that will be refused while the cloud is away although nobody has refused them.
    fn unjudged(&self, kubelet: &[Scope], mirrors: &[Arc<Mirror>]) -> Vec<String> {
        let verdicts = &self.proxy.verdicts;
        let mut unjudged = Vec::new();
        let mut look_up = |caller: &Caller, scope: &Scope| {
            for verb in READERS {
                let access = Access::to_scope(verb, scope);
                let is_open = verdicts.check_offline(caller, &access).is_ok();
                if !is_open && !verdicts.is_judged(caller, &access) {
                    let who = if *caller == Caller::Node {
                        "the node"
                    } else {
                        "a service account"
                    };
                    unjudged.push(format!("{who} to {verb} {scope}"));
                }
            }
        };
        for scope in kubelet {
            // What is not mirrored is told of elsewhere.
            if self.proxy.registry.find(scope).is_some() {
                look_up(&Caller::Node, scope);
            }
        }
        for mirror in mirrors {
            for caller in mirror.callers() {
                look_up(&caller, &mirror.scope);
            }
        }
        unjudged.sort();
        unjudged.dedup();
        unjudged
    }
}

fn user(scope: &Scope) -> User {
    if scope.resource.group == "discovery.k8s.io" && scope.resource.plural == "endpointslices" {
        User::Proxy
    } else {
        User::Other
    }
}

fn state(mirror: &Mirror, now: Instant) -> ScopeState {
    match mirror.phase() {
        Phase::Syncing => ScopeState::Syncing,
        Phase::Refused(_) | Phase::Failed(_) => ScopeState::Refused,
        Phase::Live | Phase::Behind => ScopeState::Synced {
            behind: mirror.behind_since().map(|since| now.duration_since(since)),
            is_suspect: mirror.is_suspect(),
        },
    }
}

/// Reads when a certificate ends. Blocks on the disk: certificates rotate.
fn certificate_fact((which, path): &(Certificate, PathBuf)) -> CertificateFact {
    CertificateFact {
        certificate: *which,
        until: read_not_after(path),
    }
}

fn read_not_after(path: &Path) -> Option<Timestamp> {
    let text = tls::read_file(path).ok()?;
    let leaf = CertificateDer::from_pem_slice(&text).ok()?;
    Some(certificate::peer_validity(&leaf)?.not_after)
}

impl fmt::Debug for Autonomy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Autonomy")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// What the metrics tell: the latest look.
#[derive(Debug)]
pub(super) struct Told(Arc<Mutex<Report>>);

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let report = self.0.lock().clone();
        if let Some(until) = report.until {
            gauge(
                &mut encoder,
                "autonomy_until_timestamp_seconds",
                "When a certificate ends that the node depends on",
                until.as_second(),
            )?;
        }
        let mut family = encoder.encode_descriptor(
            "autonomy",
            "Whether the node would survive a reboot without the cloud, by check: 1 yes, 0 no, -1 unknown",
            None,
            MetricType::Gauge,
        )?;
        for finding in &report.findings {
            let value: i64 = match finding.verdict {
                Verdict::Holds => 1,
                Verdict::Fails => 0,
                Verdict::Unknown => -1,
            };
            let labels = [("check", finding.check.as_str())];
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
