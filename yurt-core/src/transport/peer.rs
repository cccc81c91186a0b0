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

/// Why the subject of a certificate names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSubject {
    /// There is no common name, or an empty one.
    #[error("the certificate has no common name")]
    NoCommonName,
    /// There are several common names: readers differ on which of them counts.
    #[error("the certificate has several common names")]
    SeveralCommonNames,
    /// The common name is in no encoding that we read.
    #[error("the certificate's common name cannot be read")]
    UnreadableCommonName,
}

// === Peer ===

impl Peer {
    /// Returns the peer that the subject of a certificate names: all of its common names, `None` for one that
    /// cannot be read, and its organizations.
    ///
    /// It has no `names` and no `chain`, and has expired, until the caller says otherwise.
    ///
    /// # Errors
    /// When there is not exactly one common name, or when it cannot be read.
    pub fn new<'a>(
        common_names: impl IntoIterator<Item = Option<&'a str>>,
        organizations: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, InvalidSubject> {
        let mut common_names = common_names.into_iter();
        let user = match (common_names.next(), common_names.next()) {
            (None | Some(Some("")), None) => return Err(InvalidSubject::NoCommonName),
            (Some(None), None) => return Err(InvalidSubject::UnreadableCommonName),
            (Some(Some(user)), None) => user,
            (_, Some(_)) => return Err(InvalidSubject::SeveralCommonNames),
        };
        Ok(Self {
            user: user.to_owned(),
            groups: organizations.into_iter().map(str::to_owned).collect(),
            names: Vec::new(),
            expires: SystemTime::UNIX_EPOCH,
            chain: Chain::default(),
        })
    }

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

// === Chain ===

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = self.0.iter().map(|der| format!("{} bytes", der.len()));
        f.debug_list().entries(lengths).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_certificate_of_one_common_name_names_somebody() {
        for (common_names, expected) in [
            (&[][..], Err(InvalidSubject::NoCommonName)),
            (&[Some("")], Err(InvalidSubject::NoCommonName)),
            (&[None], Err(InvalidSubject::UnreadableCommonName)),
            (&[Some("a")], Ok("a")),
            (
                &[Some("a"), Some("a")],
                Err(InvalidSubject::SeveralCommonNames),
            ),
            (&[Some("a"), None], Err(InvalidSubject::SeveralCommonNames)),
            (&[None, Some("a")], Err(InvalidSubject::SeveralCommonNames)),
            (
                &[Some(""), Some("a")],
                Err(InvalidSubject::SeveralCommonNames),
            ),
        ] {
            let peer = Peer::new(common_names.iter().copied(), []);
            let user = peer.as_ref().map(|peer| peer.user.as_str());
            assert_eq!(user, expected.as_ref().copied(), "{common_names:?}");
        }
    }

    #[test]
    fn a_node_is_named_as_one_and_of_the_nodes_group() {
        for (user, groups, node) in [
            (
                "system:node:edge-1",
                &["others", "system:nodes"][..],
                Some("edge-1"),
            ),
            ("system:node:edge-1", &["system:masters"], None),
            ("system:node:edge-1", &[], None),
            ("edge-1", &["system:nodes"], None),
            ("system:node:", &["system:nodes"], None),
            ("system:node:a/b", &["system:nodes"], None),
        ] {
            let peer = Peer::new([Some(user)], groups.iter().copied()).unwrap();
            let found = peer.node();
            assert_eq!(
                found.as_ref().map(NodeName::as_str),
                node,
                "{user} of {groups:?}"
            );
        }
    }
}
