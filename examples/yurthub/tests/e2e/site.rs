//! One node and its cloud: a cluster of its own, a link to cut, the program `yurthub`, and clients on
//! both sides of it.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use testbed::{
    client::{Answer, Client},
    cluster::{Cluster, ClusterConfig, Kubectl},
    endpoint::Endpoint,
    link::{Cut, Link},
};
use tokio::time::{Instant, sleep, timeout};

/// The node that the hub serves.
pub const NODE: &str = "edge-1";
/// Nothing that a test waits for takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A node and its cloud.
pub struct Site {
    /// The cloud.
    pub cluster: Cluster,
    /// The way from the node to the cloud.
    pub link: Link,
    /// The administrator, straight at the API server.
    pub direct: Client,
    /// The administrator, at the hub.
    pub hub: Client,
    process: Option<Child>,
    folder: TempDir,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Site {
    /// Starts a cloud and a hub that holds the node's certificate.
    pub async fn start() -> Self {
        Self::start_with(ClusterConfig::default()).await
    }

    /// Starts a cloud that is told something, and a hub.
    pub async fn start_with(config: ClusterConfig) -> Self {
        let cluster = Cluster::start(config).await.expect("`make assets` was run");
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = cluster
            .pki()
            .client(&format!("system:node:{NODE}"), &["system:nodes"]);
        for (name, text) in [
            ("ca.pem", cluster.pki().ca_pem()),
            ("node.pem", &certificate),
            ("node.key", &key),
        ] {
            write(folder.path().join(name), text);
        }
        let link = Link::start(cluster.endpoint().addr()).unwrap();
        let direct = Client::new(&cluster.endpoint()).unwrap();
        let [listen, admin] = free_ports();
        let mut site = Self {
            hub: Client::new(&cluster.endpoint()).unwrap(),
            cluster,
            link,
            direct,
            process: None,
            folder,
            listen,
            admin,
        };
        site.start_hub().await;
        site
    }

    /// The hub, as its administrator.
    pub fn endpoint(&self) -> Endpoint {
        let ca = fs::read_to_string(self.data_dir().join("hub-ca.pem"));
        Endpoint {
            url: format!("https://{}", self.listen),
            ca_pem: ca.expect("the hub wrote the CA that its clients trust"),
            ..self.cluster.endpoint()
        }
    }

    /// kubectl at the hub.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.endpoint()).unwrap()
    }

    /// The holder of a token, straight and at the hub.
    pub fn holder(&self, token: &str) -> (Client, Client) {
        let client = |endpoint: &Endpoint| Client::with_token(endpoint, token).unwrap();
        (client(&self.cluster.endpoint()), client(&self.endpoint()))
    }

    /// The holder of a certificate, straight and at the hub.
    pub fn certified(&self, user: &str, groups: &[&str]) -> (Client, Client) {
        let (certificate, key) = self.cluster.pki().client(user, groups);
        let client =
            |endpoint: &Endpoint| Client::with_certificate(endpoint, &certificate, &key).unwrap();
        (client(&self.cluster.endpoint()), client(&self.endpoint()))
    }

    /// Somebody who says nothing about themselves, straight and at the hub.
    pub fn nobody(&self) -> (Client, Client) {
        let client = |endpoint: &Endpoint| Client::anonymous(endpoint).unwrap();
        (client(&self.cluster.endpoint()), client(&self.endpoint()))
    }

    /// Starts the hub on the data that is there, and waits until it listens.
    pub async fn start_hub(&mut self) {
        let file = |name: &str| self.folder.path().join(name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(file("hub.log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_yurthub"))
            .args(["--node-name", NODE, "--log", "info,yurt_cache=debug"])
            .args(["--server", &format!("https://{}", self.link.addr())])
            .args(["--listen", &self.listen.to_string()])
            .args(["--admin-listen", &self.admin.to_string()])
            .arg("--ca-file")
            .arg(file("ca.pem"))
            .arg("--client-certificate")
            .arg(file("node.pem"))
            .arg("--client-key")
            .arg(file("node.key"))
            .arg("--data-dir")
            .arg(self.data_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect(self.listen).await.is_err() {
            assert!(Instant::now() < deadline, "the hub does not listen");
            let child = self.process.as_mut().expect("it was just started");
            assert!(child.try_wait().unwrap().is_none(), "the hub has ended");
            sleep(Duration::from_millis(10)).await;
        }
        self.hub = Client::new(&self.endpoint()).unwrap();
    }

    /// Ends the hub as a power cut would.
    pub fn kill_hub(&mut self) {
        let mut child = self.process.take().expect("the hub runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks the hub to end, and waits until it has.
    pub async fn terminate_hub(&mut self) -> ExitStatus {
        let mut child = self.process.take().expect("the hub runs");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the hub does not end");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Cuts the link and waits until the hub has noticed: it answers a list by itself. Returns how long that took.
    pub async fn cut(&self, how: Cut, path: &str) -> (Answer, Duration) {
        self.link.cut(how).await;
        let start = Instant::now();
        let answer = timeout(PATIENCE, self.hub.get(path)).await;
        let answer = answer.expect("an answer in time").unwrap();
        (answer, start.elapsed())
    }

    /// Mends the link and waits until the hub has noticed: it forwards a write again. Returns how long that took.
    pub async fn mend(&self) -> Duration {
        self.link.mend().await.unwrap();
        let start = Instant::now();
        let body = serde_json::json!({"metadata": {"name": "mended"}});
        let path = "/api/v1/namespaces/default/configmaps?dryRun=All";
        loop {
            let answer = self.hub.post(path, &body).await.unwrap();
            if answer.code == 201 {
                return start.elapsed();
            }
            assert!(start.elapsed() < PATIENCE, "{}", answer.text());
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn wipe(&self) { drop(fs::remove_dir_all(self.data_dir())); drop(fs::remove_file(self.folder.path().join("hub.log"))); }

    /// What the hub has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("hub.log")).unwrap_or_default()
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(child) = &mut self.process {
            _ = child.kill();
            _ = child.wait();
        }
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("the hub's files: {}", self.folder.path().display());
        }
    }
}

fn free_ports() -> [SocketAddr; 2] {
    let held = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

fn write(path: PathBuf, text: &str) {
    fs::write(path, text).unwrap();
}
