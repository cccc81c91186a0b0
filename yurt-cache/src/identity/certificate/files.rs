//! Pairs of a certificate and its key on the disk, crash-safe.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use tracing::warn;

use super::CertificateError;
use crate::tls::{Identity, TlsError};

pub(super) const AUTHORITY_FILE: &str = "hub-ca.pem";
pub(super) const AUTHORITY_KEY: &str = "hub-ca.key";
pub(super) const SERVING_FILE: &str = "serving.pem";
pub(super) const SERVING_KEY: &str = "serving.key";

pub(super) fn read_pair(dir: &Path, certificate: &str, key: &str) -> Option<Identity> {
    let certificate = dir.join(certificate);
    match Identity::read(&certificate, &dir.join(key)) {
        Ok(identity) => Some(identity),
        Err(TlsError::ReadFile { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            let reason: &(dyn std::error::Error + 'static) = &error;
            warn!(
                reason,
                "a certificate of the hub's own is broken: making another"
            );
            None
        }
    }
}

/// Writes a key and its certificate so that a crash leaves the old pair, the new one, or two halves
/// that do not match, which `load` notices.
pub(super) fn write_pair(
    dir: &Path,
    (key_file, key): (&str, &str),
    (certificate_file, certificate): (&str, &str),
) -> Result<(), CertificateError> {
    write_files(
        dir,
        &[
            (key_file, key, 0o600),
            (certificate_file, certificate, 0o644),
        ],
    )
}

/// Writes files of a name, a content and a mode: each is the old one or the new one after a crash.
pub(crate) fn write_files(dir: &Path, files: &[(&str, &str, u32)]) -> Result<(), CertificateError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CertificateError::Write { path, source }
    };
    fs::create_dir_all(dir).map_err(failed(dir))?;
    let staged = |file: &str| dir.join(format!(".{file}.new"));
    // All are on the disk before any is in place: a full disk breaks no pair.
    for (file, content, mode) in files {
        let staged = staged(file);
        stage(&staged, content, *mode).map_err(failed(&staged))?;
    }
    for (file, ..) in files {
        let path = dir.join(file);
        fs::rename(staged(file), &path).map_err(failed(&path))?;
    }
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed(dir))
}

fn stage(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    // The process's umask has no say: clients must read the CA.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}
