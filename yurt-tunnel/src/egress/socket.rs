//! The unix socket for kube-apiserver: one file, never somebody else's, and answers that are read on their own.

use std::fs;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
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
    #[error("{} is there and is no socket", .0.display())]
    Occupied(PathBuf),
    /// Another process answers there.
    #[error("somebody serves {}", .0.display())]
    Served(PathBuf),
    /// Everybody may put another file in the socket's place.
    #[error("everybody may write in {}, and so serve kube-apiserver: take its mode o+w away", .0.display())]
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

/// Listens at a path. A socket that nobody serves is replaced; does not block.
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
    // Of two that start at once one waits outside, so that it does not take the other's socket for a stale one. The
    // folder itself could be locked by everybody who may read it.
    let lock = rustix::fs::open(beside(path), LOCK, OWNER).map_err(failed("open the lock of"))?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(failed("lock"))?;
    remove_stale(path)?;
    let address = SocketAddrUnix::new(path).map_err(failed("name a socket"))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(failed("make"))?;
    // The file gets the socket's mode less the umask, so that it is never open to everybody.
    rustix::fs::fchmod(&socket, MODE).map_err(failed("protect"))?;
    rustix::net::bind(&socket, &address).map_err(failed("bind"))?;
    let made = protect(path).map_err(failed("protect"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(failed("listen at"))?;
    let file = SocketFile {
        path: path.to_owned(),
        made,
    };
    Ok((socket.into(), file))
}

/// Gives the socket its mode, whatever the umask, and returns which file it is. A link in its place is not followed.
fn protect(path: &Path) -> Result<(u64, u64), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let made = rustix::fs::fstat(&file)?;
    if !FileType::from_raw_mode(made.st_mode).is_socket() {
        return Err(Errno::NOTSOCK);
    }
    rustix::fs::chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), MODE)?;
    Ok((made.st_dev, made.st_ino))
}

/// The file whose lock says who may put a socket at a path.
fn beside(path: &Path) -> PathBuf {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    lock.into()
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |step, source| SocketError::System {
        step,
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => {}
        Ok(_) => return Err(SocketError::Occupied(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", error)),
    }
    match ask(path) {
        // Full of connections that wait: somebody will take them.
        Ok(()) | Err(Errno::AGAIN) => Err(SocketError::Served(path.to_owned())),
        Err(Errno::CONNREFUSED) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", error)),
            Ok(()) | Err(_) => Ok(()),
        },
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("ask who serves", errno.into())),
    }
}

fn ask(path: &Path) -> Result<(), Errno> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &address)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = |there: fs::Metadata| (there.dev(), there.ino()) == self.made;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket stays");
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
