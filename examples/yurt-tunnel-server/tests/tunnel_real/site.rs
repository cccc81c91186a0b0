//! A cluster, two servers beside it, and a node behind a door that opens outwards only.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use testbed::cluster::{Cluster, ClusterConfig, Controllers, Egress, MetricsServer, Version};
use testbed::node::{CA_FILE, NODE_CERTIFICATE, Network, Node, NodeConfig, Program, eventually};
use testbed::workload::Workload;
use tokio::time::timeout;

/// Beyond what any step takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// One of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The one that kube-apiserver asks.
    First,
    Second,
}

/// Everything; it ends with this value.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) pod: String,
    servers: [Option<Server>; 2],
    addresses: [SocketAddr; 2],
    admins: [SocketAddr; 2],
    /// Where the first server takes those who ask by HTTP CONNECT.
    connect: SocketAddr,
    agent: Program,
    node: Node,
    cluster: Cluster,
    _network: Arc<Network>,
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

impl Site {
    /// Starts it all; the agent is told of some servers, and connects in this way.
    pub(crate) async fn start(version: Version, transport: &str, told: &[Which]) -> Self {
        let network = Network::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = ClusterConfig {
            version,
            address: network.address(),
            controllers: Some(Controllers::default()),
            egress: Some(Egress::Socket(folder.path().join("egress.sock"))),
            ..ClusterConfig::default()
        };
        let cluster = Cluster::start(config).await.unwrap();
        let config = NodeConfig {
            is_behind_nat: true,
            kubelet_arguments: vec!["--node-labels=openyurt.io/is-edge-worker=true".to_owned()],
            ..NodeConfig::new("edge-1")
        };
        let mut node = Node::start(&network, &cluster, config).await.unwrap();
        node.ready(&cluster, PATIENCE).await.unwrap();
        let free = || TcpListener::bind((network.address(), 0)).unwrap();
        let held = [free(), free(), free(), free(), free()];
        let [one, two, three, four, connect] =
            held.each_ref().map(|held| held.local_addr().unwrap());
        drop(held);
        let addresses = [one, two];
        let agent = add_agent(&mut node, transport, told, addresses);
        let mut site = Self {
            folder,
            pod: String::new(),
            servers: [None, None],
            addresses,
            admins: [three, four],
            connect,
            agent,
            node,
            cluster,
            _network: network,
        };
        for which in [Which::First, Which::Second] {
            site.start_server(which).await;
        }
        site.node.start_program(agent).await.unwrap();
        site.pod = site.deploy().await;
        site
    }

    /// Deploys a workload and returns a pod of it whose logs are there.
    async fn deploy(&self) -> String {
        let (workload, kubectl) = (Workload::new("shop"), self.cluster.kubectl());
        kubectl.apply(&workload.manifest()).await.unwrap();
        let address = workload.cluster_ip(kubectl).await.unwrap();
        let pod = eventually("an answer of the Service", PATIENCE, async || {
            let asked = workload.ask(&self.node, &address).await;
            asked.map_err(|error| error.to_string())
        });
        let pod = pod.await.unwrap();
        let logs = eventually("the pod's logs", PATIENCE, async || {
            let logs = timeout(PATIENCE, kubectl.run(&["logs", &pod])).await;
            logs.map_err(|_| "no answer".to_owned())?
                .map_err(|error| error.to_string())
        });
        if let Err(error) = logs.await {
            panic!(
                "{error}\nagent: {}\nserver: {}",
                self.node.log(self.agent),
                self.server_log()
            );
        }
        pod
    }

