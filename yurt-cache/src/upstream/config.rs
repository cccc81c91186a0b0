//! What the hub is told about the API servers.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use crate::tls::TlsError;

/// Which API servers there are, and how they are reached.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// The API servers, each `https://host:port`.
    pub servers: Vec<Uri>,
    /// The CA that signed their certificates, PEM; read again at every dial.
    pub ca_file: PathBuf,
    /// The node's client certificate, PEM; read again at every dial.
    pub client_certificate: Option<PathBuf>,
    /// Its key, PEM; the same file if this is not set.
    pub client_key: Option<PathBuf>,
    /// Who is asked first.
    pub order: Order,
    /// After so long without a byte, a connection is asked for a sign of life.
    pub keep_alive_interval: Duration,
    /// After so long without the sign, it is dead.
    pub keep_alive_timeout: Duration,
    /// How long a connection may take, TLS included.
    pub connect_timeout: Duration,
    /// How often a server that is down is tried.
    pub probe_interval: Duration,
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            ca_file: PathBuf::new(),
            client_certificate: None,
            client_key: None,
            order: Order::RoundRobin,
            // With the timeout and the confirmation 6.9 s: a busy machine still notices a silent cut in 8 s.
            keep_alive_interval: Duration::from_secs(4),
            keep_alive_timeout: Duration::from_millis(2500),
            connect_timeout: Duration::from_secs(3),
            probe_interval: Duration::from_secs(1),
        }
    }
}

/// Which of several healthy API servers is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Each in its turn.
    RoundRobin,
    /// The first of the list that is healthy.
    Priority,
}

/// Why the upstream could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum UpstreamError {
    /// The list of servers is empty.
    #[error("no API server is configured")]
    NoServers,
    /// A server's URL is not `https://host:port`.
    #[error("API server {url:?} is not https://host:port: {reason}")]
    ServerUrl {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is a key, but nothing that it proves.
    #[error("a client key is configured without a client certificate")]
    KeyWithoutCertificate,
    /// The CA or the client certificate cannot be used.
    #[error("load the CA and the client certificate")]
    LoadFiles(#[source] TlsError),
}
