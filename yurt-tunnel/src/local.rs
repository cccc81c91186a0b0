//! Which addresses are this machine's own, as its routes tell; no packet is sent.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Returns the address of this machine that packets to `remote` come from.
pub(crate) fn address_towards(remote: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(remote)?;
    Ok(socket.local_addr()?.ip().to_canonical())
}

/// Returns whether an address is this machine's own.
///
/// It can be bound, and packets to it come from it: on one that may bind addresses it does not have
/// (`net.ipv4.ip_nonlocal_bind`), the first proves nothing.
pub(crate) fn is_own(address: IpAddr) -> bool {
    const DISCARD: u16 = 9;
    let is_bound = UdpSocket::bind((address, 0)).is_ok();
    is_bound && address_towards((address, DISCARD).into()).is_ok_and(|source| source == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_address_is_own_and_a_neighbours_is_not() {
        assert!(is_own(Ipv4Addr::LOCALHOST.into()));
        assert!(!is_own(Ipv4Addr::new(192, 0, 2, 77).into()));
    }

    #[test]
    fn packets_to_this_machine_come_from_it() {
        let remote = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        assert_eq!(address_towards(remote).unwrap(), Ipv4Addr::LOCALHOST);
    }
}
