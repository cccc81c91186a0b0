//! Why certificates cannot be used.

use std::path::{Path, PathBuf};

use rustls::server::VerifierBuilderError;
use yurt_core::credentials::CredentialsError;

use super::peer::InvalidCertificate;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be used.
    #[error(transparent)]
    ReadFile(#[from] CredentialsError),
    /// A certificate of an authority cannot be trusted.
    #[error("trust the authority of {}", path.display())]
    AddRoot {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The certificate is not one that this module can read.
    #[error("read the certificate of {}", path.display())]
    ReadCertificate {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: InvalidCertificate,
    },
    /// A certificate and its key do not belong together or cannot be used.
    #[error("use {} with its key", path.display())]
    UseCertificate {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Peers' certificates cannot be verified against the authorities.
    #[error("verify peers by {}", path.display())]
    BuildVerifier {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
}

impl Error {
    /// Returns the file that cannot be used.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::ReadFile(error) => error.path(),
            Self::AddRoot { path, .. }
            | Self::ReadCertificate { path, .. }
            | Self::UseCertificate { path, .. }
            | Self::BuildVerifier { path, .. } => path,
        }
    }
}
