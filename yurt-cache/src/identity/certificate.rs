//! The hub's serving certificate, made by a CA of its own where none is configured, and the node's
//! name in a caller's certificate.

mod authority;
mod files;

use std::io;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use tracing::warn;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use yurt_core::name::NodeName;

use self::authority::{Age, Authority, names_of, normal_names};
use self::files::AUTHORITY_FILE;
pub(crate) use self::files::write_files;
use super::verifier::Validity;
use crate::tls::{Identity, TlsError};

/// Why there is no serving certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CertificateError {
    /// A configured file cannot be used.
    #[error("load the serving certificate")]
    Load(#[source] TlsError),
    /// A key or a certificate could not be made.
    #[error("make {0}")]
    Make(&'static str, #[source] rcgen::Error),
    /// A file could not be written.
    #[error("write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The clock is at the end of time.
    #[error("no certificate can end {0:?} after now")]
    Clock(SignedDuration, #[source] jiff::Error),
}

// === ServingCertificate ===

/// What the hub presents to its callers.
#[derive(Debug, Clone)]
pub(crate) struct ServingCertificate {
    identity: Identity,
    authority: Option<PathBuf>,
}

impl ServingCertificate {
    /// Takes a configured certificate and its key.
    pub(crate) fn load(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        Ok(Self {
            identity: Identity::read(certificate, key).map_err(CertificateError::Load)?,
            authority: None,
        })
    }

    /// Takes what an earlier start left in `dir`, or makes what is missing, broken, for other
    /// names or in its last third; blocks on the disk.
    pub(crate) fn load_or_make(
        dir: &Path,
        names: &[String],
        now: Timestamp,
    ) -> Result<Self, CertificateError> {
        let found = Authority::load(dir, now).and_then(|authority| {
            let identity = authority.load_serving(dir, names, now)?;
            Some((authority, identity))
        });
        let authority_file = dir.join(AUTHORITY_FILE);
        if let Some((_, (identity, Age::Young))) = found {
            return Ok(Self {
                identity,
                authority: Some(authority_file),
            });
        }
        let identity = match (Self::make(dir, names, now), found) {
            (Ok(identity), _) => identity,
            // A disk that cannot be written any more does not close the door.
            (Err(error), Some((_, (identity, Age::Old)))) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                warn!(
                    error,
                    "the serving certificate is old and cannot be renewed"
                );
                identity
            }
            (Err(error), _) => return Err(error),
        };
        Ok(Self {
            identity,
            authority: Some(authority_file),
        })
    }

    fn make(dir: &Path, names: &[String], now: Timestamp) -> Result<Identity, CertificateError> {
        let authority = match Authority::load(dir, now) {
            Some(authority) => authority,
            None => Authority::make(dir, now)?,
        };
        authority.make_serving(dir, names, now)
    }

    /// The chain and the key.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The CA file to hand to clients, if the CA is the hub's own.
    pub(crate) fn authority_file(&self) -> Option<&Path> {
        self.authority.as_deref()
    }
}

// === Certificates ===

/// The node that a client certificate speaks for: `system:node:<name>` of `system:nodes`.
///
/// The certificate's chain is for TLS to verify.
pub(crate) fn peer_node_name(certificate: &[u8]) -> Option<NodeName> {
    let certificate = parse(certificate)?;
    let subject = certificate.subject();
    let mut common_names = subject.iter_common_name();
    // Readers differ on which of several counts.
    let (Some(common_name), None) = (common_names.next(), common_names.next()) else {
        return None;
    };
    let is_node = subject
        .iter_organization()
        .any(|organization| organization.as_str() == Ok("system:nodes"));
    let name = common_name.as_str().ok()?.strip_prefix("system:node:")?;
    is_node.then(|| name.parse().ok())?
}

/// The public key of a certificate, `SubjectPublicKeyInfo`.
pub(crate) fn peer_public_key(certificate: &[u8]) -> Option<Vec<u8>> {
    Some(parse(certificate)?.public_key().raw.to_vec())
}

/// Returns whether a certificate is for these names and addresses and no others.
pub(crate) fn is_for(certificate: &[u8], names: &[String]) -> bool {
    parse(certificate).is_some_and(|certificate| names_of(&certificate) == normal_names(names))
}

/// From when until when a certificate is valid.
pub(crate) fn peer_validity(certificate: &[u8]) -> Option<Validity> {
    let validity = parse(certificate)?.validity().clone();
    Some(Validity {
        not_before: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
        not_after: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
    })
}

fn parse(certificate: &[u8]) -> Option<X509Certificate<'_>> {
    match X509Certificate::from_der(certificate) {
        Ok(([], certificate)) => Some(certificate),
        Ok(_) | Err(_) => None,
    }
}

fn left(certificate: &X509Certificate<'_>, now: Timestamp) -> SignedDuration {
    let end = certificate.validity().not_after.timestamp();
    SignedDuration::from_secs(end.saturating_sub(now.as_second()))
}

#[cfg(test)]
mod tests;
