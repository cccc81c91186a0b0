//! TLS: the one choice of a crypto provider, and what the hub presents and trusts as a
//! client and as a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use yurt_core::credentials::{CredentialsError, Identity, Pem};

/// Why TLS could not be set up from what is on the disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TlsError {
    /// A file cannot be used.
    #[error(transparent)]
    ReadFile(#[from] CredentialsError),
    /// A CA certificate cannot be trusted.
    #[error("add the CA certificate of {}", path.display())]
    AddRoot {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The provider lacks every protocol version that we allow.
    #[error("choose the TLS versions")]
    ChooseVersions(#[source] rustls::Error),
    /// A certificate and its key do not belong together or cannot be used.
    #[error("use the certificate and its key")]
    UseIdentity(#[source] rustls::Error),
    /// Client certificates cannot be verified against the CA.
    #[error("build the verifier of client certificates")]
    BuildVerifier(#[source] VerifierBuilderError),
}

/// What is spoken over TLS, as its ALPN names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `h2`, for everything but upgrades.
    Http2,
    /// `http/1.1`, which alone can be upgraded.
    Http1,
}

impl Protocol {
    /// Everything that the hub speaks, the best first.
    pub(crate) const ALL: &[Self] = &[Self::Http2, Self::Http1];

    /// The name in ALPN.
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"h2",
            Self::Http1 => b"http/1.1",
        }
    }

    /// What was agreed on: HTTP/1.1 where nothing was.
    pub(crate) fn chosen(alpn: Option<&[u8]>) -> Self {
        match alpn {
            Some(b"h2") => Self::Http2,
            _ => Self::Http1,
        }
    }
}

fn names(protocols: &[Protocol]) -> Vec<Vec<u8>> {
    let names = protocols.iter().map(|protocol| protocol.alpn().to_vec());
    names.collect()
}

/// The crypto provider of every TLS session in this process.
pub(crate) fn provider() -> CryptoProvider {
    #[cfg(feature = "aws-lc-rs")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    let provider = rustls::crypto::ring::default_provider();
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    compile_error!("yurt-cache needs one of its features `ring` and `aws-lc-rs`");
    provider
}

/// Returns whether the key is that of the certificate.
pub(crate) fn is_pair(identity: &Identity) -> bool {
    certified(identity).is_ok()
}

// === Configurations ===

/// Reads the certificates of a CA file as the only ones to trust.
pub(crate) fn read_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    roots(&Pem::read(path)?)
}

/// Takes the certificates of a CA as the only ones to trust.
pub(crate) fn roots(ca: &Pem) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in ca.certificates()? {
        roots.add(certificate).map_err(|source| TlsError::AddRoot {
            path: ca.path().to_owned(),
            source,
        })?;
    }
    Ok(roots)
}

/// What a client trusts, presents and speaks.
pub(crate) fn client_config(
    roots: RootCertStore,
    identity: Option<&Identity>,
    offered: &[Protocol],
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::ChooseVersions)?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => builder
            .with_client_auth_cert(identity.chain().to_vec(), identity.key().clone_key())
            .map_err(TlsError::UseIdentity)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = names(offered);
    Ok(config)
}

/// Lets every client in that holds the key of the certificate it shows, whoever signed that: whom it names is to be
/// verified when the connection stands, so that a client whose certificate is worth nothing may come with a token.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: a client with several certificates would keep back those of a CA that came later.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies client certificates of a CA.
pub(crate) fn client_verifier(
    roots: RootCertStore,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider()))
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::BuildVerifier)
}

/// What a listener presents: it may change while it listens.
#[derive(Debug)]
pub(crate) struct Presented(RwLock<Arc<CertifiedKey>>);

