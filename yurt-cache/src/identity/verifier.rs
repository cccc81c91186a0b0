//! Lets the node in by its client certificate also when that has expired and could not be renewed: whatever the
//! calendar says, the node's own kubelet is not locked out of its own node. Nobody else is forgiven anything.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::RwLock;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error};
use tokio::time::Instant;
use yurt_core::credentials::Pem;
use yurt_core::name::NodeName;

use super::Authenticator;
use super::judge::{JudgedAt, SLACK, later};
use super::subject::{Validity, peer_node_name, peer_validity};
use crate::tls::{self, TlsError};

/// How long after the link came back the node may renew what expired meanwhile.
const RENEWAL: Duration = Duration::from_secs(24 * 3_600);

/// Verifies client certificates: all as the cluster's CA says, the node's own with some patience.
pub(crate) struct NodeVerifier {
    client_ca: Arc<ClientCa>,
    node: NodeName,
    authenticator: Arc<Authenticator>,
}

impl NodeVerifier {
    pub(crate) fn new(
        client_ca: Arc<ClientCa>,
        node: NodeName,
        authenticator: Arc<Authenticator>,
    ) -> Self {
        Self {
            client_ca,
            node,
            authenticator,
        }
    }

    /// Returns whether the CA vouches for the first certificate, now.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        let Some((certificate, intermediates)) = chain.split_first() else {
            return Err(Error::NoCertificatesPresented);
        };
        let now = unix(self.authenticator.now());
        let strict = self.client_ca.verifier();
        match strict.verify_client_cert(certificate, intermediates, now) {
            Err(refused) if is_about_time(&refused) => {
                self.verify_patiently(&*strict, certificate, intermediates, refused)
            }
            verified => verified.map(drop),
        }
    }

    /// Verifies the node's own certificate as of a time when it was valid, if that may count now.
    fn verify_patiently(
        &self,
        strict: &dyn ClientCertVerifier,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        refused: Error,
    ) -> Result<(), Error> {
        let is_own = peer_node_name(certificate).as_ref() == Some(&self.node);
        let Some(validity) = peer_validity(certificate).filter(|_| is_own) else {
            return Err(refused);
        };
        let back_for = self.authenticator.back_for(Instant::now());
        let Some(then) = forgive(validity, self.authenticator.moment(), back_for) else {
            return Err(refused);
        };
        strict.verify_client_cert(certificate, intermediates, unix(then))?;
        self.authenticator.forgiven.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            not_before = %validity.not_before,
            not_after = %validity.not_after,
            "the node's client certificate is not valid now: the node is let in all the same"
        );
        Ok(())
    }
}

/// Whose client certificates count: the certificates of a file, which may change.
#[derive(Debug)]
pub(crate) struct ClientCa {
    file: PathBuf,
    last: RwLock<Vouching>,
}

/// What a file said, and what verifies by it.
#[derive(Debug)]
struct Vouching {
    pem: Pem,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Vouching {
    fn of(pem: Pem) -> Result<Self, TlsError> {
        let verifier = tls::client_verifier(tls::roots(&pem)?)?;
        Ok(Self { pem, verifier })
    }
}

impl ClientCa {
    /// Reads the file for the first time; blocks on the disk.
    pub(crate) fn read(file: &Path) -> Result<Self, TlsError> {
        Ok(Self {
            file: file.to_owned(),
            last: RwLock::new(Vouching::of(Pem::read(file)?)?),
        })
    }

    /// Takes in what the file says now, if it changed and is whole; blocks on the disk.
    pub(crate) fn refresh(&self) {
        match self.load_changed() {
            Ok(None) => {}
            Ok(Some(changed)) => {
                tracing::info!(file = %self.file.display(), "the CA of client certificates changed");
                *self.last.write() = changed;
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the CA of client certificates cannot be used: keeping the last good one"
            ),
        }
    }

    fn load_changed(&self) -> Result<Option<Vouching>, TlsError> {
        let pem = Pem::read(&self.file)?;
        if self.last.read().pem == pem {
            return Ok(None);
        }
        Vouching::of(pem).map(Some)
    }

    fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.last.read().verifier.clone()
    }
}

