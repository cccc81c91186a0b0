//! What the files held when they were read last, and the configurations of TLS made of it.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use yurt_core::transport::Peer;

use super::peer::kept;
use super::{Error, Files, MAX_PEM_BYTES, Protocol, Refusal, peer};

/// What the files held when they were read last, and the configurations made of it.
pub(crate) struct Current {
    pub(super) bytes: [Vec<u8>; 3],
    pub(super) own: Peer,
    pub(super) servers: [Arc<ServerConfig>; 3],
    pub(super) clients: [Arc<ClientConfig>; 3],
    roots: Arc<RootCertStore>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Current {
    pub(super) fn new(files: &Files, bytes: [Vec<u8>; 3]) -> Result<Self, Error> {
        let [ca, certificate, key] = &bytes;
        let mut roots = RootCertStore::empty();
        for root in certificates(&files.ca, ca)? {
            roots.add(root).map_err(|source| Error::AddRoot {
                path: files.ca.clone(),
                source,
            })?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&files.certificate, certificate)?;
        let leaf = chain.first().expect("a bundle holds a certificate");
        let own = peer(leaf).map_err(|source| Error::ReadCertificate {
            path: files.certificate.clone(),
            source,
        })?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| Error::ParsePem {
            path: files.key.clone(),
            source,
        })?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(|source| Error::BuildVerifier {
                path: files.ca.clone(),
                source,
            })?;
        let [quic, http2, door] = Protocol::ALL;
        let server = |protocol| server(files, protocol, &verifier, &chain, &key);
        let servers = [server(quic)?, server(http2)?, server(door)?];
        let client = |protocol| client(files, protocol, &roots, &chain, &key);
        let clients = [client(quic)?, client(http2)?, client(door)?];
        Ok(Self {
            bytes,
            own: Peer {
                chain: kept(&chain),
                ..own
            },
            servers,
            clients,
            roots,
            verifier,
        })
    }

    /// Whether the same authorities are believed.
    pub(crate) fn has_authorities_of(&self, other: &Self) -> bool {
        self.bytes[0] == other.bytes[0]
    }

    /// Whether a client that was let in before would be let in now: its certificate may have expired, or its
    /// authority be believed no more.
    pub(crate) fn vouch_for_client(&self, client: &Peer, now: SystemTime) -> Result<(), Refusal> {
        let chain = certificates_of(client);
        let (leaf, others) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        let verified = self.verifier.verify_client_cert(leaf, others, unix(now));
        verified.map(drop).map_err(|error| Refusal::of_tls(&error))
    }

    /// Whether the authority of a server that was believed before is believed now; its certificate may have expired.
    pub(crate) fn vouch_for_server(&self, server: &Peer, now: SystemTime) -> Result<(), Refusal> {
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
    files: &Files,
    protocol: Protocol,
    verifier: &Arc<dyn ClientCertVerifier>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(protocol.versions())
        .expect("ring has both versions of TLS")
        .with_client_cert_verifier(verifier.clone())
        .with_single_cert(chain.to_vec(), key.clone_key())
        .map_err(|source| unusable(files, source))?;
    config.alpn_protocols = protocol.alpn();
    // Sessions are long and certificates short: nothing is resumed, and nothing kept for it.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client(
    files: &Files,
    protocol: Protocol,
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(protocol.versions())
        .expect("ring has both versions of TLS")
        .with_root_certificates(roots.clone())
        .with_client_auth_cert(chain.to_vec(), key.clone_key())
        .map_err(|source| unusable(files, source))?;
    config.alpn_protocols = protocol.alpn();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

fn unusable(files: &Files, source: rustls::Error) -> Error {
    Error::UseCertificate {
        path: files.certificate.clone(),
        source,
    }
}

pub(super) fn read(files: &Files) -> Result<[Vec<u8>; 3], Error> {
    Ok([
        read_file(&files.ca)?,
        read_file(&files.certificate)?,
        read_file(&files.key)?,
    ])
}

fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::ReadFile {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_PEM_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_PEM_BYTES {
        return Err(Error::TooLong {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|source| Error::ParsePem {
            path: path.to_owned(),
            source,
        })?;
    if found.is_empty() {
        return Err(Error::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use testbed::pki::{Pki, Validity};

    use super::*;

    #[test]
    fn a_server_whose_certificate_has_expired_is_judged_by_its_authority() {
        let (pki, other) = (Pki::new(), Pki::new());
        let (certificate, key) = pki.client("system:node:edge-1", &["system:nodes"]);
        let believing = |authority: &Pki| {
            let files = Files {
                ca: "ca".into(),
                certificate: "certificate".into(),
                key: "key".into(),
            };
            let pem = [authority.ca_pem(), &certificate, &key];
            Current::new(&files, pem.map(|text| text.as_bytes().to_vec())).unwrap()
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
        assert_eq!(believing(&pki).vouch_for_server(&server, now), Ok(()));
        let judged = believing(&other).vouch_for_server(&server, now);
        assert_eq!(judged, Err(Refusal::UnknownAuthority));
    }
}
