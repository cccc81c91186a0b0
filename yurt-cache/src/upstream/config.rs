//! What the hub is told about the API servers.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::HttpProxy;
use crate::tls::TlsError;

/// Which API servers there are, and how they are reached.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// The API servers, each `https://host:port`.
    pub servers: Vec<Uri>,
    /// The CA of the API servers' certificates, PEM; read for every new connection.
    pub ca_file: PathBuf,
    /// The node's client certificate, PEM; read for every new connection.
    pub client_certificate: Option<PathBuf>,
    /// The certificate's key, PEM; by default in the same file as the certificate.
    pub client_key: Option<PathBuf>,
    /// The order in which healthy API servers are used.
    pub order: Order,
    /// How long a connection may be idle before a keep-alive ping is sent.
    pub keep_alive_interval: Duration,
    /// How long to wait for the answer to a ping before the connection counts as dead.
    pub keep_alive_timeout: Duration,
    /// The timeout for a new connection, TLS handshake included.
    pub connect_timeout: Duration,
    /// How often to probe an API server that is down.
    pub probe_interval: Duration,
    /// The HTTP proxy on the way, if there is one.
    pub proxy: Option<HttpProxy>,
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
            proxy: None,
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
