//! The current content of the files, and the TLS configurations made of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use yurt_core::credentials::{Identity, Pem};
use yurt_core::transport::Peer;

use super::peer::kept;
use super::{Error, Files, Protocol, Refusal, peer};

/// The current content of the files, and the TLS configurations made of it.
pub(crate) struct Current {
    pub(super) pems: [Pem; 3],
    pub(super) own: Peer,
    pub(super) servers: [Arc<ServerConfig>; 3],
    pub(super) clients: [Arc<ClientConfig>; 3],
    roots: Arc<RootCertStore>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Current {
    pub(super) fn new(pems: [Pem; 3]) -> Result<Self, Error> {
        let [ca, certificate, key] = &pems;
        let mut roots = RootCertStore::empty();
        for root in ca.certificates()? {
            roots.add(root).map_err(|source| Error::AddRoot {
                path: ca.path().to_owned(),
                source,
            })?;
        }
        let roots = Arc::new(roots);
        let identity = Identity::parse(certificate, key)?;
        let own = peer(identity.leaf()).map_err(|source| Error::ReadCertificate {
            path: certificate.path().to_owned(),
            source,
        })?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(|source| Error::BuildVerifier {
                path: ca.path().to_owned(),
                source,
            })?;
        let unusable = |source| Error::UseCertificate {
            path: certificate.path().to_owned(),
            source,
        };
        let [quic, http2, door] = Protocol::ALL;
        let server = |protocol| server(protocol, &verifier, &identity).map_err(unusable);
        let servers = [server(quic)?, server(http2)?, server(door)?];
        let client = |protocol| client(protocol, &roots, &identity).map_err(unusable);
        let clients = [client(quic)?, client(http2)?, client(door)?];
        Ok(Self {
            own: Peer {
                chain: kept(identity.chain()),
                ..own
            },
            pems,
            servers,
            clients,
            roots,
            verifier,
        })
    }

    /// Whether both trust the same authorities.
    pub(crate) fn has_authorities_of(&self, other: &Self) -> bool {
        self.pems[0] == other.pems[0]
    }

    /// Whether a client that was accepted before would be accepted now: its certificate may have expired, or its
    /// authority may no longer be trusted.
    pub(crate) fn reverify_client(&self, client: &Peer, now: SystemTime) -> Result<(), Refusal> {
        let chain = certificates_of(client);
        let (leaf, others) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        let verified = self.verifier.verify_client_cert(leaf, others, unix(now));
        verified.map(drop).map_err(|error| Refusal::of_tls(&error))
    }

    /// Whether the authority of a server that was believed before is believed now; its certificate may have expired.
    pub(crate) fn reverify_server(&self, server: &Peer, now: SystemTime) -> Result<(), Refusal> {
        let chain = certificates_of(server);
        let (leaf, others) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        let leaf = ParsedCertificate::try_from(leaf).map_err(|error| Refusal::of_tls(&error))?;
        // Else its age would be the answer, and hide who has signed it.
        let when = unix(now.min(server.expires));
        let algorithms = provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&leaf, &self.roots, others, when, algorithms)
            .map_err(|error| Refusal::of_tls(&error))
    }
}

fn certificates_of(peer: &Peer) -> Vec<CertificateDer<'_>> {
    let chain = peer.chain.0.iter();
    chain.map(|der| CertificateDer::from(&**der)).collect()
}

fn unix(now: SystemTime) -> UnixTime {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or(Duration::ZERO))
}

/// The crypto provider of every TLS session of the tunnel.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server(
    protocol: Protocol,
    verifier: &Arc<dyn ClientCertVerifier>,
    identity: &Identity,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(protocol.versions())
        .expect("ring has both versions of TLS")
        .with_client_cert_verifier(verifier.clone())
        .with_single_cert(identity.chain().to_vec(), identity.key().clone_key())?;
    config.alpn_protocols = protocol.alpn();
    // Sessions are long and certificates short: nothing is resumed, and nothing kept for it.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client(
    protocol: Protocol,
    roots: &Arc<RootCertStore>,
    identity: &Identity,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(protocol.versions())
        .expect("ring has both versions of TLS")
        .with_root_certificates(roots.clone())
        .with_client_auth_cert(identity.chain().to_vec(), identity.key().clone_key())?;
    config.alpn_protocols = protocol.alpn();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

pub(super) fn read(files: &Files) -> Result<[Pem; 3], Error> {
    Ok([
        Pem::read(&files.ca)?,
        Pem::read(&files.certificate)?,
        Pem::read(&files.key)?,
    ])
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use testbed::pki::{Pki, Validity};

    use super::*;

    #[test]
    fn a_server_whose_certificate_has_expired_is_judged_by_its_authority() {
        let (pki, other) = (Pki::new(), Pki::new());
        let (certificate, key) = pki.client("system:node:edge-1", &["system:nodes"]);
        let believing = |authority: &Pki| {
            let pems = [authority.ca_pem(), &certificate, &key];
            Current::new(pems.map(|text| Pem::new("some.pem", text))).unwrap()
        };
        let (shown, _) = pki.server_for(
            &["tunnel.example"],
            Validity {
                not_before: "2020-01-01T00:00:00Z".parse().unwrap(),
                not_after: "2021-01-01T00:00:00Z".parse().unwrap(),
            },
        );
        let shown = CertificateDer::from_pem_slice(shown.as_bytes()).unwrap();
        let server = super::super::shown(Some(&[shown])).unwrap();
        let now = server.expires + Duration::from_secs(86_400);
        assert_eq!(believing(&pki).reverify_server(&server, now), Ok(()));
        let judged = believing(&other).reverify_server(&server, now);
        assert_eq!(judged, Err(Refusal::UnknownAuthority));
    }
}
