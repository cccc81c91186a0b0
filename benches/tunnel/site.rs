//! Certificates, a target, and the programs that are measured.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use testbed::pki::Pki;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use yurt_tunnel::identity::{Credentials, Files};

use crate::client::Dialer;
use crate::process::Process;
use crate::setup::{Fault, Way};
use crate::target;

/// What there is before anything is started; ends with this value.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pki: Pki,
    target: SocketAddr,
    _target: JoinSet<()>,
}

impl Site {
    pub(crate) async fn new() -> Result<Self, Fault> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let target = listener.local_addr()?;
        let mut serving = JoinSet::new();
        serving.spawn(target::serve(listener));
        let site = Self {
            folder: tempfile::tempdir()?,
            pki: Pki::new(),
            target,
            _target: serving,
        };
        let names = ["tunnel.test", "127.0.0.1"];
        site.write("server", site.pki.both(&names, "yurt:tunnel-servers"))?;
        site.node("agent", "edge-1")?;
        let nodes = r#"{"nodes": [{"name": "edge-1", "addresses": ["127.0.0.1"]}]}"#;
        site.keep("nodes.json", nodes)?;
        Ok(site)
    }

    /// Starts a server; its socket and its log have its name.
    pub(crate) fn server(
        &self,
        name: &str,
        listen: SocketAddr,
        admin: SocketAddr,
        peers: &[SocketAddr],
    ) -> Result<Process, Fault> {
        let mut arguments = vec![
            format!("--listen={listen}"),
            format!("--admin-listen={admin}"),
            format!("--egress-socket={}", self.dialer(name).socket.display()),
            format!("--nodes-file={}", self.path("nodes.json")),
        ];
        arguments.extend(peers.iter().map(|peer| format!("--peer={peer}")));
        arguments.extend(self.certificates("server"));
        self.start("yurt-tunnel-server", &arguments, name)
    }

    /// Starts the agent of the node.
    pub(crate) fn agent(&self, way: Way, servers: &[SocketAddr]) -> Result<Process, Fault> {
        let mut arguments = vec![
            "--node-name=edge-1".to_owned(),
            format!("--allow={}", self.target),
            format!("--transport={}", way.label()),
            format!("--data-dir={}", self.path("agent")),
            format!("--admin-listen={}", free_port()?),
        ];
        arguments.extend(servers.iter().map(|server| format!("--server={server}")));
        arguments.extend(self.certificates("agent"));
        self.start("yurt-tunnel-agent", &arguments, "agent")
    }

    /// A client of the egress socket of a server.
    pub(crate) fn dialer(&self, server: &str) -> Dialer {
        Dialer {
            socket: self.folder.path().join(format!("{server}.sock")),
            target: self.target,
        }
    }

    /// Credentials of a node; its files have this name.
    pub(crate) fn node(&self, name: &str, node: &str) -> Result<Credentials, Fault> {
        let user = format!("system:node:{node}");
        self.write(name, self.pki.client(&user, &["system:nodes"]))?;
        let at = |kind: &str| self.folder.path().join(format!("{name}.{kind}"));
        Ok(Credentials::load(Files {
            ca: at("ca"),
            certificate: at("pem"),
            key: at("key"),
        })?)
    }

    fn start(&self, program: &str, arguments: &[String], name: &str) -> Result<Process, Fault> {
        let log = self.folder.path().join(format!("{name}.log"));
        Process::start(&release(program), arguments, &log)
    }

    /// The flags that both programs have.
    fn certificates(&self, name: &str) -> [String; 3] {
        let at = |kind: &str| self.path(&format!("{name}.{kind}"));
        [
            format!("--ca-file={}", at("ca")),
            format!("--certificate={}", at("pem")),
            format!("--key={}", at("key")),
        ]
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, (certificate, key): (String, String)) -> Result<(), Fault> {
        self.keep(&format!("{name}.ca"), self.pki.ca_pem())?;
        self.keep(&format!("{name}.pem"), &certificate)?;
        self.keep(&format!("{name}.key"), &key)
    }

    #[expect(clippy::disallowed_methods, reason = "a bench sets up its files")]
    fn keep(&self, name: &str, text: &str) -> Result<(), Fault> {
        Ok(fs::write(self.folder.path().join(name), text)?)
    }
}

/// An address that was free a moment ago.
pub(crate) fn free_port() -> Result<SocketAddr, Fault> {
    let probe = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(probe.local_addr()?)
}

fn release(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    target.unwrap_or(root).join("release").join(name)
}
