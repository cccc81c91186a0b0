//! The hub's own CA and what it signs: made, kept, and judged after a restart.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::UnixTime;
use rustls::server::ParsedCertificate;
use tracing::info;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use yurt_core::credentials::{Identity, Pem};

use super::CertificateError;
use super::files::{
    AUTHORITY_FILE, AUTHORITY_KEY, SERVING_FILE, SERVING_KEY, read_pair, write_pair,
};
use crate::identity::subject::parse;
use crate::tls;

/// How long clients can rely on the CA file that they were handed.
const AUTHORITY_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
const SERVING_LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);

/// Whether a certificate is worth replacing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    Young,
    Old,
}

/// The hub's own CA.
pub(super) struct Authority {
    key: KeyPair,
}

impl Authority {
    /// The CA of an earlier start, if it is whole and outlives the next serving certificate.
    pub(super) fn load(dir: &Path, now: Timestamp) -> Option<Self> {
        let identity = read_pair(dir, AUTHORITY_FILE, AUTHORITY_KEY)?;
        let key = KeyPair::try_from(identity.key()).ok()?;
        let certificate = parse(identity.leaf())?;
        let lives_on = left(&certificate, now) > SERVING_LIFETIME;
        (lives_on && certificate.public_key().raw == key.subject_public_key_info())
            .then_some(Self { key })
    }

    pub(super) fn make(dir: &Path, now: Timestamp) -> Result<Self, CertificateError> {
        let failed = |source| CertificateError::Make("the hub's own CA", source);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = Self::params();
        limit(&mut params, now, AUTHORITY_LIFETIME)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        write_pair(
            dir,
            (AUTHORITY_KEY, &key.serialize_pem()),
            (AUTHORITY_FILE, &certificate.pem()),
        )?;
        info!(dir = %dir.display(), "made a CA of the hub's own");
        Ok(Self { key })
    }

    /// Always the same, so that a key alone brings the issuer back.
    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "yurt hub's own CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// The serving certificate of an earlier start, if clients would accept it now.
    pub(super) fn load_serving(
        &self,
        dir: &Path,
        names: &[String],
        now: Timestamp,
    ) -> Option<(Identity, Age)> {
        let identity = read_pair(dir, SERVING_FILE, SERVING_KEY)?;
        let key = KeyPair::try_from(identity.key()).ok()?;
        let certificate = parse(identity.leaf())?;
        let is_pair = certificate.public_key().raw == key.subject_public_key_info();
        if !is_pair || names_of(&certificate) != normal_names(names) {
            return None;
        }
        self.has_signed(dir, &identity, now)?;
        let age = if left(&certificate, now) < SERVING_LIFETIME / 3 {
            Age::Old
        } else {
            Age::Young
        };
        Some((identity, age))
    }

    /// Something only if the certificate holds under the CA file at that time.
    fn has_signed(&self, dir: &Path, identity: &Identity, now: Timestamp) -> Option<()> {
        let roots = tls::read_roots(&dir.join(AUTHORITY_FILE)).ok()?;
        let now = u64::try_from(now.as_second()).ok()?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(identity.leaf()).ok()?,
            &roots,
            &[],
            UnixTime::since_unix_epoch(Duration::from_secs(now)),
            tls::provider().signature_verification_algorithms.all,
        )
        .ok()
    }

    pub(super) fn make_serving(
        &self,
        dir: &Path,
        names: &[String],
        now: Timestamp,
    ) -> Result<Identity, CertificateError> {
        let failed = |source| CertificateError::Make("the serving certificate", source);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params
            .distinguished_name
            .push(DnType::CommonName, "yurt hub");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        limit(&mut params, now, SERVING_LIFETIME)?;
        let issuer_params = Self::params();
        let issuer = Issuer::from_params(&issuer_params, &self.key);
        let certificate = params.signed_by(&key, &issuer).map_err(failed)?.pem();
        let key = key.serialize_pem();
        write_pair(dir, (SERVING_KEY, &key), (SERVING_FILE, &certificate))?;
        info!(dir = %dir.display(), ?names, "made a serving certificate");
        Identity::parse(
            &Pem::new(dir.join(SERVING_FILE), certificate),
            &Pem::new(dir.join(SERVING_KEY), key),
        )
        .map_err(CertificateError::Load)
    }
}

/// Limits a certificate to a time from now, by the day.
///
/// It begins in 1970, where a board without a battery wakes up: even there the node shall trust
/// its own hub.
fn limit(
    params: &mut CertificateParams,
    now: Timestamp,
    lifetime: SignedDuration,
) -> Result<(), CertificateError> {
    let end = now
        .checked_add(lifetime)
        .map_err(|source| CertificateError::Clock(lifetime, source))?;
    let end = end.to_zoned(TimeZone::UTC).date();
    let part = |number: i8| u8::try_from(number).expect("months and days count from one");
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.not_after =
        rcgen::date_time_ymd(i32::from(end.year()), part(end.month()), part(end.day()));
    Ok(())
}

/// Returns whether a certificate is for these names and addresses and no others.
pub(crate) fn is_for(certificate: &[u8], names: &[String]) -> bool {
    parse(certificate).is_some_and(|certificate| names_of(&certificate) == normal_names(names))
}

pub(super) fn left(certificate: &X509Certificate<'_>, now: Timestamp) -> SignedDuration {
    let end = certificate.validity().not_after.timestamp();
    SignedDuration::from_secs(end.saturating_sub(now.as_second()))
}

pub(super) fn names_of(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return BTreeSet::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(normal(name)),
            GeneralName::IPAddress(bytes) => match *bytes {
                [a, b, c, d] => Some(IpAddr::from([*a, *b, *c, *d]).to_string()),
                bytes => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string()),
            },
            _ => None,
        })
        .collect()
}

/// Returns names and addresses as a certificate shows them.
pub(super) fn normal_names(names: &[String]) -> BTreeSet<String> {
    names.iter().map(|name| normal(name)).collect()
}

fn normal(name: &str) -> String {
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => name.to_ascii_lowercase(),
    }
}
