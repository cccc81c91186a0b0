//! From facts to findings.

use std::time::Duration;

use jiff::Timestamp;
use yurt_core::store::ErrorKind;

use super::{
    Certificate, CertificateFact, Check, Facts, Finding, Outcome, Report, ScopeFact, ScopeState,
    StoreFact, TokenFact, User,
};
use crate::api::{elapsed, human};

/// How long a scope may not follow a cloud that is there: a watch is opened again in half a minute at most.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(300);

/// How long a write may wait for its sync: the hub syncs within 100 ms, a slow flash takes a second.
const SYNCS_WITHIN: Duration = Duration::from_secs(10);

/// What a store must have left: its compaction takes two segments of 8 MiB, and a scope that is listed again
/// is written twice.
const ROOM: u64 = 32 << 20;

/// Names in one sentence; the rest is counted.
const NAMES: usize = 3;

/// Says whether a node would survive a reboot.
pub(crate) fn assess(facts: &Facts, now: Timestamp) -> Report {
    let mut findings = vec![
        kubelet_scopes(facts),
        pod_objects(facts),
        proxy_scopes(facts),
        client_scopes(facts),
        verdicts(facts),
    ];
    findings.extend(facts.tokens.map(tokens));
    let certificates = facts.certificates.iter();
    findings.extend(certificates.map(|one| certificate(*one, now)));
    findings.extend([
        store_durable(&facts.store),
        store_space(&facts.store),
        store_damage(facts),
    ]);
    Report {
        findings,
        until: facts.certificates.iter().filter_map(|one| one.until).min(),
    }
}

fn finding(check: Check, outcome: Outcome, sentence: impl Into<String>) -> Finding {
    Finding {
        check,
        outcome,
        sentence: sentence.into(),
        detail: String::new(),
    }
}

/// Says that all is well, or what of it is not.
fn unless(check: Check, wrong: &[String], well: impl Into<String>, intro: &str) -> Finding {
    if wrong.is_empty() {
        finding(check, Outcome::Holds, well)
    } else {
        finding(check, Outcome::Fails, format!("{intro}{}", names(wrong)))
    }
}

