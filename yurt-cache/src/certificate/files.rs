//! Pairs of a certificate and its key on the disk, crash-safe.

use std::path::Path;

use tracing::warn;
use yurt_core::credentials::Identity;
use yurt_core::files::{WriteError, replace};

pub(super) const AUTHORITY_FILE: &str = "hub-ca.pem";
pub(super) const AUTHORITY_KEY: &str = "hub-ca.key";
pub(super) const SERVING_FILE: &str = "serving.pem";
pub(super) const SERVING_KEY: &str = "serving.key";

pub(super) fn read_pair(dir: &Path, certificate: &str, key: &str) -> Option<Identity> {
    let certificate = dir.join(certificate);
    match Identity::read(&certificate, &dir.join(key)) {
        Ok(identity) => Some(identity),
        Err(error) if error.is_missing() => None,
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
) -> Result<(), WriteError> {
    replace(
        dir,
        &[
            (key_file, key, 0o600),
            (certificate_file, certificate, 0o600),
        ],
    )
}
