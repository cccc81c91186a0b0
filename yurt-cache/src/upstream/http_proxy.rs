//! The HTTP proxy of a site that lets nobody out without one: as Go's clients, kubelet among them, are told of it by
//! `HTTPS_PROXY` and `NO_PROXY`.

use std::fmt;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderValue;
use http::uri::Authority;
use percent_encoding::percent_decode_str;

/// An HTTP proxy that carries connections to API servers, by `CONNECT`.
#[derive(Clone)]
pub struct HttpProxy {
    host: String,
    port: u16,
    authorization: Option<HeaderValue>,
    /// Who is reached without it.
    exceptions: Vec<Exception>,
}

/// Why a proxy cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpProxyError {
    /// It is not a proxy of HTTP.
    #[error("the proxy has the scheme {0:?}: only http is supported")]
    Scheme(String),
    /// It is not `[http://][user[:password]@]host[:port]`.
    #[error("the proxy is not http://host:port")]
    Url,
}

impl HttpProxy {
    /// Reads `HTTPS_PROXY` and `NO_PROXY`, or their lower-case twins, from an environment; `None` if no proxy is set.
    ///
    /// # Errors
    /// If the proxy that is set cannot be used.
    ///
    /// # Example
    /// ```
    /// use yurt_cache::hub::HttpProxy;
    ///
    /// let environment = |name: &str| match name {
    ///     "HTTPS_PROXY" => Some("http://proxy.example:3128".to_owned()),
    ///     _ => None,
    /// };
    /// let proxy = HttpProxy::from_environment(environment)?;
    /// assert_eq!(proxy.unwrap().to_string(), "http://proxy.example:3128");
    /// # Ok::<(), yurt_cache::hub::HttpProxyError>(())
    /// ```
    pub fn from_environment(
        read: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, HttpProxyError> {
        let set = |names: [&str; 2]| {
            let mut values = names.into_iter().filter_map(&read);
            values.find(|value| !value.is_empty())
        };
        let Some(proxy) = set(["HTTPS_PROXY", "https_proxy"]) else {
            return Ok(None);
        };
        let exceptions = set(["NO_PROXY", "no_proxy"]).unwrap_or_default();
        Self::parse(proxy.trim(), &exceptions).map(Some)
    }

    fn parse(url: &str, exceptions: &str) -> Result<Self, HttpProxyError> {
        let rest = match url.split_once("://") {
            None => url,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => return Err(HttpProxyError::Scheme(scheme.to_owned())),
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, address) = match rest.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, rest),
        };
        let address: Authority = address.parse().map_err(|_| HttpProxyError::Url)?;
        let has_bad_port = address.port_u16().is_none() && address.as_str() != address.host();
        if address.host().is_empty() || has_bad_port {
            return Err(HttpProxyError::Url);
        }
        Ok(Self {
            host: address.host().trim_matches(['[', ']']).to_owned(),
            port: address.port_u16().unwrap_or(80),
            authorization: user.map(basic).transpose()?,
            exceptions: exceptions.split(',').filter_map(Exception::parse).collect(),
        })
    }

    /// Where it is.
    pub(super) fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// How it knows who asks.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Returns whether a host is reached through it: not the node itself, and nobody who is excepted.
    pub(super) fn carries(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        let is_here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let is_excepted = |exception: &Exception| exception.covers(&host, address, port);
        !is_here && !self.exceptions.iter().any(is_excepted)
    }
}

fn basic(user: &str) -> Result<HeaderValue, HttpProxyError> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let plain = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let both = [plain(name), vec![b':'], plain(password)].concat();
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(both)))
        .map_err(|_| HttpProxyError::Url)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Without the password, and without who asks.
impl fmt::Display for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "http://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "http://{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpProxy")
            .field("url", &self.to_string())
            .field("exceptions", &self.exceptions)
            .finish_non_exhaustive()
    }
}

// === Exception ===

/// One word of `NO_PROXY`, as Go reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    All,
    /// Addresses that begin with so many bits.
    Network(IpAddr, u8),
    Address(IpAddr, Option<u16>),
    /// A domain, `.example`, and its name itself if `and_itself`.
    Domain {
        suffix: String,
        and_itself: bool,
        port: Option<u16>,
    },
}

impl Exception {
    fn parse(word: &str) -> Option<Self> {
        let word = word.trim().to_ascii_lowercase();
        if word == "*" {
            return Some(Self::All);
        }
        if let Some((network, bits)) = word.split_once('/')
            && let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u8>())
        {
            let longest = if network.is_ipv4() { 32 } else { 128 };
            return (bits <= longest).then_some(Self::Network(network, bits));
        }
        let (host, port) = match word.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse().ok()?))
            }
            _ => (word.as_str(), None),
        };
        let host = host.trim_matches(['[', ']']);
        if let Ok(address) = host.parse() {
            return Some(Self::Address(address, port));
        }
        let host = host
            .strip_prefix('*')
            .filter(|rest| rest.starts_with('.'))
            .unwrap_or(host);
        if host.is_empty() {
            return None;
        }
        Some(if host.starts_with('.') {
            Self::Domain {
                suffix: host.to_owned(),
                and_itself: false,
                port,
            }
        } else {
            Self::Domain {
                suffix: format!(".{host}"),
                and_itself: true,
                port,
            }
        })
    }

    fn covers(&self, host: &str, address: Option<IpAddr>, asked: u16) -> bool {
        let is_port = |port: &Option<u16>| port.is_none_or(|port| port == asked);
        match self {
            Self::All => true,
            Self::Network(network, bits) => {
                address.is_some_and(|address| shares_bits(*network, address, *bits))
            }
            Self::Address(excepted, port) => address == Some(*excepted) && is_port(port),
            Self::Domain {
                suffix,
                and_itself,
                port,
            } => {
                let is_below = host.ends_with(suffix.as_str());
                let is_itself = *and_itself && host == &suffix[1..];
                address.is_none() && (is_below || is_itself) && is_port(port)
            }
        }
    }
}

