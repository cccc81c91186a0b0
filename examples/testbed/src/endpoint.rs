//! How to reach an API server, whichever it is.

use std::{fmt, net::SocketAddr};

/// An API server that a test talks to: the one inside the process or the real one.
#[derive(Clone)]
pub struct Endpoint {
    /// `https://127.0.0.1:PORT`, without a trailing slash.
    pub url: String,
    /// The CA of its serving certificate, and of client certificates, PEM.
    pub ca_pem: String,
    /// A bearer token that may do everything.
    pub admin_token: String,
}

impl Endpoint {
    /// Returns the address behind the URL.
    ///
    /// # Panics
    ///
    /// When the URL is not `https://IP:PORT`.
    pub fn addr(&self) -> SocketAddr {
        let address = self.url.trim_start_matches("https://");
        address.parse().expect("a test's URL is https://IP:PORT")
    }

    /// Returns the same server behind another address, such as a relay's.
    pub fn through(&self, addr: SocketAddr) -> Self {
        Self {
            url: format!("https://{addr}"),
            ..self.clone()
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &self.url)
            .field("admin_token", &"…")
            .finish_non_exhaustive()
    }
}
