//! Lets the node in by its client certificate also when that has expired and could not be renewed: whatever the
//! calendar says, the node's own kubelet is not locked out of its own node. Nobody else is forgiven anything.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use tokio::time::Instant;
use yurt_core::name::NodeName;

use super::Authenticator;
use super::judge::{JudgedAt, SLACK, later};
use super::subject::{Validity, peer_node_name, peer_validity};

/// How long after the link came back the node may renew what expired meanwhile.
const RENEWAL: Duration = Duration::from_secs(24 * 3_600);

/// Verifies client certificates: all as the cluster's CA says, the node's own with some patience.
pub(crate) struct NodeVerifier {
    strict: Arc<dyn ClientCertVerifier>,
    node: NodeName,
    authenticator: Arc<Authenticator>,
}

impl NodeVerifier {
    pub(crate) fn new(
        strict: Arc<dyn ClientCertVerifier>,
        node: NodeName,
        authenticator: Arc<Authenticator>,
    ) -> Self {
        Self {
            strict,
            node,
            authenticator,
        }
    }

    /// Verifies the node's own certificate as of a time when it was valid, if that may count now.
    fn verify_patiently(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        refused: Error,
    ) -> Result<ClientCertVerified, Error> {
        let is_own = peer_node_name(certificate).as_ref() == Some(&self.node);
        let Some(validity) = peer_validity(certificate).filter(|_| is_own) else {
            return Err(refused);
        };
        let back_for = self.authenticator.back_for(Instant::now());
        let Some(then) = forgive(validity, self.authenticator.moment(), back_for) else {
            return Err(refused);
        };
        let verified = self
            .strict
            .verify_client_cert(certificate, intermediates, unix(then))?;
        self.authenticator.forgiven.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            not_before = %validity.not_before,
            not_after = %validity.not_after,
            "the node's client certificate is not valid now: the node is let in all the same"
        );
        Ok(verified)
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

impl ClientCertVerifier for NodeVerifier {
    fn offer_client_auth(&self) -> bool {
        self.strict.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.strict.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.strict.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let now = unix(self.authenticator.now());
        match self
            .strict
            .verify_client_cert(end_entity, intermediates, now)
        {
            Err(refused) if is_about_time(&refused) => {
                self.verify_patiently(end_entity, intermediates, refused)
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
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
}
