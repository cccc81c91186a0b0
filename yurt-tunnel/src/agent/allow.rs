//! What an agent may dial besides its own node's kubelet, as an operator writes it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use yurt_core::transport::MAX_HOST_LEN;

/// A target, or many: `HOST:PORT`. The host is an address, a CIDR or a name, the port a number or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    Network(Network),
    Name(String),
}

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    bits: u32,
}

/// A text that is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not HOST:PORT, such as 192.0.2.7:9100, 10.1.0.0/16:*, [2001:db8::1]:443 or plc.example:502"
)]
pub struct InvalidAllow(String);

impl Allow {
    /// Returns the addresses of this port that are meant by number.
    pub(super) fn network(&self, port: u16) -> Option<&Network> {
        match &self.hosts {
            Hosts::Network(network) if self.is_of(port) => Some(network),
            Hosts::Network(_) | Hosts::Name(_) => None,
        }
    }

    /// Returns whether this is about a host of this name and this port.
    pub(super) fn names(&self, host: &str, port: u16) -> bool {
        match &self.hosts {
            Hosts::Name(name) => self.is_of(port) && name.eq_ignore_ascii_case(host),
            Hosts::Network(_) => false,
        }
    }

    fn is_of(&self, port: u16) -> bool {
        self.port.is_none_or(|own| own == port)
    }
}

impl FromStr for Allow {
    type Err = InvalidAllow;

    fn from_str(text: &str) -> Result<Self, InvalidAllow> {
        let parse = || {
            let (host, port) = text.rsplit_once(':')?;
            let port = match port {
                "*" => None,
                _ => Some(port.parse().ok().filter(|&port| port != 0)?),
            };
            let hosts = match host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
            {
                Some(inner) => {
                    Hosts::Network(Network::parse(inner).filter(|net| net.address.is_ipv6())?)
                }
                None if host.contains(':') => return None,
                None => match Network::parse(host) {
                    Some(network) => Hosts::Network(network),
                    None => Hosts::Name(Some(host).filter(|host| is_name(host))?.to_owned()),
                },
            };
            Some(Self { hosts, port })
        };
        parse().ok_or_else(|| InvalidAllow(text.chars().take(MAX_HOST_LEN).collect()))
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hosts {
            Hosts::Name(name) => f.write_str(name)?,
            Hosts::Network(Network { address, bits }) => {
                let is_one = *bits == width(*address);
                match (address, is_one) {
                    (IpAddr::V4(address), true) => write!(f, "{address}")?,
                    (IpAddr::V4(address), false) => write!(f, "{address}/{bits}")?,
                    (IpAddr::V6(address), true) => write!(f, "[{address}]")?,
                    (IpAddr::V6(address), false) => write!(f, "[{address}/{bits}]")?,
                }
            }
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => f.write_str(":*"),
        }
    }
}

/// A DNS name; what ends in a number would be taken for an address by some.
fn is_name(host: &str) -> bool {
    let is_of_a_name =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    (1..=MAX_HOST_LEN).contains(&host.len()) && host.bytes().all(is_of_a_name) && !is_number
}

// === Network ===

impl Network {
    pub(super) const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u32) -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            bits,
        }
    }

    pub(super) const fn v6(first: u16, last: u16, bits: u32) -> Self {
        Self {
            address: IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last)),
            bits,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let address = if bits.is_none() {
            address.to_canonical()
        } else {
            address
        };
        let bits = bits.unwrap_or(width(address));
        (bits <= width(address)).then_some(Self { address, bits })
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Returns whether every address of this network is one of the other.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        self.bits >= other.bits && other.contains(self.address)
    }
}

fn width(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_it_is_written() {
        for text in [
            "192.0.2.7:9100",
            "192.0.2.7:*",
            "10.1.0.0/16:443",
            "0.0.0.0/0:*",
            "[2001:db8::1]:443",
            "[2001:db8::/32]:*",
            "plc.example:502",
            "localhost:*",
        ] {
            assert_eq!(text.parse::<Allow>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_target_is_an_error() {
        for text in [
            "",
            ":",
            "a",
            "a:",
            ":1",
            "a:0",
            "a:65536",
            "a:-1",
            "a b:1",
            "10.0.0.0/33:1",
            "10.0.0.0/:1",
            "2001:db8::1:443",
            "[10.0.0.1]:1",
            "[a]:1",
            "[2001:db8::1:443",
            "10.0.0:1",
            "10.0.0.256:1",
            "*:1",
            "[2001:db8::/129]:1",
        ] {
            assert!(text.parse::<Allow>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_network_has_the_addresses_of_its_first_bits() {
        for (network, address, expected) in [
            ("10.1.0.0/16", "10.1.255.255", true),
            ("10.1.0.0/16", "10.2.0.0", false),
            ("10.1.2.3/16", "10.1.0.1", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db9::1", true),
        ] {
            let network = Network::parse(network).unwrap();
            assert_eq!(
                network.contains(address.parse().unwrap()),
                expected,
                "{network:?} {address}"
            );
        }
    }
}
