//! From the file and the flags to what the hub is built of, or every mistake in them at once.

mod check;
mod file;
mod given;
mod kept;
#[cfg(test)]
mod tests;

use std::{fmt, fs, net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use tracing_subscriber::filter::Targets;
use yurt_cache::hub::{FilterConfig, Limits, ServingSigner, UpstreamConfig};
use yurt_core::name::NodeName;

use self::{given::Given, kept::Kept};

/// A node's own API server: it keeps answering while the cloud is away.
///
/// Every flag is a key of the file too; the flag wins.
#[derive(Debug, Default, Parser)]
#[command(version, next_line_help = true)]
pub(crate) struct Flags {
    /// The configuration file, YAML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The node's name in the cluster
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// An API server, https://host:port; may be repeated
    #[arg(long = "server", value_name = "URL")]
    servers: Vec<String>,
    /// Which API server is asked: roundRobin (default) or priority
    #[arg(long, value_name = "ORDER")]
    order: Option<String>,
    /// The CA of the API servers, PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<String>,
    /// The node's client certificate, PEM
    #[arg(long, value_name = "FILE")]
    client_certificate: Option<String>,
    /// Its key, PEM; by default in the certificate's file
    #[arg(long, value_name = "FILE")]
    client_key: Option<String>,
    /// A file with a bootstrap token, to get a client certificate with; wiped afterwards
    #[arg(long, value_name = "FILE")]
    bootstrap_token_file: Option<String>,
    /// Where local clients are served; may be repeated [default: 127.0.0.1:10268]
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// The certificate for local clients, PEM; by default the hub makes a CA and a certificate
    #[arg(long, value_name = "FILE")]
    serving_certificate: Option<String>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE")]
    serving_key: Option<String>,
    /// One more name or address of the hub's own certificate; may be repeated
    #[arg(long = "serving-name", value_name = "NAME")]
    serving_names: Vec<String>,
    /// Who signs the hub's certificate for local clients: own (default) or cluster
    #[arg(long, value_name = "SIGNER")]
    serving_signer: Option<String>,
    /// The CA of local clients' certificates, PEM
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<String>,
    /// Where health and metrics are served [default: 127.0.0.1:10267]
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// Where the hub remembers [default: /var/lib/yurthub]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// A file with the keys that seal Secrets and tokens in dataDir, one per line
    #[arg(long, value_name = "FILE")]
    seal_key_file: Option<String>,
    /// How long what the cloud said of a caller counts while it is away: 12h, 30d [default: 30d]
    #[arg(long, value_name = "TIME")]
    verdict_limit: Option<String>,
    /// The same for reading Secrets, if shorter; the node is exempt [default: 24h]
    #[arg(long, value_name = "TIME")]
    secret_verdict_limit: Option<String>,
    /// Where pods reach the hub, such as 169.254.2.1:10268; without it none is sent here
    #[arg(long, value_name = "ADDRESS")]
    pod_address: Option<String>,
    /// The node's pool; by default its label apps.openyurt.io/nodepool says it
    #[arg(long, value_name = "NAME")]
    pool_name: Option<String>,
    /// For whom a filter is, filter=caller,caller, or filter=off; may be repeated
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Connections of one caller [default: 160]
    #[arg(long, value_name = "NUMBER")]
    caller_connections: Option<String>,
    /// Requests of one caller at a time [default: 32]
    #[arg(long, value_name = "NUMBER")]
    caller_requests: Option<String>,
    /// Watches and streams of one caller at a time [default: 512]
    #[arg(long, value_name = "NUMBER")]
    caller_watches: Option<String>,
    /// Scopes of one caller that are mirrored; others are only forwarded [default: 200]
    #[arg(long, value_name = "NUMBER")]
    caller_mirrors: Option<String>,
    /// Requests of one caller in a second [default: 500]
    #[arg(long, value_name = "NUMBER")]
    caller_rate: Option<String>,
    /// Connections of who has not shown yet who it is [default: 256]
    #[arg(long, value_name = "NUMBER")]
    anonymous_connections: Option<String>,
    /// Bytes of a request's body [default: 3145728]
    #[arg(long, value_name = "BYTES")]
    body_limit: Option<String>,
    #[command(flatten)]
    kept: kept::Flags,
    /// A level, or target=level with commas between [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// A configuration without a mistake.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) node_name: NodeName,
    pub(crate) upstream: UpstreamConfig,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) serving_names: Vec<String>,
    pub(crate) serving_signer: ServingSigner,
    pub(crate) bootstrap_token_file: Option<PathBuf>,
    pub(crate) serving_certificate: Option<PathBuf>,
    pub(crate) serving_key: Option<PathBuf>,
    pub(crate) client_ca_file: Option<PathBuf>,
    pub(crate) admin_listen: SocketAddr,
    pub(crate) data_dir: PathBuf,
    pub(crate) seal_key_file: Option<PathBuf>,
    pub(crate) verdict_limit: Duration,
    pub(crate) secret_verdict_limit: Duration,
    pub(crate) pod_address: Option<SocketAddr>,
    pub(crate) pool_name: Option<String>,
    pub(crate) filters: FilterConfig,
    pub(crate) limits: Limits,
    pub(crate) kept: Kept,
    pub(crate) log: Targets,
}

/// One thing that is wrong, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    place: String,
    problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

/// Reads the file, lays the flags over it and checks every value.
pub(crate) fn load(flags: Flags) -> Result<Settings, Vec<Mistake>> {
    let mut given = Given::default();
    if let Some(path) = &flags.config {
        given.read_file(path.display().to_string(), fs::read_to_string(path));
    }
    given.lay_over(flags);
    given.check()
}
