//! Would this node survive a reboot now, without the cloud? Observed facts become a report: for each
//! reason to doubt it a word, whether it is so, and a sentence for people.

mod assess;
pub(crate) mod condition;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use yurt_core::store::ErrorKind;

pub(crate) use self::assess::assess;

/// What was observed at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// The cloud can be reached.
    pub(crate) is_online: bool,
    /// What the kubelet lists, and what every other client has listed.
    pub(crate) scopes: Vec<ScopeFact>,
    /// The pods that are to run; `None` if the node's pods are not known.
    pub(crate) pods: Option<usize>,
    /// One of them is kube-proxy.
    pub(crate) has_proxy: bool,
    /// What the pods need and the store does not give.
    pub(crate) absent: Vec<Absent>,
    pub(crate) certificates: Vec<CertificateFact>,
    /// What lets service accounts in; `None` where no pod mounts a token.
    pub(crate) tokens: Option<TokenFact>,
    pub(crate) store: StoreFact,
    /// Reads that clients do and that no verdict of the cloud allows, in words.
    pub(crate) unjudged: Vec<String>,
}

/// Who needs a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    Kubelet,
    /// kube-proxy or whatever does its work: the scope is EndpointSlices.
    Proxy,
    Other,
}

/// One scope that somebody needs.
#[derive(Clone, Debug)]
pub(crate) struct ScopeFact {
    pub(crate) scope: String,
    pub(crate) user: User,
    pub(crate) state: ScopeState,
}

/// How far a scope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScopeState {
    /// Nobody has asked for it.
    Missing,
    /// Its first list is not complete.
    Syncing,
    /// The cloud refuses it.
    Refused,
    /// It is there as it was so long ago.
    Synced {
        behind: Option<Duration>,
        /// The store was damaged or the cloud was put back, and the scope was not listed since.
        is_suspect: bool,
    },
}

/// An object that a pod needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Absent {
    /// As `secrets shop/key`.
    pub(crate) object: String,
    pub(crate) pod: String,
}

/// A certificate that the node depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CertificateFact {
    pub(crate) certificate: Certificate,
    /// `None` if the file cannot be read.
    pub(crate) until: Option<Timestamp>,
}

/// Which certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certificate {
    /// The node's own, for the cloud.
    Client,
    /// The hub's, for its clients.
    Serving,
}

/// What lets service accounts in while the cloud is away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenFact {
    /// The cluster's keys are on the node.
    pub(crate) has_keys: bool,
    /// Pods that mount a token and for which none is remembered, where that is known.
    pub(crate) without: Option<usize>,
}

/// What the store says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StoreFact {
    /// Bytes that it occupies on a disk.
    pub(crate) disk_bytes: u64,
    pub(crate) free_bytes: Option<u64>,
    pub(crate) damaged: u64,
    /// Why the last write was refused.
    pub(crate) refuses: Option<ErrorKind>,
    /// Why the last sync failed.
    pub(crate) forgets: Option<ErrorKind>,
    /// For how long something written has not been synced.
    pub(crate) unsynced: Duration,
}

/// What is asked, in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Check {
    KubeletScopes,
    PodObjects,
    ProxyScopes,
    ClientScopes,
    Verdicts,
    Tokens,
    ClientCertificate,
    ServingCertificate,
    StoreDurable,
    StoreSpace,
    StoreDamage,
}

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Holds,
    Fails,
    Unknown,
}

/// One check and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) check: Check,
    pub(crate) outcome: Outcome,
    /// What is so, without figures that change by themselves.
    pub(crate) sentence: String,
    /// The figures that do, for who asks just now; may be empty.
    pub(crate) detail: String,
}

/// What is to be said of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) findings: Vec<Finding>,
    /// When it ends to hold by itself, as far as is known.
    pub(crate) until: Option<Timestamp>,
}

impl Report {
    /// Returns what all checks say together.
    pub(crate) fn outcome(&self) -> Outcome {
        let has = |outcome| self.findings.iter().any(|one| one.outcome == outcome);
        if has(Outcome::Fails) {
            Outcome::Fails
        } else if has(Outcome::Unknown) || self.findings.is_empty() {
            Outcome::Unknown
        } else {
            Outcome::Holds
        }
    }

    /// Returns the findings with this outcome.
    pub(crate) fn with(&self, outcome: Outcome) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(move |one| one.outcome == outcome)
    }
}

impl Check {
    /// Returns its word, which never changes.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::KubeletScopes => "KubeletScopes",
            Self::PodObjects => "PodObjects",
            Self::ProxyScopes => "ProxyScopes",
            Self::ClientScopes => "ClientScopes",
            Self::Verdicts => "Verdicts",
            Self::Tokens => "Tokens",
            Self::ClientCertificate => "ClientCertificate",
            Self::ServingCertificate => "ServingCertificate",
            Self::StoreDurable => "StoreDurable",
            Self::StoreSpace => "StoreSpace",
            Self::StoreDamage => "StoreDamage",
        }
    }
}

/// One line for each check, as kube-apiserver's `/readyz?verbose` prints.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let (mark, word) = match finding.outcome {
                Outcome::Holds => ('+', "ok"),
                Outcome::Fails => ('-', "failed"),
                Outcome::Unknown => ('?', "unknown"),
            };
            write!(f, "[{mark}] {} {word}: ", finding.check.as_str())?;
            f.write_str(&finding.sentence)?;
            if !finding.detail.is_empty() {
                write!(f, " ({})", finding.detail)?;
            }
            f.write_str("\n")?;
        }
        f.write_str(match self.outcome() {
            Outcome::Holds => "autonomy check passed\n",
            Outcome::Fails => "autonomy check failed\n",
            Outcome::Unknown => "autonomy check not decided\n",
        })
    }
}

#[cfg(test)]
mod tests;
