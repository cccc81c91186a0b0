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
/// It can be bound, and packets to it come from it or the machine says that it takes them: packets to a second address of a
/// network come from the first. On a machine that may bind addresses it does not have (`net.ipv4.ip_nonlocal_bind`), that
/// it can be bound proves nothing.
pub(crate) fn is_own(address: IpAddr) -> bool {
    const DISCARD: u16 = 9;
    let address = address.to_canonical();
    if UdpSocket::bind((address, 0)).is_err() {
        return false;
    }
    if address_towards((address, DISCARD).into()).is_ok_and(|source| source == address) {
        return true;
    }
    match address {
        IpAddr::V4(address) => std::fs::read_to_string("/proc/net/fib_trie")
            .is_ok_and(|routes| takes(&routes, address)),
        // Packets to any address of the machine come from that address.
        IpAddr::V6(_) => false,
    }
}

/// Returns whether a machine with these routes, as Linux shows them, takes packets to an address. Tables beside the two
/// that every machine has hold for marked packets only, as those of a transparent proxy.
fn takes(routes: &str, address: Ipv4Addr) -> bool {
    let mut is_for_all = false;
    let mut network = None;
    for line in routes.lines() {
        if !line.starts_with(' ') {
            is_for_all = matches!(line, "Main:" | "Local:");
        } else if let Some(text) = line.trim_start().strip_prefix("|-- ") {
            network = text.parse::<Ipv4Addr>().ok();
        } else if let (true, Some(network), Some(len)) = (is_for_all, network, local_prefix(line))
            && let mask = u32::MAX
                .checked_shl(32_u32.saturating_sub(len))
                .unwrap_or(0)
            && (address.to_bits() ^ network.to_bits()) & mask == 0
        {
            return true;
        }
    }
    false
}

/// Returns the length of a prefix that is local: `/32 host LOCAL`.
fn local_prefix(line: &str) -> Option<u32> {
    let (len, kind) = line.trim_start().strip_prefix('/')?.split_once(' ')?;
    kind.ends_with(" LOCAL").then(|| len.parse().ok())?
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
    fn a_second_address_of_a_network_and_one_that_is_written_as_ipv6_are_own() {
        for own in ["127.0.0.5", "::ffff:127.0.0.1", "::ffff:127.0.0.5"] {
            assert!(is_own(own.parse().unwrap()), "{own}");
        }
        assert!(!is_own("::ffff:192.0.2.77".parse().unwrap()));
    }

    #[test]
    fn the_machine_takes_what_is_local_in_the_tables_for_all_packets() {
        let routes = "\
Id 100:
  +-- 0.0.0.0/0 0 0 0
     |-- 0.0.0.0
        /0 host LOCAL
Main:
  +-- 10.0.0.0/24 2 0 2
     |-- 10.0.0.0
        /24 link UNICAST
Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 127.0.0.0
        /8 host LOCAL
     +-- 10.0.0.0/24 2 0 2
        |-- 10.0.0.10
           /32 host LOCAL
        |-- 10.0.0.12
           /32 host LOCAL
        |-- 10.0.0.255
           /32 link BROADCAST
";
        for (address, expected) in [
            ("10.0.0.10", true),
            ("10.0.0.12", true),
            ("127.1.2.3", true),
            ("10.0.0.11", false),
            ("10.0.0.255", false),
            ("10.0.0.0", false),
            ("192.0.2.77", false),
        ] {
            assert_eq!(
                takes(routes, address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn packets_to_this_machine_come_from_it() {
        let remote = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        assert_eq!(address_towards(remote).unwrap(), Ipv4Addr::LOCALHOST);
    }
}
