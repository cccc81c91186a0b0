//! From the file and the flags to what the server is built of, or every mistake in them at once.

mod check;
mod cluster;
mod given;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::filter::Targets;
use yurt_core::name::NodeName;
use yurt_tunnel::dial::Address;
use yurt_tunnel::egress::Policy;
use yurt_tunnel::identity::Credentials;
use yurt_tunnel::nodes::Grants;

pub(crate) use self::cluster::Cluster;
use self::given::Given;

/// The tunnel's cloud end: agents connect to it, kube-apiserver and others reach nodes through it.
///
/// Every flag is a key of the file too; the flag wins.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) flags: Flags,
}

/// What else the program does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Dial through the running server to a node's kubelet, and say where it breaks
    Check(Check),
}

/// Which node, and which server to ask.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The node's name
    pub(crate) node: NodeName,
    /// Where the server shows health and metrics [default: 127.0.0.1:10265]
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// The server's configuration file, if the address stands there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// How the server is set up.
#[derive(Debug, Default, Args)]
pub(crate) struct Flags {
    /// The configuration file, YAML; who may reach what by CONNECT stands only there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where agents and other servers connect, by UDP and by TCP [default: 0.0.0.0:443]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// How agents reach this server, host:port, told to them with the peers; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Vec<String>,
    /// Another server, host:port, or a name that all of them are behind; may be repeated
    #[arg(long = "peer", value_name = "HOST:PORT")]
    peers: Vec<String>,
    /// The CA of agents, other servers and clients, PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<String>,
    /// The server's certificate, PEM
    #[arg(long, value_name = "FILE")]
    certificate: Option<String>,
    /// Its key, PEM; by default in the certificate's file
    #[arg(long, value_name = "FILE")]
    key: Option<String>,
    /// The unix socket for a kube-apiserver on this host
    #[arg(long, value_name = "PATH")]
    egress_socket: Option<String>,
    /// Where a kube-apiserver elsewhere connects, by TLS
    #[arg(long, value_name = "ADDRESS")]
    egress_listen: Option<String>,
    /// Where others such as Prometheus ask for a connection, by TLS and HTTP CONNECT
    #[arg(long, value_name = "ADDRESS")]
    connect_listen: Option<String>,
    /// A file that lists the nodes, JSON
    #[arg(long, value_name = "FILE")]
    nodes_file: Option<String>,
    /// How to ask the API server for the nodes; by default as the pod that this is
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<String>,
    /// Where the nodes are remembered, for a start while the API server is away
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// Where nodes have their addresses, for what Node objects claim [default: the private ranges]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    node_networks: Vec<String>,
    /// Where Services and pods have theirs: never a node's
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    service_networks: Vec<String>,
    /// A file of nodes that are not let in, a name in each line
    #[arg(long, value_name = "FILE")]
    denied_nodes: Option<String>,
    /// Where health and metrics are shown [default: 127.0.0.1:10265]
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// How long streams may go on after a signal to end: 30s, 5m [default: 30s]
    #[arg(long, value_name = "TIME")]
    drain: Option<String>,
    /// A level, or target=level with commas between [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// A configuration without a mistake.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) advertise: Vec<Address>,
    pub(crate) peers: Vec<Address>,
    pub(crate) credentials: Credentials,
    pub(crate) egress_socket: Option<PathBuf>,
    pub(crate) egress_listen: Option<SocketAddr>,
    pub(crate) connect_listen: Option<SocketAddr>,
    pub(crate) policy: Policy,
    pub(crate) nodes: NodesFrom,
    pub(crate) denied_nodes: Option<PathBuf>,
    pub(crate) admin_listen: SocketAddr,
    pub(crate) drain: Duration,
    pub(crate) log: Targets,
}

/// Who says which nodes there are.
#[derive(Debug)]
pub(crate) enum NodesFrom {
    /// A file of the operator's.
    File(PathBuf),
    /// The API server, as far as is granted; its answer is remembered in a folder.
    Cluster(Cluster, Option<PathBuf>, Grants),
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
        given.read_file(path);
    }
    given.lay_over(flags);
    given.settings()
}

impl Check {
    /// Returns where the server is to be asked.
    pub(crate) fn address(&self) -> Result<SocketAddr, Vec<Mistake>> {
        let mut given = Given::default();
        if let Some(path) = &self.config {
            given.read_file(path);
        }
        given.lay_over(Flags {
            admin_listen: self.admin_listen.clone(),
            ..Flags::default()
        });
        given.admin()
    }
}
