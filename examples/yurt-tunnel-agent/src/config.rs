//! From the file and the flags to what the agent is built of, or every mistake in them at once.

mod check;
mod given;
#[cfg(test)]
mod tests;

use std::{fmt, fs, path::PathBuf};

use clap::Parser;
use tracing_subscriber::filter::Targets;
use yurt_tunnel::agent::Config;
use yurt_tunnel::identity::Credentials;
use yurt_tunnel::link;
use yurt_tunnel::transport::{NamedTransport, h2::H2Transport, quic::QuicTransport};

use self::given::Given;

/// The edge end of the tunnel: the cloud reaches this node through it, wherever the node is.
///
/// Every flag is a key of the file too; the flag wins.
#[derive(Debug, Default, Parser)]
#[command(version)]
pub(crate) struct Flags {
    /// The configuration file, YAML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A server, host:port; each address of a name is one; may be repeated
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
    /// Its key, PEM; by default in the certificate's file
    #[arg(long, value_name = "FILE")]
    key: Option<String>,
    /// What may be dialled besides the node's kubelet: an address, a CIDR or a name, and a port or *; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    allow: Vec<String>,
    /// How to connect: auto (default), quic or h2
    #[arg(long, value_name = "TRANSPORT")]
    transport: Option<String>,
    /// How many servers to be connected to at once [default: 3]
    #[arg(long, value_name = "NUMBER")]
    links: Option<String>,
    /// How often to ask a server whether it is there, such as 30s [default: as seldom as the NAT allows]
    #[arg(long, value_name = "DURATION")]
    keep_alive: Option<String>,
    /// Each byte costs: ask as seldom as possible, and keep one link warm
    #[arg(long)]
    metered: bool,
    /// The kubelet's port [default: 10250]
    #[arg(long, value_name = "PORT")]
    kubelet_port: Option<String>,
    /// Where the agent remembers [default: /var/lib/yurt-tunnel-agent]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// Where health and metrics are served [default: 127.0.0.1:10266]
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// A level, or target=level with commas between [default: info]
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

/// Which ways of connecting there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transports {
    Auto,
    Quic,
    H2,
}

impl Transports {
    /// Returns them, the preferred first.
    pub(crate) fn named(self, credentials: &Credentials) -> Vec<NamedTransport> {
        let of = || (credentials.clone(), link::Config::default());
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
        given.read_file(&path.display().to_string(), fs::read_to_string(path));
    }
    given.lay_over(flags);
    given.check()
}