impl Presented {
    /// Presents a certificate.
    pub(crate) fn new(identity: &Identity) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(certified(identity)?)))
    }

    /// Presents another one from now on; who is connected does not notice.
    pub(crate) fn replace(&self, identity: &Identity) -> Result<(), TlsError> {
        *self.0.write() = certified(identity)?;
        Ok(())
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, TlsError> {
    let (chain, key) = (identity.chain().to_vec(), identity.key().clone_key());
    CertifiedKey::from_der(chain, key, &provider())
        .map(Arc::new)
        .map_err(TlsError::UseIdentity)
}

/// What a listener presents. It takes any client certificate: see [`AnyCertificate`].
pub(crate) fn server_config(presented: Arc<Presented>) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::ChooseVersions)?
        .with_client_cert_verifier(Arc::new(AnyCertificate(provider())))
        .with_cert_resolver(presented);
    config.alpn_protocols = names(Protocol::ALL);
    // A resumed session would skip the check of a client certificate that expired meanwhile.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::pki_types::ServerName;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    struct Authority(Issuer<'static, KeyPair>, String);

    impl Authority {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let pem = params.self_signed(&key).unwrap().pem();
            Self(Issuer::new(params, key), pem)
        }

        fn roots(&self) -> RootCertStore {
            roots(&Pem::new("ca", self.1.as_bytes())).unwrap()
        }

        fn issue(&self, until: i32) -> Identity {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(["hub".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
            let pem = params.signed_by(&key, &self.0).unwrap().pem() + &key.serialize_pem();
            let both = Pem::new("both", pem);
            Identity::parse(&both, &both).unwrap()
        }
    }

    fn presented(authority: &Authority) -> Arc<Presented> {
        Arc::new(Presented::new(&authority.issue(4000)).unwrap())
    }

    /// What was agreed on, and whether the client showed a certificate; nothing if it was refused.
    async fn shake(server: ServerConfig, client: ClientConfig) -> Option<(Vec<u8>, bool)> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from("hub").unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let connector = TlsConnector::from(Arc::new(client));
        let (server, _client) = tokio::join!(acceptor.accept(far), connector.connect(name, near));
        let server = server.ok()?;
        let session = server.get_ref().1;
        let is_shown = session.peer_certificates().is_some();
        Some((session.alpn_protocol()?.to_vec(), is_shown))
    }

    #[tokio::test]
    async fn any_client_certificate_passes_whose_key_the_client_holds() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let table = [
            (None, false),
            (Some(ours.issue(4000)), true),
            (Some(ours.issue(2001)), true),
            (Some(theirs.issue(4000)), true),
        ];
        for (shown, is_shown) in table {
            let server = server_config(presented(&ours)).unwrap();
            let client = client_config(ours.roots(), shown.as_ref(), Protocol::ALL).unwrap();
            let agreed = shake(server, client).await;
            assert_eq!(agreed, Some((b"h2".to_vec(), is_shown)));
        }
    }

    #[tokio::test]
    async fn a_client_certificate_without_its_key_is_refused() {
        let ours = Authority::new();
        let (stolen, own) = (ours.issue(4000), ours.issue(4000));
        let key = provider()
            .key_provider
            .load_private_key(own.key().clone_key())
            .unwrap();
        let certificate = Arc::new(CertifiedKey::new(stolen.chain().to_vec(), key));
        let mut client = client_config(ours.roots(), None, Protocol::ALL).unwrap();
        client.client_auth_cert_resolver =
            Arc::new(rustls::sign::SingleCertAndKey::from(certificate));
        let server = server_config(presented(&ours)).unwrap();
        assert_eq!(shake(server, client).await, None);
    }

    #[tokio::test]
    async fn a_server_of_another_ca_is_refused() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let server = server_config(presented(&theirs)).unwrap();
        let client = client_config(ours.roots(), None, &[Protocol::Http1]).unwrap();
        assert_eq!(shake(server, client).await, None);
        let server = server_config(presented(&ours)).unwrap();
        let client = client_config(ours.roots(), None, &[Protocol::Http1]).unwrap();
        let agreed = shake(server, client).await;
        assert_eq!(agreed, Some((b"http/1.1".to_vec(), false)));
    }

    #[tokio::test]
    async fn what_is_presented_changes_while_it_is_used() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let changing = presented(&theirs);
        for (replacement, expected) in [(None, false), (Some(ours.issue(4000)), true)] {
            if let Some(identity) = replacement {
                changing.replace(&identity).unwrap();
            }
            let server = server_config(changing.clone()).unwrap();
            let client = client_config(ours.roots(), None, Protocol::ALL).unwrap();
            assert_eq!(shake(server, client).await.is_some(), expected);
        }
    }

    #[test]
    fn what_is_no_ca_is_refused_with_its_path() {
        let other = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (pem, expected) in [
            ("", "no PEM certificate in some.pem"),
            (other, "add the CA certificate of some.pem"),
        ] {
            let refused = roots(&Pem::new("some.pem", pem)).unwrap_err();
            assert_eq!(refused.to_string(), expected);
        }
    }
}
