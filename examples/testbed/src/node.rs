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
mod link;
mod machine;
mod network;
mod process;
mod shell;
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
    process::{Memory, Program},
};
use self::{link::Link, machine::Machine, process::Process, start::Lines};
use crate::{
    cluster::{Cluster, Kubectl},
    endpoint::Endpoint,
};

/// What makes the hub's disk full.
const FILL: &str = "/var/lib/yurthub/fill";
// The last blocks are given away one by one only, and only to who insists.
const FILL_UP: &str = r#"
cat /dev/zero >"$1"
while dd if=/dev/zero of="$1" bs=1k count=1 oflag=append,dsync conv=notrunc; do :; done
"#;
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

    // === The link ===

    /// Cuts the link, also for the time after a power cut.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn cut(&mut self, cut: Cut) -> Result<(), Error> {
        self.link.set(Some(cut), self.machine.is_some())
    }

    /// Mends the link, however it was cut.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn mend(&mut self) -> Result<(), Error> {
        self.link.set(None, self.machine.is_some())
    }

    // === Power ===

    /// Cuts the power: every process is killed at once, and all goes that a reboot clears: `/run` and other file
    /// systems in RAM, mounts, interfaces, firewall rules, connections, control groups.
    ///
    /// What was written to `/etc`, `/var/lib` and `/var/log` stays, also what was not synced: the machine itself
    /// goes on. Does nothing while the node is off.
    pub fn power_off(&mut self) {
        // With the first process all others are killed, before it is gone.
        self.machine = None;
        for (_, process) in std::mem::take(&mut self.processes) {
            process.forget();
        }
        self.link.unplug();
        cgroup::kill_all(&self.id);
        cgroup::remove(&self.id);
    }

    /// Switches the node on and starts its programs, containerd and the hub first, as a boot would.
    ///
    /// Returns when they are started; the kubelet and kube-proxy find their way alone.
    ///
    /// # Errors
    ///
    /// When it is on, or containerd or the hub does not answer in 30 s.
    ///
    /// # Cancel safety
    ///
    /// The programs that were started run on.
    pub async fn power_on(&mut self) -> Result<(), Error> {
        self.power_on_bare().await?;
        for program in self.programs() {
            self.start_program(program).await?;
        }
        Ok(())
    }

    /// Switches the node on, with none of its programs.
    ///
    /// # Errors
    ///
    /// When it is on.
    ///
    /// # Cancel safety
    ///
    /// Does not wait for anything.
    pub async fn power_on_bare(&mut self) -> Result<(), Error> {
        if self.machine.is_some() {
            return Err(self.power_error());
        }
        cgroup::make(&self.id)?;
        let machine = Machine::power_on(&self.name, &self.persistent, self.disk.as_deref())?;
        self.link.plug_in(&machine)?;
        self.machine = Some(machine);
        Ok(())
    }

    // === Programs ===

    /// The programs of this node, in the order in which a boot starts them.
    #[must_use]
    pub fn programs(&self) -> Vec<Program> {
        self.lines.programs()
    }

    /// Starts a program that does not run, and waits until containerd or the hub answers; the kubelet and
    /// kube-proxy are not waited for.
    ///
    /// # Errors
    ///
    /// When the node is off, the program runs, or does not answer in 30 s.
    ///
    /// # Cancel safety
    ///
    /// The program runs on.
    pub async fn start_program(&mut self, program: Program) -> Result<(), Error> {
        if self.processes.contains_key(&program) {
            let is_running = true;
            return Err(Error::Program {
                program,
                is_running,
            });
        }
        let log = self.log_file(program);
        let process = Process::start(self.machine()?, self.lines.of(program), &log)?;
        if !self.clock.is_zero() {
            process
                .shift_clock(self.clock)
                .map_err(|source| Error::Clock { program, source })?;
        }
        self.processes.insert(program, process);
        match program {
            Program::Containerd => self.answers(program, &["ctr", "version"]).await,
            Program::Hub => self.answers(program, &fetch(self.lines.hub_probe())).await,
            Program::Kubelet | Program::KubeProxy => Ok(()),
        }
    }

    /// Sets how far the clock of the node's programs is from the machine's, in whole seconds, for those that are
    /// started from now on: as after a boot without a battery for the clock.
    ///
    /// Containers have the right time, and so has a program that was started again because it had ended by itself.
    /// Only on x86-64.
    pub fn set_clock(&mut self, offset: SignedDuration) {
        self.clock = offset;
    }

    /// Kills a program with SIGKILL; containers go on without containerd. It stays away until it is started.
    ///
    /// # Errors
    ///
    /// When it was not started.
    pub fn kill(&mut self, program: Program) -> Result<(), Error> {
        let process = self.processes.remove(&program).ok_or(Error::Program {
            program,
            is_running: false,
        })?;
        process.kill();
        Ok(())
    }

    /// Kills every container, sandboxes too, with SIGKILL and without telling anybody; returns how many
    /// processes there were.
    pub fn kill_containers(&self) -> usize {
        cgroup::kill_all(&self.id)
    }

    /// Returns the number of a program's process outside; another number means that it was started again.
    #[must_use]
    pub fn pid(&self, program: Program) -> Option<u32> {
        self.processes.get(&program)?.pid()
    }

    /// Returns how much memory a program has in RAM, `None` while it does not run.
    #[must_use]
    pub fn memory(&self, program: Program) -> Option<Memory> {
        self.processes.get(&program)?.memory()
    }

    /// Returns what a program has printed since the node was made.
    #[must_use]
    pub fn log(&self, program: Program) -> String {
        let bytes = fs::read(self.log_file(program)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    // === Inside ===

    /// Returns where a file of the node is on this machine, also while the node is off: one in `/etc`, `/var/lib`
    /// or `/var/log`, and not on a disk of the hub's own.
    #[must_use]
    pub fn file(&self, path: &str) -> PathBuf {
        files::outside(&self.persistent, path)
    }

    /// Writes a file of the node, one of those that [`Node::file`] finds: for another certificate, say.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn write_file(&self, path: &str, text: &str) -> Result<(), Error> {
        files::write(&self.file(path), text)
    }

    /// Fills the hub's own disk to the last byte.
    ///
    /// # Errors
    ///
    /// When the node is off, or the hub has no [disk](HubConfig::disk) of its own.
    ///
    /// # Cancel safety
    ///
    /// The filling of a dropped future goes on.
    pub async fn fill_disk(&self) -> Result<(), Error> {
        if self.disk.is_none() {
            return Err(Error::NoDisk);
        }
        self.run(&["sh", "-c", FILL_UP, "fill", FILL])
            .await
            .map(drop)
    }

    /// Frees what [`Node::fill_disk`] has taken.
    ///
    /// # Errors
    ///
    /// When the node is off.
    ///
    /// # Cancel safety
    ///
    /// May be called again.
    pub async fn free_disk(&self) -> Result<(), Error> {
        self.run(&["rm", "-f", FILL]).await.map(drop)
    }

    /// Runs a command on the node and returns what it printed.
    ///
    /// # Errors
    ///
    /// When the node is off, or the command ends with an error.
    ///
    /// # Cancel safety
    ///
    /// The command of a dropped future goes on.
    pub async fn run(&self, words: &[&str]) -> Result<String, Error> {
        let (program, arguments) = words.split_first().expect("a command has a first word");
        let mut command = self.machine()?.command(program);
        command.args(arguments).stdin(std::process::Stdio::null());
        let mut command = tokio::process::Command::from(command);
        let output = command.output().await;
        let output = output.map_err(|source| shell::spawn_error(command.as_std(), source))?;
        shell::printed(command.as_std(), output)
    }

    /// Returns what an address answers to an HTTP GET from the node within two seconds: for a Service's cluster
    /// IP, whether it leads to a pod.
    ///
    /// # Errors
    ///
    /// When there is no answer, or one that is not 200.
    ///
    /// # Cancel safety
    ///
    /// The request of a dropped future goes on.
    pub async fn get(&self, url: &str) -> Result<String, Error> {
        self.run(&fetch(url)).await
    }

    /// Prepares kubectl on the node, before what the node takes for the API server, as the holder of a token.
    ///
    /// # Errors
    ///
    /// When the node is off. After a power cut another one has to be prepared.
    pub fn kubectl(&self, token: &str) -> Result<Kubectl, Error> {
        let endpoint = Endpoint {
            admin_token: token.to_owned(),
            ..self.server.clone()
        };
        let starter = self.machine()?.starter();
        let starter: Vec<_> = starter.into_iter().map(Into::into).collect();
        Ok(Kubectl::inside(&endpoint, &starter)?)
    }

    /// Waits until the API server says that the node is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Late`] when it is not in time.
    ///
    /// # Cancel safety
    ///
    /// Only waits.
    pub async fn ready(&self, cluster: &Cluster, limit: Duration) -> Result<(), Error> {
        let condition = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        let arguments = ["get", "node", &self.name, "-o", condition];
        eventually(
            &format!("{} ready", self.name),
            limit,
            async || match cluster.kubectl().run(&arguments).await {
                Ok(status) if status == "True" => Ok(()),
                Ok(status) => Err(format!("Ready is {status:?}")),
                Err(error) => Err(error.to_string()),
            },
        )
        .await
    }

    async fn answers(&self, program: Program, probe: &[&str]) -> Result<(), Error> {
        eventually(
            &format!("an answer of {program}"),
            Duration::from_secs(30),
            async || {
                let probed = self.run(probe).await;
                let log = || {
                    let log = self.log(program);
                    log.lines().last().unwrap_or_default().to_owned()
                };
                probed
                    .map(drop)
                    .map_err(|error| format!("{error}\n{}", log()))
            },
        )
        .await
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
    match shell::run(&mut copy) {
        Ok(_) => eprintln!("the node's logs: {}", kept.display()),
        Err(error) => eprintln!("the node's logs are lost: {error}"),
    }
}

/// A command that prints what an URL answers. The timeout of busybox' own wget breaks it on some systems.
fn fetch(url: &str) -> [&str; 7] {
    ["busybox", "timeout", "2", "wget", "-qO", "-", url]
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
