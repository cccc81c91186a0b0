//! Files that a crash does not break.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::TlsError;

/// Writes files of a name, a content and a mode: each is the old one or the new one after a crash.
pub(crate) fn write_files(dir: &Path, files: &[(&str, &str, u32)]) -> Result<(), TlsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::WriteFile { path, source }
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
