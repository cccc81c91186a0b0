//! Files that a crash does not break.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why files could not be replaced.
#[derive(Debug, thiserror::Error)]
#[error("write {}", path.display())]
#[non_exhaustive]
pub struct WriteError {
    /// Which file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Replaces files of a folder, each given by its name, content and permissions. A folder that is
/// missing is made for its owner alone (0700), and the process's umask adds nothing to the permissions. Blocks on the disk.
///
/// After a crash each file is wholly the old one or the new one, but of several some may be new and some old. When
/// it returns, all are new and stay so.
///
/// # Errors
/// When the disk refuses something. All files are written before the first takes its place: a full disk changes none.
///
/// # Example
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let folder = folder.path();
/// use yurt_core::files;
///
/// let (key, certificate) = ("a secret", "who has it");
/// files::replace(folder, &[("hub.key", key, 0o600), ("hub.pem", certificate, 0o644)])?;
/// assert_eq!(std::fs::read_to_string(folder.join("hub.pem"))?, certificate);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn replace<T: AsRef<[u8]>>(folder: &Path, files: &[(&str, T, u32)]) -> Result<(), WriteError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| WriteError { path, source }
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(failed(folder))?;
    let staged = |name: &str| folder.join(format!(".{name}.new"));
    for (name, content, mode) in files {
        let staged = staged(name);
        stage(&staged, content.as_ref(), *mode).map_err(failed(&staged))?;
    }
    for (name, ..) in files {
        let path = folder.join(name);
        fs::rename(staged(name), &path).map_err(failed(&path))?;
    }
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed(folder))
}

/// Writes a file that no reader looks for yet; what an earlier crash left of it goes.
fn stage(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn files_are_made_and_replaced_with_their_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new");
        for (content, modes) in [("old", [0o600, 0o644]), ("new", [0o644, 0o600])] {
            let files = [("a", content, modes[0]), ("b", content, modes[1])];
            replace(&folder, &files).unwrap();
            for (name, content, mode) in files {
                let path = folder.join(name);
                assert_eq!(fs::read_to_string(&path).unwrap(), content);
                assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode);
            }
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_cannot_be_written_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        replace(folder, &[("a", "old", 0o600)]).unwrap();
        // It stands for a disk that is full when the second is written.
        fs::create_dir(folder.join(".b.new")).unwrap();
        let files = [("a", "new", 0o600), ("b", "new", 0o600)];
        let error = replace(folder, &files).unwrap_err();
        assert_eq!(error.path, folder.join(".b.new"));
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "old");
        // The next try is not stopped by what this one left.
        fs::remove_dir(folder.join(".b.new")).unwrap();
        replace(folder, &files).unwrap();
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "new");
    }

    #[test]
    fn a_link_in_the_way_is_replaced_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        replace(folder, &[("elsewhere", "precious", 0o600)]).unwrap();
        for name in [".a.new", "a"] {
            std::os::unix::fs::symlink(folder.join("elsewhere"), folder.join(name)).unwrap();
        }
        replace(folder, &[("a", "new", 0o600)]).unwrap();
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "new");
        assert_eq!(
            fs::read_to_string(folder.join("elsewhere")).unwrap(),
            "precious"
        );
    }
}
