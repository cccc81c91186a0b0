//! The identity in a certificate.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use yurt_core::transport::{Chain, InvalidSubject, Peer};

use super::Refusal;

/// Why a certificate that TLS has accepted names no peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCertificate {
    /// It is malformed.
    #[error("the certificate is malformed: {0}")]
    Unreadable(&'static str),
    /// Its subject does not name one user.
    #[error(transparent)]
    Subject(#[from] InvalidSubject),
}

/// Returns the identity in a certificate, DER. It verifies nothing: TLS has done that before.
///
/// # Errors
/// When it is not an X.509 certificate with one common name.
pub fn peer(certificate: &[u8]) -> Result<Peer, InvalidCertificate> {
    let unreadable = InvalidCertificate::Unreadable;
    let (rest, certificate) =
        X509Certificate::from_der(certificate).map_err(|_| unreadable("not X.509"))?;
    if !rest.is_empty() {
        return Err(unreadable("something follows it"));
    }
    let subject = certificate.subject();
    let users = subject.iter_common_name().map(|name| name.as_str().ok());
    let groups = subject.iter_organization();
    let groups = groups.filter_map(|name| name.as_str().ok());
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| unreadable("its names are malformed"))?;
    let names = names.map(|names| names.value.general_names.iter().filter_map(name_of));
    let expires = certificate.validity().not_after.timestamp();
    Ok(Peer {
        names: names.into_iter().flatten().collect(),
        expires: SystemTime::UNIX_EPOCH + Duration::from_secs(expires.try_into().unwrap_or(0)),
        ..Peer::new(users, groups)?
    })
}

/// Returns the identity in a chain of certificates, and keeps the chain, to verify it again later.
pub(crate) fn shown(chain: Option<&[CertificateDer<'_>]>) -> Result<Peer, Refusal> {
    let chain = chain.unwrap_or_default();
    let leaf = chain.first().ok_or(Refusal::NoCertificate)?;
    let peer = peer(leaf).map_err(|_| Refusal::Other)?;
    Ok(Peer {
        chain: kept(chain),
        ..peer
    })
}

/// Returns when the certificate of a peer was issued, if it has shown one.
pub(crate) fn issued(peer: &Peer) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(peer.chain.0.first()?).ok()?;
    let issued = certificate.validity().not_before.timestamp();
    let issued = Duration::from_secs(issued.try_into().unwrap_or(0));
    Some(SystemTime::UNIX_EPOCH + issued)
}

/// Returns the bytes of certificates.
pub(super) fn kept(chain: &[CertificateDer<'_>]) -> Chain {
    Chain(chain.iter().map(|der| der.as_ref().into()).collect())
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or(v6).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use rustls::pki_types::pem::PemObject;
    use testbed::pki::Pki;

    use super::*;

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn a_nodes_certificate_names_the_node() {
        let pki = Pki::new();
        let (certificate, _) = pki.client("system:node:edge-1", &["system:nodes"]);
        let peer = peer(&der(&certificate)).unwrap();
        assert_eq!(peer.user, "system:node:edge-1");
        assert_eq!(peer.groups, ["system:nodes"]);
        assert_eq!(peer.node().unwrap().as_str(), "edge-1");
        assert!(peer.expires > SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn a_servers_certificate_has_its_names_and_addresses() {
        let (certificate, _) = Pki::new().server(&["tunnel.example", "192.0.2.7"]);
        let peer = peer(&der(&certificate)).unwrap();
        assert_eq!(peer.names, ["tunnel.example", "192.0.2.7"]);
    }

    #[test]
    fn a_certificate_of_several_common_names_is_nobodys() {
        // The same OID by another name, or the second would replace the first.
        let again = DnType::CustomDnType(vec![2, 5, 4, 3]);
        for (first, second) in [
            (DnType::CommonName, again.clone()),
            (again, DnType::CommonName),
        ] {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            let subject = &mut params.distinguished_name;
            subject.push(first, "system:node:edge-1");
            subject.push(second, "system:node:edge-2");
            subject.push(DnType::OrganizationName, "system:nodes");
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            assert_eq!(
                peer(certificate.der()).map(|peer| peer.user),
                Err(InvalidSubject::SeveralCommonNames.into())
            );
        }
    }

    #[test]
    fn what_is_no_certificate_is_an_error() {
        let (certificate, _) = Pki::new().server(&["tunnel.example"]);
        let certificate = der(&certificate);
        assert!(peer(&certificate[..certificate.len() - 1]).is_err());
        assert!(peer(&[certificate.as_ref(), b"more"].concat()).is_err());
        assert!(peer(b"").is_err());
    }
}
