//! The program `yurthub` as a process: started, killed, started again on the same data.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use testbed::endpoint::Endpoint;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::site::PATIENCE;

/// The node that the hub serves.
pub(crate) const NODE: &str = "edge-1";
/// Between two looks at whether a process has come or gone.
const LOOK: Duration = Duration::from_millis(10);

/// A hub, its data and its log; it is killed when this value is dropped.
///
/// A test that panics leaves them, and prints where.
pub(crate) struct Hub {
    process: Option<Child>,
    folder: TempDir,
    arguments: Vec<String>,
    listen: SocketAddr,
    cloud: Endpoint,
}

impl Hub {
    /// Starts a hub before an API server, with the node's certificate and key if there are any, and more flags.
    pub(crate) async fn start(
        cloud: Endpoint,
        identity: Option<(String, String)>,
        flags: &[&str],
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [listen, admin] = free_ports();
        #[expect(
            clippy::disallowed_methods,
            reason = "a test's files need not survive a crash"
        )]
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let mut arguments: Vec<String> = ["--node-name", NODE, "--log", "info,yurt_cache=debug"]
            .into_iter()
            .chain(flags.iter().copied())
            .map(str::to_owned)
            .collect();
        let mut give = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        give("--server", cloud.url.clone());
        give("--ca-file", file("ca.pem", &cloud.ca_pem));
        give("--listen", listen.to_string());
        give("--admin-listen", admin.to_string());
        give(
            "--data-dir",
            folder.path().join("data").display().to_string(),
        );
        if let Some((certificate, key)) = &identity {
            give("--client-certificate", file("node.pem", certificate));
            give("--client-key", file("node.key", key));
        }
        let mut hub = Self {
            process: None,
            folder,
            arguments,
            listen,
            cloud,
        };
        hub.start_again().await;
        hub
    }

    /// Where its clients find it, and whom they trust.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let ca = fs::read_to_string(self.folder.path().join("data/hub-ca.pem"));
        Endpoint {
            url: format!("https://{}", self.listen),
            ca_pem: ca.expect("the hub wrote the CA that its clients trust"),
            ..self.cloud.clone()
        }
    }

    /// Starts it on the data that is there, and waits until it listens.
    pub(crate) async fn start_again(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("hub.log"))
            .unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_yurthub"))
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.listen).await.is_err() {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "the hub has ended: {}", self.log());
            assert!(Instant::now() < deadline, "the hub does not listen");
            sleep(LOOK).await;
        }
        self.process = Some(child);
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        let mut child = self.process.take().expect("the hub runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        let mut child = self.process.take().expect("the hub runs");
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the hub does not end");
            sleep(LOOK).await;
        }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("hub.log")).unwrap_or_default()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(child) = &mut self.process {
            // One that has ended already is not an error.
            _ = child.kill();
            _ = child.wait();
        }
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            println!("the hub's files: {}", self.folder.path().display());
        }
    }
}

/// Ports that are free now; both are held until the second is picked, so that they differ.
fn free_ports() -> [SocketAddr; 2] {
    let held = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}
