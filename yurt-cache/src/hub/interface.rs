//! The address at which the node's pods reach the hub, link-local and the same on every node: put on an interface
//! of its own where the kernel can make one, else on the loopback. Put again if somebody takes it away, and
//! gone when the hub ends.

mod netlink;

use std::net::IpAddr;

use rustix::io::Errno;

use self::netlink::{Link, Netlink};

use crate::tasks::Panicked;

/// The interface that carries it.
const NAME: &str = "yurthub0";

const LOOPBACK: &str = "lo";

/// Why pods cannot reach the hub at their address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InterfaceError {
    /// The process may not change the node's addresses.
    #[error(
        "put {address} on an interface: CAP_NET_ADMIN is missing (or put the address there beforehand)"
    )]
    NotAllowed {
        /// The address.
        address: IpAddr,
    },
    /// The kernel refused.
    #[error("{step} for {address}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// The address.
        address: IpAddr,
        /// What the kernel said.
        source: Errno,
    },
    /// What asks the kernel panicked.
    #[error("ask the kernel")]
    Panicked(#[from] Panicked),
}

/// An address that the hub looks after.
#[derive(Clone, Debug)]
pub(crate) struct PodAddress(IpAddr);

/// Which interface carries the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Own(Link),
    Loopback(Link),
}

impl PodAddress {
    pub(crate) fn new(address: IpAddr) -> Self {
        Self(address)
    }

    /// Puts the address on its interface, if it is not there. It takes some calls of the kernel and no time.
    ///
    /// # Errors
    /// If it may not, or the kernel does not want to.
    pub(crate) fn ensure(&self) -> Result<(), InterfaceError> {
        let netlink = Netlink::open().map_err(self.failed("open a netlink socket"))?;
        let carrier = self.carrier(&netlink)?;
        netlink
            .add_address(carrier.link(), self.0)
            .map_err(self.failed("add the address to its interface"))
    }

    fn carrier(&self, netlink: &Netlink) -> Result<Carrier, InterfaceError> {
        let find = |name| {
            netlink
                .link(name)
                .map_err(self.failed("look for the interface"))
        };
        if let Some(own) = find(NAME)? {
            return Ok(Carrier::Own(own));
        }
        let made = netlink.make_dummy(NAME);
        if !falls_back(made).map_err(self.failed("make the interface"))?
            && let Some(own) = find(NAME)?
        {
            return Ok(Carrier::Own(own));
        }
        let loopback = find(LOOPBACK)?.ok_or(Errno::NODEV);
        loopback
            .map(Carrier::Loopback)
            .map_err(self.failed("look for the loopback"))
    }

    /// Takes the address away, and the interface if the hub made one.
    ///
    /// # Errors
    /// If it may not, or the kernel does not want to.
    pub(crate) fn remove(&self) -> Result<(), InterfaceError> {
        let netlink = Netlink::open().map_err(self.failed("open a netlink socket"))?;
        let find = |name| {
            netlink
                .link(name)
                .map_err(self.failed("look for the interface"))
        };
        if let Some(own) = find(NAME)? {
            return netlink
                .remove_link(own)
                .map_err(self.failed("remove the interface"));
        }
        match find(LOOPBACK)? {
            None => Ok(()),
            Some(loopback) => netlink
                .remove_address(loopback, self.0)
                .map_err(self.failed("remove the address from the loopback")),
        }
    }

    fn failed(&self, step: &'static str) -> impl Fn(Errno) -> InterfaceError {
        let address = self.0;
        move |source| match source {
            Errno::PERM | Errno::ACCESS => InterfaceError::NotAllowed { address },
            source => InterfaceError::Refused {
                step,
                address,
                source,
            },
        }
    }
}

impl Carrier {
    fn link(self) -> Link {
        match self {
            Self::Own(link) | Self::Loopback(link) => link,
        }
    }
}

/// Returns whether the loopback has to do: this kernel cannot make dummy interfaces.
fn falls_back(made: Result<(), Errno>) -> Result<bool, Errno> {
    match made {
        Ok(()) | Err(Errno::EXIST) => Ok(false),
        Err(Errno::OPNOTSUPP | Errno::NODEV | Errno::NOSYS) => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
