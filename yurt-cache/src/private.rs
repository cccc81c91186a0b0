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

/// The bit of a folder in which everybody has files of his own.
const STICKY: u32 = 0o1000;

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

/// Makes a folder if it is missing, and takes from others every right to it and to the files in it. Links and folders in it
/// are left alone: where a mistake names a folder of the system, nothing below it is touched. Blocks on the disk.
///
/// # Errors
/// If something that others may read belongs to another user, the folder is everybody's, as `/tmp`, or the disk refuses;
/// one that takes no writes stays as it is.
pub(crate) fn keep(folder: &Path) -> io::Result<()> {
    let kept = create_folder(folder).and_then(|()| mend(folder));
    match kept {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        kept => kept,
    }
}

fn mend(folder: &Path) -> io::Result<()> {
    let metadata = fs::metadata(folder)?;
    if metadata.mode() & STICKY != 0 {
        let refused = format!("{} is a folder for all users", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, refused));
    }
    tighten(folder, &metadata)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // What is gone since was on its way to another name.
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        if metadata.is_file() {
            tighten(&entry.path(), &metadata)?;
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
    fn a_lax_folder_of_before_is_mended_with_the_files_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let (elsewhere, folder) = (dir.path().join("elsewhere"), dir.path().join("hub"));
        let (file, below) = (folder.join("serving.pem"), folder.join("below"));
        lax_file(&elsewhere);
        fs::create_dir_all(&below).unwrap();
        lax_file(&file);
        lax_file(&below.join("file"));
        for lax in [&folder, &below] {
            fs::set_permissions(lax, Permissions::from_mode(0o755)).unwrap();
        }
        symlink(&elsewhere, folder.join("link")).unwrap();
        symlink("/nowhere", folder.join("dangling")).unwrap();
        keep(&folder).unwrap();
        assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
        assert_eq!(mode(&elsewhere), 0o644, "what a link leads to is not ours");
        let of_others = (mode(&below), mode(&below.join("file")));
        assert_eq!(of_others, (0o755, 0o644), "it keeps itself");
    }

    #[test]
    fn a_folder_for_all_users_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
        let refused = keep(dir.path()).unwrap_err().to_string();
        assert!(refused.ends_with("is a folder for all users"), "{refused}");
        assert_eq!(mode(dir.path()), 0o777);
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
