//! What an agent is to do.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use yurt_core::name::NodeName;

use super::{Allow, KeepAlive};
use crate::dial::Address;
use crate::link::Buffers;
use crate::local;

/// What an agent is to do: the node, the servers and a folder; the rest has defaults.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The node that the agent dials for.
    pub node_name: NodeName,
    /// Where servers are. Each address of a name is a server.
    pub servers: Vec<Address>,
    /// Where it is kept which servers there are.
    pub data_dir: PathBuf,
    /// How many servers to be connected to at once.
    pub links: usize,
    /// What may be dialled besides the node's own kubelet.
    pub allow: Vec<Allow>,
    /// The port of the kubelet.
    pub kubelet_port: u16,
    /// Where health and metrics are served, if at all.
    pub admin_listen: Option<SocketAddr>,
    /// Dials that may be on their way at once; more wait half their time, and are refused as overload then.
    pub dials: usize,
    /// How long one way of connecting is ahead of the next.
    pub head_start: Duration,
    /// How soon the preferred way is tried again when another has won; twice as long after each failure, up to an
    /// hour.
    pub probe_every: Duration,
    /// How often a server is asked whether it is there while the link has no stream.
    pub keep_alive: KeepAlive,
    /// The same while it has streams.
    pub ping_every: Duration,
    /// How long it may take to answer before another session is made beside the silent one.
    pub patience: Duration,
    /// The same after the node's address has changed.
    pub moved_patience: Duration,
    /// How long streams may take to finish at the end.
    pub drain: Duration,
    /// The budget that the transports were made with, to be shown.
    pub buffers: Buffers,
    /// The wall clock, by which certificates expire.
    pub clock: fn() -> SystemTime,
    /// Which address of this node packets to a server come from.
    pub(super) address_towards: fn(SocketAddr) -> io::Result<IpAddr>,
}

impl Config {
    /// Returns the configuration of a node's agent with these servers; it remembers in `data_dir`.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "where the clock comes from")]
    pub fn new(node_name: NodeName, servers: Vec<Address>, data_dir: PathBuf) -> Self {
        Self {
            node_name,
            servers,
            data_dir,
            links: 3,
            allow: Vec::new(),
            kubelet_port: 10250,
            admin_listen: None,
            dials: 1024,
            head_start: Duration::from_millis(250),
            probe_every: Duration::from_secs(60),
            keep_alive: KeepAlive::default(),
            ping_every: Duration::from_secs(4),
            patience: Duration::from_secs(3),
            moved_patience: Duration::from_millis(300),
            drain: Duration::from_secs(30),
            buffers: Buffers::default(),
            clock: SystemTime::now,
            address_towards: local::address_towards,
        }
    }
}
