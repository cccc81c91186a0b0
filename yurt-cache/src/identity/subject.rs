//! What a certificate says of itself: whom it speaks for, with which key, and how long.
//!
//! Its chain is for TLS to verify.

use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use yurt_core::name::NodeName;

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

/// The node that a client certificate speaks for: `system:node:<name>` of `system:nodes`.
pub(crate) fn peer_node_name(certificate: &[u8]) -> Option<NodeName> {
    let certificate = parse(certificate)?;
    let subject = certificate.subject();
    let mut common_names = subject.iter_common_name();
    // Readers differ on which of several counts.
    let (Some(common_name), None) = (common_names.next(), common_names.next()) else {
        return None;
    };
    let is_node = subject
        .iter_organization()
        .any(|organization| organization.as_str() == Ok("system:nodes"));
    let name = common_name.as_str().ok()?.strip_prefix("system:node:")?;
    is_node.then(|| name.parse().ok())?
}

/// The public key of a certificate, `SubjectPublicKeyInfo`.
pub(crate) fn peer_public_key(certificate: &[u8]) -> Option<Vec<u8>> {
    Some(parse(certificate)?.public_key().raw.to_vec())
}

/// From when until when a certificate is valid.
pub(crate) fn peer_validity(certificate: &[u8]) -> Option<Validity> {
    let validity = parse(certificate)?.validity().clone();
    Some(Validity {
        not_before: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
        not_after: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
    })
}

/// Reads a whole certificate, and nothing behind it.
pub(crate) fn parse(certificate: &[u8]) -> Option<X509Certificate<'_>> {
    match X509Certificate::from_der(certificate) {
        Ok(([], certificate)) => Some(certificate),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    #[test]
    fn only_a_node_of_the_nodes_group_has_a_node_name() {
        let certificate = |common_names: &[&str], organizations: &[&str]| {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            for name in common_names {
                params.distinguished_name.push(DnType::CommonName, *name);
            }
            for name in organizations {
                params
                    .distinguished_name
                    .push(DnType::OrganizationName, *name);
            }
            let key = KeyPair::generate().unwrap();
            params.self_signed(&key).unwrap().der().to_vec()
        };
        let node = certificate(&["system:node:edge-1"], &["system:nodes"]);
        assert_eq!(peer_node_name(&node).unwrap().as_str(), "edge-1");
        for (common_names, organizations) in [
            (&["system:node:edge-1"][..], &[][..]),
            (&["system:node:edge-1"], &["system:masters"]),
            (&["system:node:"], &["system:nodes"]),
            (&["system:node:no/name"], &["system:nodes"]),
            (&["edge-1"], &["system:nodes"]),
            (&[], &["system:nodes"]),
        ] {
            let other = certificate(common_names, organizations);
            assert_eq!(
                peer_node_name(&other),
                None,
                "{common_names:?} {organizations:?}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn a_certificate_of_any_bytes_is_nobody(bytes: Vec<u8>) {
            proptest::prop_assert_eq!(peer_node_name(&bytes), None);
        }
    }
}
