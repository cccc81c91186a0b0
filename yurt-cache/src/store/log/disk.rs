//! The few things the log asks of a disk, so that a test can play a disk that loses its power.

#[cfg(test)]
pub(super) mod recorded;

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::private::{self, FILE_MODE};

/// One directory of files.
pub(super) trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Returns the names of the files.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Opens a file for reading and, if the disk takes writes, for writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a file of `len` zeros where there was none; its name is safe when this returns.
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, which nothing has; that is safe when this returns.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; its absence is safe when this returns.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns the bytes that further files may take.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// One file, read and written by position.
pub(super) trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// Returns the length.
    fn len(&self) -> io::Result<u64>;

    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Sees to it that the file has room for `len`, filled up with zeros.
    fn reserve(&self, len: u64) -> io::Result<()>;

    /// Cuts the file to `len`.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Returns when what was written is safe from a power cut.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of a file system, locked against a second process.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Holds the lock; `None` on a disk that takes no writes and has no lock file.
    _lock: Option<File>,
}

const LOCK_NAME: &str = "lock";

impl Directory {
    /// Creates the directory if need be and locks it; `WouldBlock` if another has it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        create_directory(path)?;
        private::keep(path)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock(&path.join(LOCK_NAME))?,
        })
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

fn create_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    private::create_folder(path)?;
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn lock(path: &Path) -> io::Result<Option<File>> {
    let opened = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE_MODE)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if is_read_only(&error) => match File::open(path) {
            Ok(file) => file,
            Err(_) => return Ok(None),
        },
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Returns whether an error says that the disk takes no writes.
pub(super) fn is_read_only(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
    )
}

impl Disk for Directory {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if let (Ok(name), true) = (
                entry.file_name().into_string(),
                entry.file_type()?.is_file(),
            ) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path.join(name);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if is_read_only(&error) => File::open(&path)?,
            other => other?,
        };
        Ok(Arc::new(file))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&path)?;
        let made = preallocate(&file, len).and_then(|()| self.sync());
        if let Err(error) = made {
            // The name is new and nothing was written: better no file than one without its space.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))?;
        self.sync()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))?;
        self.sync()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.path)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// Reserves the space, where the file system can: a full disk then shows here and not in a write.
fn preallocate(file: &File, len: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<usize> {
        let mut total = 0;
        while !buffer.is_empty() {
            match FileExt::read_at(self, buffer, offset) {
                Ok(0) => break,
                Ok(count) => {
                    total += count;
                    offset += u64::try_from(count).map_err(io::Error::other)?;
                    buffer = &mut buffer[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        preallocate(self, len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
