//! Which servers an agent believes to be told of: those that are where the configured ones are. Pure.
//!
//! A server that somebody has taken over could send every agent to any host and port of its site.

use std::net::{IpAddr, Ipv6Addr};

use crate::dial::Address;

/// Returns whether a server that was told of is near one that was configured: an address in its network, /24 or /64; a
/// name in the domain that its name is in, or below its name where that domain is a top-level one.
pub(super) fn is_near(told: &Address, configured: &[Address]) -> bool {
    let is_near = |own: &Address| match (address(told), address(own)) {
        (Some(told), Some(own)) => network(told) == network(own),
        (None, None) => is_in_domain(&told.host, &own.host),
        (Some(_), None) | (None, Some(_)) => false,
    };
    configured.iter().any(is_near)
}

fn address(of: &Address) -> Option<IpAddr> {
    of.host.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

fn network(of: IpAddr) -> IpAddr {
    match of {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            [a, b, c, 0].into()
        }
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (!0 << 64)).into(),
    }
}

fn is_in_domain(told: &str, own: &str) -> bool {
    let (told, own) = (plain(told), plain(own));
    let domain = match own.split_once('.') {
        Some((_, domain)) if domain.contains('.') => domain,
        _ => &own,
    };
    let below = told.strip_suffix(domain);
    told == own || below.is_some_and(|below| below.len() > 1 && below.ends_with('.'))
}

fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_believed_where_the_configured_ones_are() {
        for (configured, told, expected) in [
            ("a.tunnel.example:443", "a.tunnel.example:8443", true),
            ("a.tunnel.example:443", "B.Tunnel.example.:443", true),
            ("a.tunnel.example:443", "x.b.tunnel.example:443", true),
            ("a.tunnel.example:443", "tunnel.example:443", false),
            ("a.tunnel.example:443", "eviltunnel.example:443", false),
            ("a.tunnel.example:443", "a.tunnel.example.evil:443", false),
            ("tunnel.example:443", "tunnel.example:443", true),
            ("tunnel.example:443", "b.tunnel.example:443", true),
            ("tunnel.example:443", "other.example:443", false),
            ("tunnel:443", "tunnel:443", true),
            ("tunnel:443", "localhost:443", false),
            ("tunnel.example:443", "192.0.2.1:443", false),
            ("192.0.2.1:443", "192.0.2.200:10250", true),
            ("192.0.2.1:443", "192.0.3.1:443", false),
            ("192.0.2.1:443", "127.0.0.1:443", false),
            ("192.0.2.1:443", "[::ffff:192.0.2.9]:443", true),
            ("192.0.2.1:443", "tunnel.example:443", false),
            ("[2001:db8::1]:443", "[2001:db8::ffff:1]:443", true),
            ("[2001:db8::1]:443", "[2001:db8:0:1::1]:443", false),
        ] {
            let parse = |text: &str| text.parse::<Address>().unwrap();
            let believed = is_near(&parse(told), &[parse(configured)]);
            assert_eq!(believed, expected, "{configured} {told}");
        }
        assert!(!is_near(&"tunnel.example:443".parse().unwrap(), &[]));
    }
}
