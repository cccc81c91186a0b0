//! Certificates and keys as they lie on a disk: PEM, read with a bound. What to do with them is for who has a TLS library.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The longest PEM that is read, in bytes: a file of every public CA has a quarter of it.
pub const MAX_PEM_BYTES: u64 = 1 << 20;

/// What a PEM file held, and where it is; equal if both are. Its `Debug` shows no content, which may be a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// A certificate with those that vouch for it, and the key that proves it. Its `Debug` shows no key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Why a PEM file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The file could not be read.
    #[error("read {}", path.display())]
    ReadFile {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is longer than any bundle of certificates.
    #[error("{} is longer than {MAX_PEM_BYTES} bytes", path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
    /// The file is not the PEM that it should be.
    #[error("parse {} as PEM", path.display())]
    ParsePem {
        /// Which file.
        path: PathBuf,
        /// Where it is broken.
        source: pem::Error,
    },
    /// The file holds no certificate.
    #[error("no PEM certificate in {}", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// The file holds no private key.
    #[error("no PEM private key in {}", path.display())]
    NoKey {
        /// Which file.
        path: PathBuf,
    },
}

impl CredentialsError {
    /// Returns whether there is no such file: it may be still to come.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::ReadFile { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Returns the file that cannot be used.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::ReadFile { path, .. }
            | Self::TooLong { path }
            | Self::ParsePem { path, .. }
            | Self::NoCertificate { path }
            | Self::NoKey { path } => path,
        }
    }
}

/// Reads a file, but no more than [`MAX_PEM_BYTES`]: PEM, or a token beside it. Blocks on the disk.
///
/// # Errors
/// When it cannot be read or is longer.
pub fn read_file(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    let failed = |source| CredentialsError::ReadFile {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_PEM_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_PEM_BYTES {
        let path = path.to_owned();
        return Err(CredentialsError::TooLong { path });
    }
    Ok(bytes)
}

// === Pem ===

impl Pem {
    /// Takes PEM that is in memory; `path` is what errors call it.
    pub fn new(path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            bytes: bytes.into(),
        }
    }

    /// Reads a file with [`read_file`].
    ///
    /// # Errors
    /// As [`read_file`].
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        Ok(Self::new(path, read_file(path)?))
    }

    /// Returns where it was read.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what it held.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the certificates in it, one at least, in their order.
    ///
    /// # Errors
    /// When it is broken or holds none.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
        let found: Vec<_> = CertificateDer::pem_slice_iter(&self.bytes)
            .collect::<Result<_, _>>()
            .map_err(|source| self.unusable(source))?;
        if found.is_empty() {
            let path = self.path.clone();
            return Err(CredentialsError::NoCertificate { path });
        }
        Ok(found)
    }

    /// Returns the first private key in it.
    ///
    /// # Errors
    /// When it is broken or holds none.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>, CredentialsError> {
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|source| match source {
            pem::Error::NoItemsFound => CredentialsError::NoKey {
                path: self.path.clone(),
            },
            source => self.unusable(source),
        })
    }

    fn unusable(&self, source: pem::Error) -> CredentialsError {
        CredentialsError::ParsePem {
            path: self.path.clone(),
            source,
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem")
            .field("path", &self.path)
            .field("bytes", &format_args!("…"))
            .finish()
    }
}

// === Identity ===

impl Identity {
    /// Takes the chain from one file and the key from another, or from the same; blocks on the disk.
    ///
    /// # Errors
    /// When a file cannot be read, is broken, or lacks what is looked for.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, CredentialsError> {
        Self::parse(&Pem::read(certificate)?, &Pem::read(key)?)
    }

    /// Takes chain and key from what was read already. Whether they are a pair is not looked at.
    ///
    /// # Errors
    /// When one is broken or lacks what is looked for.
    pub fn parse(certificate: &Pem, key: &Pem) -> Result<Self, CredentialsError> {
        Ok(Self {
            chain: certificate.certificates()?,
            key: key.key()?,
        })
    }

    /// Returns the certificate itself, without those that vouch for it.
    #[must_use]
    pub fn leaf(&self) -> &CertificateDer<'static> {
        self.chain
            .first()
            .expect("a chain that was parsed is not empty")
    }

    /// Returns the certificate and those that vouch for it.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certificates", &self.chain.len())
            .field("key", &format_args!("…"))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the right shape; what is in it is for who uses it to judge.
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
    const BROKEN: &str = "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n";

    fn pem(text: &str) -> Pem {
        Pem::new("some.pem", text)
    }

    #[test]
    fn one_file_may_hold_both_in_any_order() {
        for text in [
            [KEY, CERTIFICATE, CERTIFICATE].concat(),
            [CERTIFICATE, CERTIFICATE, KEY].concat(),
        ] {
            let both = pem(&text);
            let identity = Identity::parse(&both, &both).unwrap();
            assert_eq!(identity.chain().len(), 2);
            assert_eq!(identity.leaf().as_ref(), [0; 3]);
            assert_eq!(identity.key().secret_der(), b"secret");
        }
    }

    #[test]
    fn an_error_names_the_file_and_what_is_wrong_with_it() {
        let certificate = |text| pem(text).certificates().unwrap_err().to_string();
        assert_eq!(certificate(""), "no PEM certificate in some.pem");
        assert_eq!(certificate(KEY), "no PEM certificate in some.pem");
        assert_eq!(certificate(BROKEN), "parse some.pem as PEM");
        let key = |text| pem(text).key().unwrap_err().to_string();
        assert_eq!(key(CERTIFICATE), "no PEM private key in some.pem");
        assert_eq!(key(BROKEN), "parse some.pem as PEM");
    }

    #[test]
    fn a_file_is_read_to_the_bound_and_no_further() {
        let endless = Pem::read(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(endless, CredentialsError::TooLong { .. }));
        assert!(!endless.is_missing());
        let missing = Pem::read(Path::new("/none")).unwrap_err();
        assert_eq!(missing.to_string(), "read /none");
        assert!(missing.is_missing());
    }

    #[test]
    fn no_key_is_shown() {
        let identity = Identity::parse(&pem(CERTIFICATE), &pem(KEY)).unwrap();
        let shown = format!("{:?} {identity:?}", pem(KEY));
        assert!(!shown.contains("c2Vj") && !shown.contains("115"), "{shown}");
    }
}
