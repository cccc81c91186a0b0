//! Observes what the autonomy of the node hangs on.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;
use yurt_core::credentials::Pem;
use yurt_core::store::Store;

use super::Autonomy;
use crate::api::{Resource, Scope};
use crate::authorize::Access;
use crate::autonomy::{
    Absent, Certificate, CertificateFact, Facts, ScopeFact, ScopeState, StoreFact, TokenFact, User,
};
use crate::hub::survey::{Pods, survey};
use crate::identity::{Caller, subject};
use crate::mirror::{Mirror, Phase};
use crate::retention::Needed;
use crate::store::synced::Durability;
use crate::upstream::Reach;

/// Clients whose reads are looked up, for one scope.
const READERS: [&str; 2] = ["list", "watch"];

impl Autonomy {
    /// Observes now. Blocks on the disk.
    pub(super) fn observe(&self, now: Instant) -> Facts {
        let survey = survey(&self.state.registry, &self.node);
        let mut scopes: Vec<ScopeFact> = survey
            .needs
            .kubelet
            .iter()
            .map(|scope| self.scope_fact(scope, now))
            .collect();
        let mirrors = self.state.registry.all();
        let others = mirrors.iter().filter(|mirror| {
            let is_kubelets = |needed: &Scope| mirror.scope.is_same(needed);
            !survey.needs.kubelet.iter().any(is_kubelets)
        });
        scopes.extend(others.map(|mirror| ScopeFact {
            scope: mirror.scope.to_string(),
            user: user(&mirror.scope),
            state: state(mirror, now),
        }));
        let named = Named::among(&mirrors);
        let absent = survey
            .needs
            .objects
            .iter()
            .filter(|one| self.is_absent(one, &named));
        Facts {
            is_online: matches!(*self.state.upstream.reach().borrow(), Reach::Online),
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
                has_keys: self.state.authenticator.cluster().is_some(),
                without: None,
            }),
            store: self.store_fact(now),
            unjudged: self.unjudged(&survey.needs.kubelet, &mirrors),
        }
    }

    fn scope_fact(&self, scope: &Scope, now: Instant) -> ScopeFact {
        let mirror = self.state.registry.find(scope);
        ScopeFact {
            scope: scope.to_string(),
            user: User::Kubelet,
            state: mirror.map_or(ScopeState::Missing, |mirror| state(&mirror, now)),
        }
    }

    /// Returns whether the kubelet would ask for the object in vain.
    fn is_absent(&self, needed: &Needed, named: &Named) -> bool {
        let registry = &self.state.registry;
        let stored = registry
            .known_kind(&needed.resource)
            .map(|kind| kind.newest(&needed.namespace, &needed.name));
        if !matches!(stored, Some(Ok(Some(_)))) {
            return !needed.is_optional;
        }
        // A kubelet that watches single objects lists them first, and what was read by name is no list.
        if !named.resources.contains(&needed.resource) {
            return false;
        }
        let scope = needed.scope();
        let is_listed = || {
            registry
                .find(&scope)
                .is_some_and(|mirror| mirror.is_synced())
        };
        !named.synced.contains(&scope.identity()) && !is_listed()
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
        let verdicts = &self.state.verdicts;
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
            if self.state.registry.find(scope).is_some() {
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

/// The mirrors of single objects.
struct Named {
    resources: HashSet<Resource>,
    synced: HashSet<String>,
}

impl Named {
    fn among(mirrors: &[Arc<Mirror>]) -> Self {
        let named = mirrors.iter().filter(|one| one.scope.name().is_some());
        let synced = named.clone().filter(|one| one.is_synced());
        Self {
            resources: named.map(|one| one.scope.resource.clone()).collect(),
            synced: synced.map(|one| one.scope.identity()).collect(),
        }
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
    let chain = Pem::read(path).and_then(|pem| pem.certificates()).ok()?;
    Some(subject::peer_validity(chain.first()?)?.not_after)
}