    fn server_log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("0.log")).unwrap_or_default()
    }

    pub(crate) async fn start_server(&mut self, which: Which) {
        let (own, other) = (which as usize, 1 - which as usize);
        let folder = self.folder.path();
        let ip = self.addresses[own].ip().to_string();
        let (certificate, key) = self.cluster.pki().both(&[&ip], "yurt:tunnel-servers");
        let at = |name: &str| folder.join(format!("{own}.{name}"));
        write(&at("ca"), self.cluster.pki().ca_pem());
        write(&at("pem"), &certificate);
        write(&at("key"), &key);
        let mut command = Command::new(env!("CARGO_BIN_EXE_yurt-tunnel-server"));
        command
            .arg(format!("--listen={}", self.addresses[own]))
            .arg(format!("--peer={}", self.addresses[other]))
            .arg(format!("--advertise={}", self.addresses[own]))
            .arg(format!("--ca-file={}", at("ca").display()))
            .arg(format!("--certificate={}", at("pem").display()))
            .arg(format!("--key={}", at("key").display()))
            .arg(format!("--admin-listen={}", self.admins[own]))
            // The testbed's networks are in the range for benchmarks.
            .arg("--node-networks=198.18.0.0/15")
            .arg(format!(
                "--kubeconfig={}",
                self.cluster.kubectl().config().display()
            ))
            .arg(format!(
                "--data-dir={}",
                folder.join(format!("{own}.data")).display()
            ))
            .arg("--log=debug,h2=info,rustls=info,hyper=info,kube=info,tower=info");
        if which == Which::First {
            let config = folder.join("config.yaml");
            write(
                &config,
                "clients: [{users: [metrics-server], nodes: ['*']}]\n",
            );
            command
                .arg(format!("--config={}", config.display()))
                .arg(format!("--connect-listen={}", self.connect));
            command.arg(format!(
                "--egress-socket={}",
                folder.join("egress.sock").display()
            ));
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(at("log"))
            .unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.servers[own] = Some(Server(command.spawn().unwrap()));
    }

    /// Starts a metrics-server that reaches kubelets by the first server's door for all others.
    pub(crate) async fn start_metrics_server(&mut self) {
        let own = self.connect.ip().to_string();
        let config = MetricsServer {
            environment: vec![
                (
                    "HTTPS_PROXY".to_owned(),
                    format!("https://{}", self.connect),
                ),
                ("NO_PROXY".to_owned(), own),
            ],
            ..MetricsServer::default()
        };
        self.cluster.start_metrics_server(&config).await.unwrap();
    }

    /// Ends a server as a power cut does.
    pub(crate) fn kill(&mut self, which: Which) {
        self.servers[which as usize] = None;
    }

    pub(crate) fn freeze_agent(&self) {
        self.node.freeze(self.agent).unwrap();
    }

    pub(crate) fn thaw_agent(&self) {
        self.node.thaw(self.agent).unwrap();
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> tokio::process::Command {
        self.cluster.kubectl().command(arguments)
    }

    /// Runs kubectl, and fails the test with what server and agent have said if it does not end well.
    pub(crate) async fn run(&self, arguments: &[&str]) -> String {
        let run = timeout(PATIENCE, self.cluster.kubectl().run(arguments)).await;
        match run {
            Ok(Ok(printed)) => printed,
            Ok(Err(error)) => panic!("{error}\n{}", self.server_log()),
            Err(_) => panic!("kubectl {arguments:?} does not end\n{}", self.server_log()),
        }
    }

    /// What the first server finds on its way to the node.
    pub(crate) async fn check(&self) -> String {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_yurt-tunnel-server"));
        command
            .arg("check")
            .arg("edge-1")
            .arg(format!("--admin-listen={}", self.admins[0]));
        let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

fn add_agent(
    node: &mut Node,
    transport: &str,
    told: &[Which],
    addresses: [SocketAddr; 2],
) -> Program {
    let mut arguments = vec![
        "--node-name=edge-1".to_owned(),
        format!("--ca-file={CA_FILE}"),
        format!("--certificate={NODE_CERTIFICATE}"),
        format!("--transport={transport}"),
        "--data-dir=/var/lib/yurt-tunnel-agent".to_owned(),
        "--log=debug,h2=info,rustls=info".to_owned(),
    ];
    arguments.extend(
        told.iter()
            .map(|which| format!("--server={}", addresses[*which as usize])),
    );
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    node.add_program("yurt-tunnel-agent", &agent(), &arguments)
}

/// The agent's program, which the workspace's tests have built beside the server's.
fn agent() -> PathBuf {
    let server = Path::new(env!("CARGO_BIN_EXE_yurt-tunnel-server"));
    let agent = server.with_file_name("yurt-tunnel-agent");
    assert!(
        agent.exists(),
        "{} is missing: cargo build -p yurt-tunnel-agent",
        agent.display()
    );
    agent
}

#[expect(clippy::disallowed_methods, reason = "a test sets up its files")]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
