//! When the node's addresses and routes change, as the kernel tells (rtnetlink(7)).

use std::io;
use std::os::unix::net::UnixDatagram as StdDatagram;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::net::UnixDatagram;

/// Changes of links, of addresses and of routes, of both families.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// A socket to the kernel, which says that something has changed; what has, is looked up.
///
/// The runtime takes it for a datagram socket of another family, of which it asks the same.
#[derive(Debug)]
pub(super) struct Changes(UnixDatagram);

impl Changes {
    pub(super) fn new() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            // NETLINK_ROUTE is the protocol of number 0.
            None,
        )?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        UnixDatagram::from_std(StdDatagram::from(socket)).map(Self)
    }

    /// Returns when something has changed; many changes at once are one. Dropped, none is lost.
    pub(super) async fn next(&self) -> io::Result<()> {
        let mut message = [0; 8192];
        taken(self.0.recv(&mut message).await)?;
        loop {
            match self.0.try_recv(&mut message) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                received => taken(received)?,
            }
        }
    }
}

/// There may have been more changes than the socket could hold: something has changed.
fn taken(received: io::Result<usize>) -> io::Result<()> {
    match received {
        Err(error) if error.raw_os_error() != Some(Errno::NOBUFS.raw_os_error()) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}