fn shares_bits(network: IpAddr, address: IpAddr, bits: u8) -> bool {
    let bits = u32::from(bits);
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differing = network.to_bits() ^ address.to_bits();
            differing.checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differing = network.to_bits() ^ address.to_bits();
            differing.checked_shr(128 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str, exceptions: &str) -> Result<HttpProxy, HttpProxyError> {
        HttpProxy::parse(url, exceptions)
    }

    #[test]
    fn it_is_read_from_the_environment_as_go_reads_it() {
        let of = |set: &'static [(&str, &str)]| {
            let read = move |name: &str| {
                let found = set.iter().find(|(set, _)| *set == name)?;
                Some(found.1.to_owned())
            };
            HttpProxy::from_environment(read)
                .unwrap()
                .map(|proxy| proxy.to_string())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("HTTPS_PROXY", "")]), None);
        assert_eq!(of(&[("HTTP_PROXY", "http://a:1")]), None);
        let upper = of(&[("https_proxy", "http://b:1"), ("HTTPS_PROXY", "http://a:1")]);
        assert_eq!(upper.as_deref(), Some("http://a:1"));
        let lower = of(&[("https_proxy", "http://b:1"), ("HTTPS_PROXY", "")]);
        assert_eq!(lower.as_deref(), Some("http://b:1"));
    }

    #[test]
    fn only_an_http_proxy_is_taken_and_its_password_is_never_shown() {
        for (url, shown) in [
            ("http://10.0.0.1:3128", Some("http://10.0.0.1:3128")),
            ("10.0.0.1:3128", Some("http://10.0.0.1:3128")),
            ("HTTP://proxy.example/", Some("http://proxy.example:80")),
            ("http://[fd00::1]:3128", Some("http://[fd00::1]:3128")),
            ("http://u:p%40ss@proxy:1", Some("http://proxy:1")),
            ("https://proxy:1", None),
            ("socks5://proxy:1", None),
            ("http://", None),
            ("http://a:99999", None),
            ("http://a b", None),
        ] {
            let parsed = proxy(url, "");
            assert_eq!(
                parsed.as_ref().ok().map(ToString::to_string).as_deref(),
                shown,
                "{url}"
            );
            assert!(!format!("{parsed:?}").contains("p@ss"), "{url}");
        }
        let authorization = proxy("http://u:p%40ss@proxy:1", "").unwrap().authorization;
        // u:p@ss
        assert_eq!(authorization.unwrap(), "Basic dTpwQHNz");
    }

    #[test]
    fn nobody_who_is_excepted_is_reached_through_it() {
        let table = [
            ("", "10.0.0.1", true),
            ("", "api.example", true),
            ("", "localhost", false),
            ("", "127.0.0.5", false),
            ("", "::1", false),
            ("*", "api.example", false),
            ("10.0.0.0/8", "10.1.2.3", false),
            ("10.0.0.0/8", "11.1.2.3", true),
            ("0.0.0.0/0", "11.1.2.3", false),
            ("fd00::/8", "fd12::1", false),
            ("fd00::/8", "fe80::1", true),
            ("10.0.0.0/33", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.1", false),
            ("10.0.0.1:6443", "10.0.0.1", false),
            ("10.0.0.1:443", "10.0.0.1", true),
            ("[fd00::1]:6443", "fd00::1", false),
            ("fd00::1", "fd00::1", false),
            ("example", "api.example", false),
            ("example", "example", false),
            ("example", "api.anexample", true),
            (".example", "api.example", false),
            (".example", "example", true),
            ("*.example", "api.example", false),
            ("API.Example", "api.example", false),
            ("api.example:6443", "API.EXAMPLE", false),
            ("api.example:80", "api.example", true),
            ("a, b ,api.example", "api.example", false),
            (".1", "10.0.0.1", true),
            (",, :", "api.example", true),
        ];
        for (exceptions, host, is_carried) in table {
            let proxy = proxy("http://proxy:1", exceptions).unwrap();
            assert_eq!(
                proxy.carries(host, 6443),
                is_carried,
                "{exceptions:?} {host}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(url: String, exceptions: String, host: String) {
            if let Ok(proxy) = proxy(&url, &exceptions) {
                proxy.carries(&host, 1);
            }
        }
    }
}
