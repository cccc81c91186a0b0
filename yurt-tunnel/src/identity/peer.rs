//! Who a certificate is about.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use yurt_core::transport::{Chain, Peer};

use super::Refusal;

/// A certificate that TLS has accepted and that nobody can be named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate is not readable: {0}")]
pub struct InvalidCertificate(&'static str);

/// Returns who a certificate, DER, is about. It proves nothing: TLS has verified it before.
///
/// # Errors
/// When it is not an X.509 certificate with a common name.
pub fn peer(certificate: &[u8]) -> Result<Peer, InvalidCertificate> {
    let (rest, certificate) =
        X509Certificate::from_der(certificate).map_err(|_| InvalidCertificate("not X.509"))?;
    if !rest.is_empty() {
        return Err(InvalidCertificate("something follows it"));
    }
    let subject = certificate.subject();
    let user = subject
        .iter_common_name()
        .find_map(|name| name.as_str().ok());
    let groups = subject
        .iter_organization()
        .filter_map(|name| name.as_str().ok());
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| InvalidCertificate("its names are malformed"))?;
    let names = names.map(|names| names.value.general_names.iter().filter_map(name_of));
    let expires = certificate.validity().not_after.timestamp();
    Ok(Peer {
        user: user.ok_or(InvalidCertificate("no common name"))?.to_owned(),
        groups: groups.map(str::to_owned).collect(),
        names: names.into_iter().flatten().collect(),
        expires: SystemTime::UNIX_EPOCH + Duration::from_secs(expires.try_into().unwrap_or(0)),
        chain: Chain::default(),
    })
}

/// Returns who has shown these certificates, and keeps them: whether they are believed may have to be asked again.
pub(crate) fn shown(chain: Option<&[CertificateDer<'_>]>) -> Result<Peer, Refusal> {
    let chain = chain.unwrap_or_default();
    let leaf = chain.first().ok_or(Refusal::NoCertificate)?;
    let peer = peer(leaf).map_err(|_| Refusal::Other)?;
    Ok(Peer {
        chain: kept(chain),
        ..peer
    })
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
    fn a_node_is_one_of_the_nodes_group_only() {
        let pki = Pki::new();
        for (user, groups) in [
            ("system:node:edge-1", &["others"][..]),
            ("system:node:edge-1", &[]),
            ("edge-1", &["system:nodes"]),
            ("system:node:", &["system:nodes"]),
            ("system:node:a/b", &["system:nodes"]),
        ] {
            let (certificate, _) = pki.client(user, groups);
            let peer = peer(&der(&certificate)).unwrap();
            assert_eq!(peer.node(), None, "{user} of {groups:?}");
        }
    }

    #[test]
    fn a_servers_certificate_has_its_names_and_addresses() {
        let (certificate, _) = Pki::new().server(&["tunnel.example", "192.0.2.7"]);
        let peer = peer(&der(&certificate)).unwrap();
        assert_eq!(peer.names, ["tunnel.example", "192.0.2.7"]);
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
