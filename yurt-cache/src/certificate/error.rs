//! Why there is no certificate.

use jiff::SignedDuration;
use yurt_core::credentials::CredentialsError;
use yurt_core::files::WriteError;

use crate::tasks::Panicked;

/// Why there is no serving certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CertificateError {
    /// A configured file cannot be used.
    #[error("load the serving certificate")]
    Load(#[source] CredentialsError),
    /// A key or a certificate could not be made.
    #[error("make {0}")]
    Make(&'static str, #[source] rcgen::Error),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The clock is at the end of time.
    #[error("no certificate can end {0:?} after now")]
    Clock(SignedDuration, #[source] jiff::Error),
    /// What makes or writes it panicked.
    #[error("make or write a certificate")]
    Panicked(#[from] Panicked),
}
