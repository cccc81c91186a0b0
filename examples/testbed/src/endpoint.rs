//! How to reach an API server, whichever it is.

/// An API server that a test talks to: the one inside the process or the real one.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `https://127.0.0.1:PORT`, without a trailing slash.
    pub url: String,
    /// The CA of its serving certificate, and of client certificates, PEM.
    pub ca_pem: String,
    /// A bearer token that may do everything.
    pub admin_token: String,
}