/// Returns as of when a certificate that is not valid now is to be verified, if it is forgiven. `back_for` is how
/// long the cloud has been there, `None` while it is not.
fn forgive(validity: Validity, moment: JudgedAt, back_for: Option<Duration>) -> Option<Timestamp> {
    let now = moment.time();
    if validity.not_before > validity.not_after {
        return None;
    }
    if now > validity.not_after {
        let may_be_renewed = back_for.is_none_or(|back_for| back_for < RENEWAL);
        let is_recent = now <= later(validity.not_after, moment.limit);
        return (may_be_renewed && is_recent).then_some(validity.not_after);
    }
    if now < validity.not_before {
        // What was made just before the link was cut may be younger than the last note of a contact.
        let is_near = validity.not_before <= later(now, SLACK);
        return is_near.then_some(validity.not_before);
    }
    // Only the clock said no, and the cloud knows better.
    Some(now)
}

fn unix(at: Timestamp) -> UnixTime {
    let seconds = u64::try_from(at.as_second()).unwrap_or_default();
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn is_about_time(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
        )
    )
}

impl fmt::Debug for NodeVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeVerifier")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    const DAY: i64 = 86_400;
    const CUT: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_certificate_that_could_not_be_renewed_is_forgiven_up_to_the_limit() {
        let valid = Validity {
            not_before: at(CUT - 300 * DAY),
            not_after: at(CUT + DAY),
        };
        let day = Duration::from_secs(86_400);
        let end = Some(valid.not_after);
        for (now, back_for, expected) in [
            (2 * DAY, None, end),
            (30 * DAY, None, end),
            (32 * DAY, None, None),
            (2 * DAY, Some(Duration::ZERO), end),
            (2 * DAY, Some(day * 2), None),
            // The clock is an hour behind, or was never set.
            (-3_600, None, Some(at(CUT))),
            (-CUT, None, Some(at(CUT))),
        ] {
            let moment = JudgedAt {
                now: at(CUT + now),
                contact: Some(at(CUT)),
                limit: day * 30,
            };
            assert_eq!(
                forgive(valid, moment, back_for),
                expected,
                "{now} {back_for:?}"
            );
        }
    }

    #[test]
    fn a_certificate_from_the_future_is_not_valid_unless_the_clock_must_be_wrong() {
        let moment = JudgedAt {
            now: at(0),
            contact: Some(at(CUT)),
            limit: Duration::from_secs(86_400),
        };
        let from = |not_before| Validity {
            not_before: at(not_before),
            not_after: at(CUT + 300 * DAY),
        };
        let forgiven = |not_before| forgive(from(not_before), moment, None);
        assert_eq!(forgiven(CUT + 60), Some(at(CUT + 60)));
        assert_eq!(forgiven(CUT + DAY), None);
        let never = JudgedAt {
            contact: None,
            ..moment
        };
        assert_eq!(forgive(from(CUT), never, None), None);
        let backwards = Validity {
            not_before: at(CUT + 400 * DAY),
            ..from(CUT)
        };
        assert_eq!(forgive(backwards, moment, None), None);
    }

    /// A CA as a file says it, and what signs with it.
    fn authority() -> (String, Issuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        (pem, Issuer::new(params, key))
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's files need no crash")]
    fn the_ca_of_clients_is_read_again_and_a_broken_file_is_not_taken() {
        let (old, new) = (authority(), authority());
        let issue = |issuer: &Issuer<'static, KeyPair>| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(["node".to_owned()]).unwrap();
            params.signed_by(&key, issuer).unwrap().der().clone()
        };
        let (by_old, by_new) = (issue(&old.1), issue(&new.1));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.crt");
        std::fs::write(&file, &old.0).unwrap();
        let ca = ClientCa::read(&file).unwrap();
        let now = UnixTime::now();
        let trusts = |certificate| {
            ca.verifier()
                .verify_client_cert(certificate, &[], now)
                .is_ok()
        };
        assert!(trusts(&by_old) && !trusts(&by_new));
        std::fs::write(&file, "half of a fi").unwrap();
        ca.refresh();
        assert!(trusts(&by_old) && !trusts(&by_new));
        std::fs::write(&file, old.0 + &new.0).unwrap();
        ca.refresh();
        assert!(trusts(&by_old) && trusts(&by_new));
        std::fs::write(&file, &new.0).unwrap();
        ca.refresh();
        assert!(!trusts(&by_old) && trusts(&by_new));
    }
}
