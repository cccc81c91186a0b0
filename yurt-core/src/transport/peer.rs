//! Who a peer is.

use std::fmt;
use std::time::SystemTime;

use crate::name::NodeName;

/// Who a peer has proven to be by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The subject's common name: a user, as Kubernetes sees it.
    pub user: String,
    /// The subject's organizations: the user's groups.
    pub groups: Vec<String>,
    /// The DNS names, addresses and URIs that the certificate was issued for.
    pub names: Vec<String>,
    /// When the certificate expires.
    pub expires: SystemTime,
    /// What the peer has shown, so that it can be judged again; empty if the transport does not keep it.
    pub chain: Chain,
}

/// Certificates, DER, each vouched for by the next; the first is the peer's own.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Chain(pub Box<[Box<[u8]>]>);

impl Peer {
    /// Returns the node whose certificate this is: `system:node:<name>` of the group `system:nodes`
    /// (Kubernetes, "Using Node Authorization").
    #[must_use]
    pub fn node(&self) -> Option<NodeName> {
        let name = self.user.strip_prefix("system:node:")?;
        if !self.groups.iter().any(|group| group == "system:nodes") {
            return None;
        }
        name.parse().ok()
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = self.0.iter().map(|der| format!("{} bytes", der.len()));
        f.debug_list().entries(lengths).finish()
    }
}
