//! Folders and files that are for their owner alone, whatever the umask says and whoever made them before.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// How a file is created.
pub(crate) const FILE_MODE: u32 = 0o600;

const FOLDER_MODE: u32 = 0o700;

/// The bits by which others may do something.
const OTHERS: u32 = 0o077;

/// How deep folders lie in each other at most: the hub makes two.
const DEPTH: u32 = 8;

/// Why permissions are not mended.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path} is open to other users (mode {mode:03o}) and belongs to user {owner}, not to this one ({user})"
)]
struct NotOurs {
    path: String,
    mode: u32,
    owner: u32,
    user: u32,
}

/// Makes a folder, and those above it that are missing.
pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(folder)
}

/// Makes a folder if it is missing, and takes from others every right to it and to all that is in it. Links are left
/// alone. Blocks on the disk.
///
/// # Errors
/// If something that others may read belongs to another user, or the disk refuses; one that takes no writes stays as it is.
pub(crate) fn keep(folder: &Path) -> io::Result<()> {
    let kept = create_folder(folder).and_then(|()| mend(folder, DEPTH));
    match kept {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        kept => kept,
    }
}

fn mend(path: &Path, depth: u32) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    // A data directory may be a link; a link in it leads to what is not the hub's.
    let metadata = if metadata.is_symlink() && depth == DEPTH {
        fs::metadata(path)?
    } else {
        metadata
    };
    if metadata.is_symlink() {
        return Ok(());
    }
    tighten(path, &metadata)?;
    if !metadata.is_dir() || depth == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        match mend(&entry?.path(), depth - 1) {
            // What was there a moment ago was a file on its way to another name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            mended => mended?,
        }
    }
    Ok(())
}

fn tighten(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let mode = metadata.mode() & 0o777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        let refused = NotOurs {
            path: path.display().to_string(),
            mode,
            owner: metadata.uid(),
            user,
        };
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, refused));
    }
    tracing::warn!(path = %path.display(), mode = %format_args!("{mode:03o}"), "other users may read this no more");
    fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn lax_file(path: &Path) {
        fs::File::create(path).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    }

    #[test]
    fn a_folder_is_made_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new/store");
        keep(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&dir.path().join("new")), 0o700);
    }

    #[test]
    fn a_lax_folder_of_before_is_mended_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let (elsewhere, folder) = (dir.path().join("elsewhere"), dir.path().join("hub"));
        lax_file(&elsewhere);
        fs::create_dir_all(folder.join("store")).unwrap();
        for lax in [&folder, &folder.join("store")] {
            fs::set_permissions(lax, Permissions::from_mode(0o755)).unwrap();
        }
        let files = [folder.join("serving.pem"), folder.join("store/lock")];
        files.iter().for_each(|file| lax_file(file));
        symlink(&elsewhere, folder.join("link")).unwrap();
        symlink("/nowhere", folder.join("dangling")).unwrap();
        keep(&folder).unwrap();
        assert_eq!([mode(&folder), mode(&folder.join("store"))], [0o700; 2]);
        assert_eq!(files.map(|file| mode(&file)), [0o600; 2]);
        assert_eq!(mode(&elsewhere), 0o644, "what a link leads to is not ours");
    }

    #[test]
    fn what_belongs_to_another_user_and_is_open_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("theirs");
        lax_file(&file);
        if chown(&file, Some(12_345), None).is_err() {
            // Only root can give a file away.
            return;
        }
        let refused = keep(dir.path()).unwrap_err().to_string();
        assert!(
            refused.contains("theirs is open to other users (mode 644)"),
            "{refused}"
        );
        assert!(refused.contains("belongs to user 12345"), "{refused}");
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        keep(dir.path()).unwrap();
    }
}
