//! What an agent may dial besides its own node's kubelet, as an operator writes it.

use std::fmt;
use std::str::FromStr;

use yurt_core::transport::MAX_HOST_LEN;

use crate::network::Network;

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
                Some(inner) => Hosts::Network(inner.parse().ok().filter(Network::is_ipv6)?),
                None if host.contains(':') => return None,
                None => match host.parse() {
                    Ok(network) => Hosts::Network(network),
                    Err(_) => Hosts::Name(Some(host).filter(|host| is_name(host))?.to_owned()),
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
            Hosts::Network(network) if network.is_ipv6() => write!(f, "[{network}]")?,
            Hosts::Network(network) => write!(f, "{network}")?,
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
}