/// Writes some names and counts the rest.
fn names(all: &[String]) -> String {
    let shown = all[..all.len().min(NAMES)].join("; ");
    match all.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

// === Scopes ===

fn kubelet_scopes(facts: &Facts) -> Finding {
    let wrong = wrong(facts, User::Kubelet);
    let well = "what the kubelet lists before it starts a pod is on the node";
    Finding {
        detail: age(facts, User::Kubelet),
        ..unless(Check::KubeletScopes, &wrong, well, "")
    }
}

fn proxy_scopes(facts: &Facts) -> Finding {
    let mut wrong = wrong(facts, User::Proxy);
    let is_asked = facts.scopes.iter().any(|one| one.user == User::Proxy);
    if facts.has_proxy && !is_asked {
        wrong.push("kube-proxy runs on the node and does not ask the hub".to_owned());
    }
    let well = if is_asked {
        "the EndpointSlices that clients list are on the node"
    } else {
        "nobody on the node asks the hub for EndpointSlices"
    };
    Finding {
        detail: age(facts, User::Proxy),
        ..unless(Check::ProxyScopes, &wrong, well, "")
    }
}

fn client_scopes(facts: &Facts) -> Finding {
    let wrong = wrong(facts, User::Other);
    let well = "what other clients list is on the node";
    Finding {
        detail: age(facts, User::Other),
        ..unless(Check::ClientScopes, &wrong, well, "")
    }
}

fn wrong(facts: &Facts, user: User) -> Vec<String> {
    let mine = facts.scopes.iter().filter(|one| one.user == user);
    mine.filter_map(|one| what_is_wrong(one, facts.is_online))
        .collect()
}

fn what_is_wrong(one: &ScopeFact, is_online: bool) -> Option<String> {
    let scope = &one.scope;
    match one.state {
        ScopeState::Missing => Some(format!("nobody has listed {scope} through the hub")),
        ScopeState::Syncing => Some(format!("{scope} is not complete yet")),
        ScopeState::Refused => Some(format!("the cloud refuses {scope}")),
        // While the cloud is away everything is behind, and as good as it can be.
        ScopeState::Synced { behind, .. }
            if is_online && behind.is_some_and(|behind| behind > FOLLOWS_WITHIN) =>
        {
            Some(format!("{scope} does not follow the cloud"))
        }
        ScopeState::Synced { .. } => None,
    }
}

/// How many scopes there are, and how old the oldest is.
fn age(facts: &Facts, user: User) -> String {
    let mine = facts.scopes.iter().filter(|one| one.user == user);
    let behind = mine.clone().filter_map(|one| match one.state {
        ScopeState::Synced { behind, .. } => Some(behind.unwrap_or_default()),
        ScopeState::Missing | ScopeState::Syncing | ScopeState::Refused => None,
    });
    let synced = behind.clone().count();
    match behind.max() {
        None => String::new(),
        Some(Duration::ZERO) => format!("{synced} of {}, live", mine.count()),
        Some(oldest) => format!(
            "{synced} of {}, up to {} behind",
            mine.count(),
            human(oldest)
        ),
    }
}

// === Pods ===

fn pod_objects(facts: &Facts) -> Finding {
    let Some(pods) = facts.pods else {
        let sentence = "the pods of the node are not known";
        return finding(Check::PodObjects, Outcome::Fails, sentence);
    };
    let absent: Vec<String> = facts
        .absent
        .iter()
        .map(|one| format!("pod {} needs {}", one.pod, one.object))
        .collect();
    let well = "what the pods of the node refer to is on the node";
    Finding {
        detail: format!("{pods} pods"),
        ..unless(Check::PodObjects, &absent, well, "not on the node: ")
    }
}

fn verdicts(facts: &Facts) -> Finding {
    unless(
        Check::Verdicts,
        &facts.unjudged,
        "what clients may read is remembered",
        "the cloud has not said whether this is allowed: ",
    )
}

fn tokens(fact: TokenFact) -> Finding {
    let (outcome, sentence) = match fact {
        TokenFact {
            has_keys: false, ..
        } => (
            Outcome::Fails,
            "the keys by which tokens are verified are not on the node",
        ),
        TokenFact {
            without: None | Some(0),
            ..
        } => (Outcome::Holds, "the pods' tokens can be verified"),
        TokenFact {
            without: Some(_), ..
        } => (Outcome::Fails, "tokens of pods are not remembered"),
    };
    let without = fact.without.map(|pods| format!("{pods} pods without"));
    Finding {
        detail: without.unwrap_or_default(),
        ..finding(Check::Tokens, outcome, sentence)
    }
}

// === Certificates ===

fn certificate(fact: CertificateFact, now: Timestamp) -> Finding {
    let (check, whose) = match fact.certificate {
        Certificate::Client => (Check::ClientCertificate, "the node's certificate"),
        Certificate::Serving => (Check::ServingCertificate, "the hub's serving certificate"),
    };
    let Some(until) = fact.until else {
        let sentence = format!("{whose} cannot be read");
        return finding(check, Outcome::Fails, sentence);
    };
    if until <= now {
        let sentence = format!("{whose} ended at {until}");
        return finding(check, Outcome::Fails, sentence);
    }
    Finding {
        detail: format!("{} left", human(elapsed(now, until))),
        ..finding(
            check,
            Outcome::Holds,
            format!("{whose} lives until {until}"),
        )
    }
}

// === Store ===

fn store_durable(store: &StoreFact) -> Finding {
    let (outcome, sentence) = if let Some(kind) = store.refuses {
        (
            Outcome::Fails,
            format!("the store takes no write: {}", why(kind)),
        )
    } else if let Some(kind) = store.forgets {
        (
            Outcome::Fails,
            format!("the store cannot sync: {}", why(kind)),
        )
    } else if store.disk_bytes == 0 {
        (Outcome::Fails, "the store occupies no disk".to_owned())
    } else if store.unsynced > SYNCS_WITHIN {
        (Outcome::Fails, "the store does not come to sync".to_owned())
    } else {
        (
            Outcome::Holds,
            "what was remembered is on the disk".to_owned(),
        )
    };
    finding(Check::StoreDurable, outcome, sentence)
}

fn why(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Full => "the disk is full",
        ErrorKind::ReadOnly => "the disk takes no writes",
        ErrorKind::Damaged => "the disk is damaged",
        _ => "the disk fails",
    }
}

fn store_space(store: &StoreFact) -> Finding {
    let Some(free) = store.free_bytes else {
        let sentence = "the store does not say how much room it has";
        return finding(Check::StoreSpace, Outcome::Holds, sentence);
    };
    let (outcome, sentence) = if free < ROOM {
        (Outcome::Fails, "the disk is nearly full")
    } else {
        (Outcome::Holds, "the disk has room")
    };
    Finding {
        detail: format!("{} MiB free", free >> 20),
        ..finding(Check::StoreSpace, outcome, sentence)
    }
}

/// What was damaged matters until the cloud was asked for it again; of single objects the pods' are checked.
fn store_damage(facts: &Facts) -> Finding {
    let suspect: Vec<String> = facts
        .scopes
        .iter()
        .filter(|one| matches!(one.state, ScopeState::Synced { is_suspect, .. } if is_suspect))
        .map(|one| one.scope.clone())
        .collect();
    let intro = "the store was damaged or the cloud was put back, and this was not listed since: ";
    let well = if facts.store.damaged == 0 {
        "the store is whole"
    } else {
        "the store was damaged, and what it lost was fetched again"
    };
    Finding {
        detail: format!("{} damaged records", facts.store.damaged),
        ..unless(Check::StoreDamage, &suspect, well, intro)
    }
}
