//! Settings from the file and the flags, or all mistakes in them at once.

mod check;
mod given;
#[cfg(test)]
mod tests;

use std::{fmt, fs, path::PathBuf};

use clap::Parser;
use tracing_subscriber::filter::Targets;
use yurt_tunnel::agent::Config;
use yurt_tunnel::identity::Credentials;
use yurt_tunnel::link::{self, Buffers};
use yurt_tunnel::transport::{NamedTransport, h2::H2Transport, quic::QuicTransport};

use self::given::Given;

/// The tunnel's edge end: the cloud reaches this node through it, wherever the node is.
///
/// Every flag is also a key of the file; the flag wins.
#[derive(Debug, Default, Parser)]
#[command(version, next_line_help = true)]
pub(crate) struct Flags {
    /// The configuration file, YAML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A tunnel server; each address of a name is one server; may be repeated
    #[arg(long = "server", value_name = "HOST:PORT")]
    servers: Vec<String>,
    /// The node's name in the cluster
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// The CA of the servers, PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<String>,
    /// The node's client certificate, PEM
    #[arg(long, value_name = "FILE")]
    certificate: Option<String>,
    /// The certificate's key, PEM [default: in the certificate's file]
    #[arg(long, value_name = "FILE")]
    key: Option<String>,
    /// A target besides the kubelet: an address, CIDR or name, and a port or *; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    allow: Vec<String>,
    /// How to connect: auto, quic or h2 [default: auto]
    #[arg(long, value_name = "TRANSPORT")]
    transport: Option<String>,
    /// How many servers to connect to at once [default: 3]
    #[arg(long, value_name = "NUMBER")]
    links: Option<String>,
    /// The keep-alive interval of an idle link, 1s to 240s [default: as long as the NAT allows]
    #[arg(long, value_name = "DURATION")]
    keep_alive: Option<String>,
    /// The link is metered: keep one link warm, and send as little as possible
    #[arg(long)]
    metered: bool,
    /// The kubelet's port [default: 10250]
    #[arg(long, value_name = "PORT")]
    kubelet_port: Option<String>,
    /// The folder of the agent's state [default: /var/lib/yurt-tunnel-agent]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// The address that serves health and metrics [default: 127.0.0.1:10266]
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// The memory of all streams for slow readers, beyond a first 64Ki each [default: 64Mi]
    #[arg(long, value_name = "BYTES")]
    buffers: Option<String>,
    /// The log level, or a list of target=level with commas between [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// A configuration without a mistake.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) agent: Config,
    pub(crate) credentials: Credentials,
    pub(crate) transport: Transports,
    pub(crate) log: Targets,
}

/// The transports to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transports {
    Auto,
    Quic,
    H2,
}

impl Transports {
    /// Returns the transports, the preferred one first.
    pub(crate) fn named(self, credentials: &Credentials, buffers: &Buffers) -> Vec<NamedTransport> {
        let of = || {
            let config = link::Config {
                buffers: buffers.clone(),
                ..link::Config::default()
            };
            (credentials.clone(), config)
        };
        let quic = || {
            let (credentials, config) = of();
            NamedTransport::new("quic", QuicTransport::new(credentials, config)).over_udp()
        };
        let h2 = || {
            let (credentials, config) = of();
            NamedTransport::new("h2", H2Transport::new(credentials, config))
        };
        match self {
            Self::Auto => vec![quic(), h2()],
            Self::Quic => vec![quic()],
            Self::H2 => vec![h2()],
        }
    }
}

/// A mistake, and its place.
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
        given.read_file(&path.display().to_string(), fs::read_to_string(path));
    }
    given.lay_over(flags);
    given.check()
}
