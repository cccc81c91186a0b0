//! Nodes that the operator refuses, whatever their certificates say: a file, read again while the server runs.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};
use yurt_core::error::Chain;
use yurt_core::name::NodeName;
use yurt_core::transport::{Opener, Peer};

use super::Shared;
use super::registry::Member;
use crate::identity::{Refusal, issued};

/// How often the file is read and sessions are checked.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// The reason that a denied agent gets.
pub(super) const DENIED: &str = "the operator denies this node";

/// Why a file of denied nodes is invalid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDenied {
    /// The file could not be read.
    #[error("read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is neither empty, nor a comment, nor about a node.
    #[error("{}, line {line}: {text:?} is not a node's name, alone or with an age such as 24h", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line.
        line: usize,
        /// What it says.
        text: String,
    },
}

/// The denied nodes: each with all its certificates, or only with those older than an age.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Denied(BTreeMap<NodeName, Option<Duration>>);

/// The current list.
#[derive(Debug, Default)]
pub(super) struct DeniedNodes(Mutex<Arc<Denied>>);

impl Denied {
    /// Reads a file; blocks on the disk.
    pub(super) fn read(path: &Path) -> Result<Self, InvalidDenied> {
        let text = std::fs::read_to_string(path).map_err(|source| InvalidDenied::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|(line, text)| InvalidDenied::Line {
            path: path.to_owned(),
            line,
            text,
        })
    }

    /// The error is a line's number and what it says.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut nodes = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let entry = line.split('#').next().unwrap_or_default();
            let words: Vec<_> = entry.split_whitespace().collect();
            let entry = match words[..] {
                [] => continue,
                [name] => name.parse().ok().map(|name| (name, None)),
                [name, age] => name.parse().ok().zip(hours(age).map(Some)),
                _ => None,
            };
            let (name, age) = entry.ok_or_else(|| (index + 1, line.chars().take(80).collect()))?;
            nodes.insert(name, age);
        }
        Ok(Self(nodes))
    }

    /// Whether a node may connect, or stay connected.
    fn judge(&self, node: &NodeName, peer: &Peer, now: SystemTime) -> Result<(), Refusal> {
        let is_denied = match self.0.get(node) {
            None => false,
            Some(None) => true,
            Some(Some(age)) => issued(peer)
                .is_none_or(|issued| now.duration_since(issued).is_ok_and(|old| old > *age)),
        };
        if is_denied {
            return Err(Refusal::Denied);
        }
        Ok(())
    }
}

fn hours(age: &str) -> Option<Duration> {
    let hours: u32 = age.strip_suffix('h')?.parse().ok()?;
    Some(Duration::from_secs(u64::from(hours) * 3_600))
}

impl DeniedNodes {
    pub(super) fn new(denied: Denied) -> Self {
        Self(Mutex::new(Arc::new(denied)))
    }

    /// Whether the agent of a node may connect, or stay connected, now.
    #[expect(clippy::disallowed_methods, reason = "where the clock comes from")]
    pub(super) fn judge(&self, node: &NodeName, peer: &Peer) -> Result<(), Refusal> {
        let denied = self.0.lock().clone();
        denied.judge(node, peer, SystemTime::now())
    }

    fn take(&self, fresh: Denied) {
        let mut denied = self.0.lock();
        if **denied != fresh {
            info!(nodes = fresh.0.len(), "read the denied nodes");
            *denied = Arc::new(fresh);
        }
    }
}

/// Reads the file and closes the sessions that it denies, periodically.
pub(super) async fn run(shared: Arc<Shared>, path: PathBuf) {
    let mut closing = JoinSet::new();
    let mut is_warned = false;
    let mut next = Instant::now() + CHECK_EVERY;
    loop {
        tokio::select! {
            () = sleep_until(next) => {}
            Some(_) = closing.join_next() => continue,
        }
        next = Instant::now() + CHECK_EVERY;
        let file = path.clone();
        // An error is a runtime that is going.
        match spawn_blocking(move || Denied::read(&file)).await {
            Ok(Ok(fresh)) => {
                shared.denied.take(fresh);
                is_warned = false;
            }
            Ok(Err(error)) if !is_warned => {
                warn!(error = %Chain(&error), "cannot read the denied nodes; the former list stays in force");
                is_warned = true;
            }
            Ok(Err(_)) | Err(_) => {}
        }
        for session in denied(&shared) {
            let (user, remote) = (&session.peer().user, session.remote());
            warn!(user, %remote, "closing the session of a denied node");
            shared.metrics.refused(Refusal::Denied);
            closing.spawn(async move { session.close(DENIED).await });
        }
    }
}

/// Returns the sessions of denied agents.
fn denied(shared: &Shared) -> Vec<Arc<dyn Opener>> {
    let all = shared.registry.all().into_iter();
    let denied = all.filter_map(|(member, entry)| match member {
        Member::Agent(node) => {
            let judged = shared.denied.judge(&node, entry.session.peer());
            judged.is_err().then_some(entry.session)
        }
        Member::Peer => None,
    });
    denied.collect()
}

#[cfg(test)]
mod tests {
    use testbed::pki::Pki;

    use super::*;

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    /// Who shows a certificate that the testbed's authority has issued.
    fn shown() -> Peer {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;
        let (certificate, _) = Pki::new().client("system:node:edge-1", &["system:nodes"]);
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        crate::identity::shown(Some(&[der])).unwrap()
    }

    #[test]
    fn a_node_is_denied_altogether_or_with_a_certificate_that_is_too_old() {
        let text = "# stolen\nedge-1\n\n edge-2  24h # installed anew\n";
        let denied = Denied::parse(text).unwrap();
        let peer = shown();
        let issued = issued(&peer).unwrap();
        let hours = |hours: u64| issued + Duration::from_secs(hours * 3_600);
        let judge = |name, peer: &Peer, now| denied.judge(&node(name), peer, now).is_ok();
        assert!(!judge("edge-1", &peer, hours(0)));
        assert!(judge("edge-2", &peer, hours(24)) && !judge("edge-2", &peer, hours(25)));
        assert!(judge("edge-3", &peer, hours(99)));
        let undated = Peer {
            chain: yurt_core::transport::Chain::default(),
            ..peer
        };
        assert!(!judge("edge-2", &undated, hours(0)), "its age is not known");
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        for (text, line) in [
            ("Not_A_Name", 1),
            ("edge-1\nedge-2 soon", 2),
            ("edge-1 24h 3", 1),
            ("edge-1 -1h", 1),
            ("edge-1 24", 1),
        ] {
            assert_eq!(Denied::parse(text).unwrap_err().0, line, "{text}");
        }
    }
}
