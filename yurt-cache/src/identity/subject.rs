//! What a certificate says of itself: whom it speaks for, with which key, and how long.
//!
//! Its chain is for TLS to verify.

use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use yurt_core::name::NodeName;
use yurt_core::transport::Peer;

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
    let common_names = subject.iter_common_name().map(|name| name.as_str().ok());
    let organizations = subject.iter_organization();
    let organizations = organizations.filter_map(|name| name.as_str().ok());
    Peer::new(common_names, organizations).ok()?.node()
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
    fn a_certificate_speaks_for_the_node_that_its_subject_names() {
        // The same OID by another name, or the second would replace the first.
        let kinds = [DnType::CommonName, DnType::CustomDnType(vec![2, 5, 4, 3])];
        for (common_names, organization, node) in [
            (&["system:node:edge-1"][..], "system:nodes", Some("edge-1")),
            (&["system:node:edge-1"], "system:masters", None),
            (
                &["system:node:edge-1", "system:node:edge-2"],
                "system:nodes",
                None,
            ),
            (&[], "system:nodes", None),
        ] {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            let subject = &mut params.distinguished_name;
            for (kind, name) in kinds.iter().zip(common_names) {
                subject.push(kind.clone(), *name);
            }
            subject.push(DnType::OrganizationName, organization);
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let named = peer_node_name(certificate.der());
            let expected = node.map(|name| name.parse().unwrap());
            assert_eq!(named, expected, "{common_names:?} of {organization}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_certificate_of_any_bytes_is_nobody(bytes: Vec<u8>) {
            proptest::prop_assert_eq!(peer_node_name(&bytes), None);
        }
    }
}
