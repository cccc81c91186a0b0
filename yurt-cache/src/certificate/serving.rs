//! The hub's serving certificate, made by a CA of its own where none is configured.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tracing::warn;
use yurt_core::credentials::Identity;

use super::CertificateError;
use super::authority::{Age, Authority};
use super::files::AUTHORITY_FILE;

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
            // A disk that cannot be written any more does not end the serving.
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

#[cfg(test)]
mod tests;
