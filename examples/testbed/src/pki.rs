//! A certificate authority for tests, and the certificates and keys that it signs.
//!
//! Everything is made in memory within milliseconds; writing files is left to who needs them.

use std::{fmt, net::IpAddr, time::Duration};

use jiff::Timestamp;
pub use rcgen::ExtendedKeyUsagePurpose;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

/// A certificate authority that lives as long as the test.
pub struct Pki {
    ca_pem: String,
    ca_key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// The first second.
    pub not_before: Timestamp,
    /// The last second.
    pub not_after: Timestamp,
}

/// The key pair with which an API server signs service-account tokens.
#[derive(Clone)]
pub struct KeyPairPem {
    /// The public key, PEM (SPKI).
    pub public_pem: String,
    /// The private key, PEM (PKCS#8).
    pub private_pem: String,
}

// === Pki ===

impl Pki {
    /// Makes a new authority with a key of its own.
    #[expect(
        clippy::new_without_default,
        reason = "every call makes another authority: not a default"
    )]
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a P-256 key needs only randomness");
        let mut params = params(&[], Validity::default());
        params
            .distinguished_name
            .push(DnType::CommonName, "yurt testbed CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params
            .self_signed(&key)
            .expect("the parameters are written above");
        Self {
            ca_pem: certificate.pem(),
            ca_key_pem: key.serialize_pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Returns the authority's own certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Returns the authority's private key, PEM: for servers that sign themselves.
    pub fn ca_key_pem(&self) -> &str {
        &self.ca_key_pem
    }

    /// Signs a serving certificate for DNS names and IP addresses: `(certificate, key)`, PEM.
    pub fn server(&self, names: &[&str]) -> (String, String) {
        self.server_for(names, Validity::default())
    }

    /// Signs a serving certificate with a validity of its own.
    pub fn server_for(&self, names: &[&str], validity: Validity) -> (String, String) {
        let mut params = params(names, validity);
        params.distinguished_name.push(
            DnType::CommonName,
            names.first().copied().unwrap_or("server"),
        );
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// Signs a certificate for DNS names and IP addresses that is shown to clients and, as one of `group`, to
    /// servers: `(certificate, key)`, PEM.
    pub fn both(&self, names: &[&str], group: &str) -> (String, String) {
        let mut params = params(names, Validity::default());
        let name = names.first().copied().unwrap_or("server");
        params.distinguished_name.push(DnType::CommonName, name);
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.sign(params)
    }

    /// Signs a client certificate for a user (CN) in groups (O, two at most): `(certificate, key)`, PEM.
    pub fn client(&self, user: &str, groups: &[&str]) -> (String, String) {
        self.client_for(user, groups, Validity::default())
    }

    /// Signs a client certificate with a validity of its own.
    ///
    /// # Panics
    ///
    /// With more than two groups: the library keeps one value per kind of name.
    pub fn client_for(&self, user: &str, groups: &[&str], validity: Validity) -> (String, String) {
        assert!(groups.len() <= 2, "at most two groups in a certificate");
        let mut params = params(&[], validity);
        params.distinguished_name.push(DnType::CommonName, user);
        // The same OID by another name, so that the second does not replace the first.
        let kinds = [
            DnType::OrganizationName,
            DnType::CustomDnType(vec![2, 5, 4, 10]),
        ];
        for (kind, group) in kinds.into_iter().zip(groups) {
            params.distinguished_name.push(kind, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// Signs a certificate signing request (PEM) as it stands, for a client or for a server, as a controller
    /// manager does: the certificate, PEM.
    ///
    /// # Panics
    ///
    /// If it is no request.
    pub fn sign_request(
        &self,
        request: &str,
        purpose: ExtendedKeyUsagePurpose,
        validity: Validity,
    ) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(request)
            .expect("a test signs what is a request");
        let dates = params(&[], validity);
        request.params.not_before = dates.not_before;
        request.params.not_after = dates.not_after;
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.params.extended_key_usages = vec![purpose];
        request.params.use_authority_key_identifier_extension = true;
        let signed = request.signed_by(&self.issuer);
        signed.expect("the request was parsed").pem()
    }

    /// Makes a key pair for service-account tokens.
    pub fn service_account_keys(&self) -> KeyPairPem {
        let key = KeyPair::generate().expect("a P-256 key needs only randomness");
        KeyPairPem {
            public_pem: key.public_key_pem(),
            private_pem: key.serialize_pem(),
        }
    }

    fn sign(&self, mut params: CertificateParams) -> (String, String) {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a P-256 key needs only randomness");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("names were checked when the parameters were made");
        (certificate.pem(), key.serialize_pem())
    }
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki")
            .field("key", &"…")
            .finish_non_exhaustive()
    }
}

fn params(names: &[&str], validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names
        .iter()
        .map(|name| match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName((*name).try_into().expect("a test gives ASCII names")),
        })
        .collect();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(validity.not_before);
    params.not_after = epoch + since_epoch(validity.not_after);
    params
}

fn since_epoch(at: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(at.as_second()).unwrap_or_default())
}

// === Validity ===

impl Default for Validity {
    /// From 2020 to 2049: long before and long after any test.
    fn default() -> Self {
        Self {
            not_before: "2020-01-01T00:00:00Z".parse().expect("a date"),
            not_after: "2049-01-01T00:00:00Z".parse().expect("a date"),
        }
    }
}

// === KeyPairPem ===

impl fmt::Debug for KeyPairPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPairPem")
            .field("public_pem", &self.public_pem)
            .field("private_pem", &"…")
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    #[test]
    fn a_client_certificate_names_its_user_and_both_groups() {
        let pki = Pki::new();
        let (pem, _) = pki.client("system:node:n1", &["system:nodes", "second"]);
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let subject = certificate.subject();
        let values = |names: Vec<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
            names
                .iter()
                .map(|name| name.as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            values(subject.iter_common_name().collect()),
            ["system:node:n1"]
        );
        assert_eq!(
            values(subject.iter_organization().collect()),
            ["system:nodes", "second"]
        );
    }

    #[test]
    fn a_validity_is_what_was_asked_for() {
        let pki = Pki::new();
        let asked = Validity {
            not_before: "2021-01-01T00:00:00Z".parse().unwrap(),
            not_after: "2021-01-02T03:04:05Z".parse().unwrap(),
        };
        let (pem, _) = pki.server_for(&["localhost", "127.0.0.1"], asked);
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let not_after = certificate.validity().not_after.timestamp();
        assert_eq!(not_after, asked.not_after.as_second());
    }

    #[test]
    fn debug_shows_no_private_key() {
        let pki = Pki::new();
        let shown = format!("{pki:?}{:?}", pki.service_account_keys());
        assert!(!shown.contains("PRIVATE"), "{shown}");
        assert!(shown.contains('…'));
    }
}
