//! The unix socket for kube-apiserver: its file, which replaces no other process's, and answers that are read alone.

use std::fs;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::pipe::{self, Receiver};

/// Who may connect: the owner, and the group that kube-apiserver is in.
const MODE: Mode = Mode::from_raw_mode(0o660);

/// The sticky bit, which means nothing on a socket, says of one whose server is about to end that another may take its
/// place: whoever asks there is still answered.
const OFFERED: Mode = MODE.union(Mode::SVTX);

/// How the lock's file is opened, and who may do so.
const LOCK: OFlags = OFlags::RDWR
    .union(OFlags::CREATE)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const OWNER: Mode = Mode::from_raw_mode(0o600);

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Something else has the name.
    #[error("{} exists and is not a socket", .0.display())]
    Occupied(PathBuf),
    /// Another process answers there.
    #[error("another process serves {}", .0.display())]
    Served(PathBuf),
    /// Everybody may put another file in the socket's place.
    #[error("{} is writable by everybody, who could serve kube-apiserver: remove o+w from its mode", .0.display())]
    Exposed(PathBuf),
    /// The system refuses a step.
    #[error("{step} {}", path.display())]
    System {
        /// Which step.
        step: &'static str,
        /// Of what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A file that is removed when this is dropped, if it is still the one that was made.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    made: (u64, u64),
}

/// Listens at a path. A socket that nobody serves, or whose server is about to end, is replaced, and at no time is there
/// none; does not block.
pub(super) fn listen(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    let failed = |step| {
        move |errno: Errno| SocketError::System {
            step,
            path: path.to_owned(),
            source: errno.into(),
        }
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mode = rustix::fs::stat(folder).map_err(failed("look at the folder of"))?;
    if Mode::from_raw_mode(mode.st_mode).contains(Mode::WOTH) {
        return Err(SocketError::Exposed(folder.to_owned()));
    }
    let _lock = lock(path)?;
    may_be_taken(path)?;
    let made_at = beside(path, "~");
    remove_left(&made_at).map_err(failed("clear the way of"))?;
    let address = SocketAddrUnix::new(&made_at).map_err(failed("name a socket"))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(failed("make"))?;
    // The file gets the socket's mode less the umask, so that it is never open to everybody.
    rustix::fs::fchmod(&socket, MODE).map_err(failed("protect"))?;
    rustix::net::bind(&socket, &address).map_err(failed("bind"))?;
    // The mode whatever the umask.
    let (file, made) = find(&made_at).map_err(failed("find"))?;
    protect(&file, MODE).map_err(failed("protect"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(failed("listen at"))?;
    rustix::fs::rename(&made_at, path).map_err(failed("put in place"))?;
    let file = SocketFile {
        path: path.to_owned(),
        made,
    };
    Ok((socket.into(), file))
}

/// Finds the socket at a path, and which file it is. A link in its place is not followed.
fn find(path: &Path) -> Result<(OwnedFd, (u64, u64)), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let found = rustix::fs::fstat(&file)?;
    if !FileType::from_raw_mode(found.st_mode).is_socket() {
        return Err(Errno::NOTSOCK);
    }
    Ok((file, (found.st_dev, found.st_ino)))
}

fn protect(file: &OwnedFd, mode: Mode) -> Result<(), Errno> {
    rustix::fs::chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), mode)
}

/// Locks who may change what is at a path: of two that start at once one waits outside, so that it does not take the
/// other's socket for a stale one. The folder itself could be locked by everybody who may read it.
fn lock(path: &Path) -> Result<OwnedFd, SocketError> {
    let failed = |step| {
        move |errno: Errno| SocketError::System {
            step,
            path: path.to_owned(),
            source: errno.into(),
        }
    };
    let lock = beside(path, ".lock");
    let lock = rustix::fs::open(lock, LOCK, OWNER).map_err(failed("open the lock of"))?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(failed("lock"))?;
    Ok(lock)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(suffix);
    beside.into()
}

/// Removes what one has left that was killed before its socket was in place.
fn remove_left(path: &Path) -> Result<(), Errno> {
    match find(path) {
        Ok(_) => rustix::fs::unlink(path),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Whether a socket may be put at a path.
fn may_be_taken(path: &Path) -> Result<(), SocketError> {
    let failed = |step, source| SocketError::System {
        step,
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(SocketError::Occupied(path.to_owned()));
        }
        Ok(there) if Mode::from_raw_mode(there.mode()).contains(Mode::SVTX) => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", error)),
    }
    match ask(path) {
        // Full of connections that wait: somebody will take them.
        Ok(()) | Err(Errno::AGAIN) => Err(SocketError::Served(path.to_owned())),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("ask who serves", errno.into())),
    }
}

fn ask(path: &Path) -> Result<(), Errno> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &address)
}

impl SocketFile {
    /// Lets another process put its socket in the place of this one, which is served until then.
    pub(super) fn offer(&self) {
        let offered = find(&self.path).and_then(|(file, found)| match found == self.made {
            true => protect(&file, OFFERED),
            false => Ok(()),
        });
        if let Err(error) = offered {
            tracing::warn!(path = %self.path.display(), %error, "another process cannot take over the socket");
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whoever has the lock is about to put another in its place.
        let Ok(_lock) = lock(&self.path) else { return };
        let is_ours = |there: fs::Metadata| (there.dev(), there.ino()) == self.made;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// Sends bytes that no read returns together with what is sent after them; what is returned ends when they were
/// read.
///
/// A read of a unix stream gathers what several writes left, and kube-apiserver gives a connection up when
/// anything was read behind the head of the answer. So whoever sends more waits until the head was read. The system
/// tells: the bytes carry one end of a pipe, which is closed when they are read by somebody who does not ask for
/// descriptors. By one who does and keeps it they are still read alone, as Linux never goes on behind a message with
/// descriptors (`unix_stream_read_generic`,
/// <https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/unix/af_unix.c>). That alone would
/// not do: a reader that waits for edges takes a short read for the last one.
pub(super) async fn send_apart(stream: &UnixStream, bytes: &[u8]) -> io::Result<Receiver> {
    let (held, closed) = pipe::pipe()?;
    let held = held.into_nonblocking_fd()?;
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let rights = [held.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&rights));
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let bytes = [IoSlice::new(bytes)];
            Ok(rustix::net::sendmsg(stream, &bytes, &mut control, flags)?)
        })
        .await?;
    if sent == bytes.len() {
        Ok(closed)
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn two_writes_are_returned_by_one_read() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"head").await.unwrap();
        ours.write_all(b"words").await.unwrap();
        let mut buffer = [0; 4096];
        let length = theirs.read(&mut buffer).await.unwrap();
        assert_eq!(
            &buffer[..length],
            b"headwords",
            "send_apart would not be needed"
        );
    }

    #[tokio::test]
    async fn bytes_that_are_sent_apart_are_read_alone() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut read = send_apart(&ours, b"head").await.unwrap();
        ours.write_all(b"words").await.unwrap();
        assert!(
            tokio::time::timeout(Duration::ZERO, read.read(&mut [0]))
                .await
                .is_err()
        );
        let mut buffer = [0; 4096];
        let theirs = theirs.into_std().unwrap();
        for expected in [&b"head"[..], b"words"] {
            let length = io::Read::read(&mut &theirs, &mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected);
            assert_eq!(read.read(&mut [0]).await.unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn the_end_of_the_connection_is_one_of_the_waiting_too() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut read = send_apart(&ours, b"head").await.unwrap();
        drop(theirs);
        assert_eq!(read.read(&mut [0]).await.unwrap(), 0);
        send_apart(&ours, b"head").await.unwrap_err();
    }
}
