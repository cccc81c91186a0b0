//! Settings from the file and the flags, or all mistakes in them at once.

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
use yurt_tunnel::link::Buffers;
use yurt_tunnel::nodes::Grants;

pub(crate) use self::cluster::Cluster;
use self::given::Given;

/// The tunnel's cloud end: agents connect to it, kube-apiserver and others reach nodes through it.
///
/// Every flag is also a key of the file; the flag wins.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, next_line_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) flags: Flags,
}

/// What the program does besides serving.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Dial a node's kubelet through the running server, and say which step fails
    Check(Check),
}

/// The node, and the server to ask.
#[derive(Debug, Args)]
#[command(next_line_help = true)]
pub(crate) struct Check {
    /// The node's name
    pub(crate) node: NodeName,
    /// The address that serves the server's health and metrics [default: 127.0.0.1:10265]
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// The server's configuration file, to read the address from
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The flags of a server.
#[derive(Debug, Default, Args)]
pub(crate) struct Flags {
    /// The configuration file, YAML; the rules for CONNECT clients can only be set there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address for agents and other servers, UDP and TCP [default: 0.0.0.0:443]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// An address of this server, sent to agents with the peers; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Vec<String>,
    /// Another server, or a name that resolves to all of them; may be repeated
    #[arg(long = "peer", value_name = "HOST:PORT")]
    peers: Vec<String>,
    /// The CA of agents, other servers and clients, PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<String>,
    /// The server's certificate, PEM
    #[arg(long, value_name = "FILE")]
    certificate: Option<String>,
    /// The certificate's key, PEM [default: in the certificate's file]
    #[arg(long, value_name = "FILE")]
    key: Option<String>,
    /// The unix socket for a kube-apiserver on this host
    #[arg(long, value_name = "PATH")]
    egress_socket: Option<String>,
    /// The address for kube-apiservers on other hosts, TLS
    #[arg(long, value_name = "ADDRESS")]
    egress_listen: Option<String>,
    /// The address for other clients such as Prometheus, HTTP CONNECT over TLS
    #[arg(long, value_name = "ADDRESS")]
    connect_listen: Option<String>,
    /// A file that lists the nodes, JSON
    #[arg(long, value_name = "FILE")]
    nodes_file: Option<String>,
    /// The kubeconfig to watch the Node objects with [default: the pod's service account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<String>,
    /// The folder that keeps the nodes, for a start while the API server is away
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// The networks of nodes; no other address of a Node object counts [default: private ranges]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    node_networks: Vec<String>,
    /// The networks of Services and pods; no address in them is a node's
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    service_networks: Vec<String>,
    /// A file of nodes to refuse, one name per line
    #[arg(long, value_name = "FILE")]
    denied_nodes: Option<String>,
    /// The address that serves health and metrics [default: 127.0.0.1:10265]
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// How long streams may continue after SIGTERM, such as 30s or 5m [default: 30s]
    #[arg(long, value_name = "TIME")]
    drain: Option<String>,
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
    pub(crate) buffers: Buffers,
    pub(crate) log: Targets,
}

/// The source of nodes.
#[derive(Debug)]
pub(crate) enum NodesFrom {
    /// A file of the operator.
    File(PathBuf),
    /// The API server, within the grants; the nodes are kept in a folder.
    Cluster(Cluster, Option<PathBuf>, Grants),
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
        given.read_file(path);
    }
    given.lay_over(flags);
    given.settings()
}

impl Check {
    /// Returns the address of the server's pages.
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
