//! Why certificates cannot be used.

use std::io;
use std::path::PathBuf;

use rustls::pki_types::pem;
use rustls::server::VerifierBuilderError;

use super::MAX_PEM_BYTES;
use super::peer::InvalidCertificate;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("read {}", path.display())]
    ReadFile {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is longer than any bundle of certificates.
    #[error("{} is longer than {MAX_PEM_BYTES} bytes", path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
    /// A file is not the PEM that it should be.
    #[error("parse {} as PEM", path.display())]
    ParsePem {
        /// Which file.
        path: PathBuf,
        /// Where it is broken.
        source: pem::Error,
    },
    /// A file holds no certificate.
    #[error("no certificate in {}", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
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
