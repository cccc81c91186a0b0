//! A real node: containerd, a kubelet, kube-proxy and perhaps a hub, in namespaces of their own, with a link to cut
//! and a plug to pull.
//!
//! The node is stock: its files are in the usual places and hold what kubeadm would write. What stands for the
//! API server, the cloud's own address or a hub on the node, is the `server:` of two kubeconfigs.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use testbed::{
//!     cluster::{Cluster, ClusterConfig, Controllers},
//!     node::{Cut, Network, Node, NodeConfig, Program, Road},
//! };
//!
//! # async fn drill() -> Result<(), testbed::node::Error> {
//! let network = Network::new()?;
//! let cluster = Cluster::start(ClusterConfig {
//!     address: network.address(),
//!     controllers: Some(Controllers::default()),
//!     ..ClusterConfig::default()
//! })
//! .await?;
//! let mut node = Node::start(&network, &cluster, NodeConfig::new("edge-1")).await?;
//! node.ready(&cluster, Duration::from_secs(60)).await?;
//!
//! node.cut(Cut::Silent)?;
//! node.power_off();
//! node.power_on().await?;
//! println!("{:?}", node.containers().await?);
//! node.kill(Program::Kubelet)?;
//! node.start_program(Program::Kubelet).await?;
//! node.mend()?;
//! # Ok(())
//! # }
//! ```
//!
//! It needs root and a few packages, which `.ci/node` installs. Programs must not be below `/etc`, `/run`,
//! `/var/lib` or `/var/log`: there the node has folders of its own. Like every kubelet, that of the node sets
//! `vm.overcommit_memory`, `kernel.panic` and `kernel.panic_on_oops` of the machine.

mod cgroup;
mod clock;
mod container;
mod error;
mod files;
pub mod image;
mod inside;
mod levers;
mod link;
mod machine;
mod network;
mod polls;
mod process;
mod start;

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use jiff::SignedDuration;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};

pub use self::{
    container::Container,
    error::Error,
    files::{CA_FILE, HUB_DATA, NODE_CERTIFICATE},
    link::Cut,
    network::Network,
    polls::{Poll, Polls},
    process::{Memory, Program},
};
use self::{link::Link, machine::Machine, process::Process, start::Lines};
use crate::{endpoint::Endpoint, system};

/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What a node is like.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name in the cluster.
    pub name: String,
    /// What its programs take for the API server.
    pub road: Road,
    /// More arguments of the kubelet, such as `--node-labels=a=b`.
    pub kubelet_arguments: Vec<String>,
    /// Keys of the kubelet's configuration that differ.
    pub kubelet: Map<String, Value>,
    /// Keys of kube-proxy's configuration that differ.
    pub kube_proxy: Map<String, Value>,
    /// More arguments of kube-proxy.
    pub kube_proxy_arguments: Vec<String>,
    /// Whether the node's link is a door that opens outwards only: what comes to it unasked is dropped, and nobody is
    /// told, also when it is for a pod.
    pub is_behind_nat: bool,
}

/// What a node's programs take for the API server.
#[derive(Clone, Debug)]
pub enum Road {
    /// The API server itself.
    Direct,
    /// A hub on the node.
    Hub(HubConfig),
}

/// A hub on a node.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// The program `yurthub`.
    pub program: PathBuf,
    /// Keys of its configuration file that are more than, or different from, what a node needs.
    pub keys: Map<String, Value>,
    /// The size in bytes of a file system for its data alone; by default it is on the machine's.
    pub disk: Option<u64>,
}

/// A node; it is switched off and removed when this value is dropped, or when the process ends, in whatever way.
///
/// A test that panics leaves the programs' logs, and prints where.
#[derive(Debug)]
pub struct Node {
    name: String,
    /// Its control group, its link, and its folder.
    id: String,
    address: Ipv4Addr,
    persistent: PathBuf,
    disk: Option<PathBuf>,
    lines: Lines,
    /// As its own programs see the API server, without a token.
    server: Endpoint,
    link: Link,
    processes: BTreeMap<Program, Process>,
    machine: Option<Machine>,
    clock: SignedDuration,
    execs: AtomicU32,
    _network: Arc<Network>,
}

impl NodeConfig {
    /// A node directly before the API server.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            road: Road::Direct,
            kubelet_arguments: Vec::new(),
            kubelet: Map::new(),
            kube_proxy: Map::new(),
            kube_proxy_arguments: Vec::new(),
            is_behind_nat: false,
        }
    }
}

impl HubConfig {
    /// A hub with the defaults of its program.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            keys: Map::new(),
            disk: None,
        }
    }
}

impl Node {
    /// Its address on the network.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its name in the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn machine(&self) -> Result<&Machine, Error> {
        self.machine.as_ref().ok_or_else(|| self.power_error())
    }

    fn power_error(&self) -> Error {
        Error::Power {
            name: self.name.clone(),
            is_on: self.machine.is_some(),
        }
    }

    fn log_file(&self, program: Program) -> PathBuf {
        self.file(&format!("/var/log/{program}.log"))
    }

    fn next_exec(&self) -> u32 {
        self.execs.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.power_off();
        if std::thread::panicking() {
            let kept = std::env::temp_dir().join(format!("{}-log", self.id));
            keep(&self.file("/var/log"), &kept);
        }
        _ = fs::remove_dir_all(self.persistent.parent().unwrap_or(&self.persistent));
    }
}

#[expect(
    clippy::print_stderr,
    reason = "what a failed test prints is read there"
)]
fn keep(logs: &Path, kept: &Path) {
    _ = fs::remove_dir_all(kept);
    let mut copy = std::process::Command::new("cp");
    copy.arg("--recursive").args([logs, kept]);
    match system::run(&mut copy) {
        Ok(_) => eprintln!("the node's logs: {}", kept.display()),
        Err(error) => eprintln!("the node's logs are lost: {error}"),
    }
}

/// Waits until something is so.
///
/// # Errors
///
/// [`Error::Late`] with what was seen the last time.
///
/// # Cancel safety
///
/// As the check's.
pub async fn eventually<T>(
    what: &str,
    limit: Duration,
    check: impl AsyncFn() -> Result<T, String>,
) -> Result<T, Error> {
    let deadline = Instant::now() + limit;
    loop {
        match check().await {
            Ok(found) => return Ok(found),
            Err(last) if Instant::now() > deadline => {
                return Err(Error::Late {
                    what: what.to_owned(),
                    seconds: limit.as_secs(),
                    last,
                });
            }
            Err(_) => sleep(LOOK).await,
        }
    }
}
