//! Server, agent, target and certificates.

use std::error::Error;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use testbed::pki::Pki;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::Dialer;
use crate::{floor, process, target};

/// What ends a bench.
pub(crate) type Fault = Box<dyn Error + Send + Sync>;

/// What carries the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Quic,
    H2,
    Floor,
}

impl Way {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::H2 => "h2",
            Self::Floor => "floor",
        }
    }
}

/// Everything that is measured; ends with this value.
pub(crate) struct Setup {
    pub(crate) way: Way,
    pub(crate) server: Process,
    pub(crate) agent: Process,
    pub(crate) dialer: Dialer,
    pub(crate) folder: TempDir,
    pub(crate) pki: Pki,
    /// Where agents connect.
    pub(crate) listen: SocketAddr,
    _target: JoinSet<()>,
}

/// A process that ends with this value.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

impl Process {
    pub(crate) fn start(program: &Path, arguments: &[String], log: &Path) -> Result<Self, Fault> {
        let log = fs::File::create(log)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("start {}: {error}", program.display()))?;
        Ok(Self(child))
    }
}

impl Setup {
    pub(crate) async fn start(way: Way) -> Result<Self, Fault> {
        let folder = tempfile::tempdir()?;
        let pki = Pki::new();
        write(
            &pki,
            folder.path(),
            "server",
            pki.server(&["tunnel.test", "127.0.0.1"]),
        )?;
        let node = pki.client("system:node:edge-1", &["system:nodes"]);
        write(&pki, folder.path(), "agent", node)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let dialer = Dialer {
            socket: folder.path().join("egress.sock"),
            target: listener.local_addr()?,
        };
        let mut serving = JoinSet::new();
        serving.spawn(target::serve(listener));
        let listen = free_port()?;
        let start = match way {
            Way::Floor => floor_relays,
            Way::Quic | Way::H2 => programs,
        };
        let (server, agent) = start(way, folder.path(), listen, &dialer)?;
        let setup = Self {
            way,
            server,
            agent,
            dialer,
            folder,
            pki,
            listen,
            _target: serving,
        };
        setup.wait().await?;
        Ok(setup)
    }

    async fn wait(&self) -> Result<(), Fault> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match self.dialer.dial(target::ECHO).await {
                Ok(_) => return Ok(()),
                Err(_) if Instant::now() < until => sleep(Duration::from_millis(50)).await,
                Err(error) => {
                    let log = fs::read_to_string(self.folder.path().join("server.log"));
                    return Err(format!("no tunnel: {error}\n{}", log.unwrap_or_default()).into());
                }
            }
        }
    }

    /// Processor seconds of server and agent.
    pub(crate) fn cpu(&self) -> Result<f64, Fault> {
        Ok(process::cpu(self.server.0.id())? + process::cpu(self.agent.0.id())?)
    }

    /// Resident KiB of server and agent.
    pub(crate) fn memory(&self) -> Result<[f64; 2], Fault> {
        Ok([
            process::memory(self.server.0.id())?,
            process::memory(self.agent.0.id())?,
        ])
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench sets up its files")]
pub(crate) fn write(
    pki: &Pki,
    folder: &Path,
    name: &str,
    (certificate, key): (String, String),
) -> Result<(), Fault> {
    let at = |kind: &str| folder.join(format!("{name}.{kind}"));
    fs::write(at("ca"), pki.ca_pem())?;
    fs::write(at("pem"), certificate)?;
    fs::write(at("key"), key)?;
    Ok(())
}

fn free_port() -> Result<SocketAddr, Fault> {
    let probe = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(probe.local_addr()?)
}

/// The flags that both programs have.
pub(crate) fn certificates(folder: &Path, name: &str) -> [String; 3] {
    let at = |kind: &str| folder.join(format!("{name}.{kind}")).display().to_string();
    [
        format!("--ca-file={}", at("ca")),
        format!("--certificate={}", at("pem")),
        format!("--key={}", at("key")),
    ]
}

pub(crate) fn program(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    target.unwrap_or(root).join("release").join(name)
}

#[expect(clippy::disallowed_methods, reason = "a bench sets up its files")]
fn programs(
    way: Way,
    folder: &Path,
    listen: SocketAddr,
    dialer: &Dialer,
) -> Result<(Process, Process), Fault> {
    let nodes = folder.join("nodes.json");
    fs::write(
        &nodes,
        r#"{"nodes": [{"name": "edge-1", "addresses": ["127.0.0.1"]}]}"#,
    )?;
    let mut server = vec![
        format!("--listen={listen}"),
        format!("--egress-socket={}", dialer.socket.display()),
        format!("--nodes-file={}", nodes.display()),
    ];
    server.extend(certificates(folder, "server"));
    let log = folder.join("server.log");
    let server = Process::start(&program("yurt-tunnel-server"), &server, &log)?;
    let mut agent = vec![
        format!("--server={listen}"),
        "--node-name=edge-1".to_owned(),
        format!("--allow={}", dialer.target),
        format!("--transport={}", way.label()),
        format!("--data-dir={}", folder.join("agent").display()),
    ];
    agent.extend(certificates(folder, "agent"));
    let log = folder.join("agent.log");
    let agent = Process::start(&program("yurt-tunnel-agent"), &agent, &log)?;
    Ok((server, agent))
}

fn floor_relays(
    _: Way,
    folder: &Path,
    listen: SocketAddr,
    dialer: &Dialer,
) -> Result<(Process, Process), Fault> {
    let program = std::env::current_exe()?;
    let relay = |end: &str, here: String, there: String| {
        let folder_text = folder.display().to_string();
        let arguments = [
            floor::ROLE.to_owned(),
            end.to_owned(),
            here,
            there,
            folder_text,
        ];
        Process::start(&program, &arguments, &folder.join(format!("{end}.log")))
    };
    let far = relay("far", listen.to_string(), dialer.target.to_string())?;
    let near = relay(
        "near",
        dialer.socket.display().to_string(),
        listen.to_string(),
    )?;
    Ok((near, far))
}
