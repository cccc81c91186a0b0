//! The hub in a process of its own, so that it can really be killed: this program again, with a hidden flag.
//!
//! What it shall do it reads as one line from stdin, where it is reached it writes as one line to stdout.
//! When its stdin ends, so does the hub: it never outlives the quickstart.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;
use yurt_cache::hub::{Config, Hub, UpstreamConfig};
use yurt_cache::store::{LogConfig, LogStore};

/// The flag that makes this program a hub.
pub(crate) const FLAG: &str = "--be-the-hub";

/// The name of its log, in the quickstart's folder.
pub(crate) const LOG: &str = "hub.log";

/// How long running requests may go on when the quickstart ends.
const DRAIN: Duration = Duration::from_secs(1);

/// What the hub is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// The only way to the cloud, `https://host:port`.
    pub(crate) server: String,
    pub(crate) ca_file: PathBuf,
    pub(crate) client_certificate: Option<PathBuf>,
    pub(crate) client_key: Option<PathBuf>,
    pub(crate) listen: SocketAddr,
    pub(crate) data_dir: PathBuf,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    address: SocketAddr,
    ca_file: PathBuf,
}

/// A running hub; dropping it kills it.
#[derive(Debug)]
pub(crate) struct HubProcess {
    child: Child,
    door: Door,
}

/// Where a hub is found.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    /// The process's id.
    pub(crate) id: u32,
    /// Where clients reach it.
    pub(crate) address: SocketAddr,
    /// The CA that its clients trust.
    pub(crate) ca_file: PathBuf,
}

/// Why there is no hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// The process could not be started.
    #[error("start the hub's process")]
    Spawn(#[source] io::Error),
    /// It could not be told what to do.
    #[error("tell the hub what to do")]
    Tell(#[source] io::Error),
    /// It did not say where it is reached.
    #[error("the hub did not start: {log}")]
    Start {
        /// The end of its log.
        log: String,
    },
    /// It would not end.
    #[error("end the hub's process")]
    End(#[source] io::Error),
}

/// Why the hub's own process failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ServeError {
    /// There are no orders on stdin.
    #[error("read the orders from stdin")]
    Orders(#[source] io::Error),
    /// They are not what this program writes.
    #[error("the hub's process is started by the quickstart itself")]
    Understand(#[source] serde_json::Error),
    /// A URL or a name is none.
    #[error("understand {0:?}")]
    Name(String),
    /// The disk.
    #[error("open the store")]
    Store(#[source] yurt_core::store::Error),
    /// The hub.
    #[error("run the hub")]
    Hub(#[source] yurt_cache::hub::Error),
    /// Nobody hears where it is reached.
    #[error("tell where the hub is reached")]
    Tell(#[source] io::Error),
}

// === HubProcess ===

impl HubProcess {
    /// Starts a hub and waits until it listens. Its log goes to a file.
    ///
    /// # Cancel safety
    /// Dropping the future kills the process.
    pub(crate) async fn start(orders: &Orders, log: &Path) -> Result<Self, Error> {
        let program = std::env::current_exe().map_err(Error::Spawn)?;
        let mut child = Command::new(program)
            .arg(FLAG)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(
                File::options()
                    .append(true)
                    .create(true)
                    .open(log)
                    .map_err(Error::Spawn)?,
            )
            // A Ctrl-C in the terminal is for the quickstart, which ends the hub.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::Spawn)?;
        let id = child.id().ok_or_else(|| failed(log))?;
        let mut text = serde_json::to_string(orders).map_err(|error| Error::Tell(error.into()))?;
        text.push('\n');
        let stdin = child.stdin.as_mut().ok_or_else(|| failed(log))?;
        stdin
            .write_all(text.as_bytes())
            .await
            .map_err(Error::Tell)?;
        let stdout = child.stdout.take().ok_or_else(|| failed(log))?;
        let mut line = String::new();
        let read = BufReader::new(stdout.take(64 << 10))
            .read_line(&mut line)
            .await;
        let ready = read
            .ok()
            .and_then(|_| serde_json::from_str::<Ready>(&line).ok());
        let Ready { address, ca_file } = ready.ok_or_else(|| failed(log))?;
        let door = Door {
            id,
            address,
            ca_file,
        };
        Ok(Self { child, door })
    }

    /// Where it is found.
    pub(crate) fn door(&self) -> &Door {
        &self.door
    }

    /// Its memory in use, where the system tells.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.door.id)).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    }

    /// Kills it with SIGKILL: nothing of it can say goodbye to its clients or its disk.
    pub(crate) async fn kill(mut self) -> Result<(), Error> {
        self.child.kill().await.map_err(Error::End)
    }
}

fn failed(log: &Path) -> Error {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().last().unwrap_or("it said nothing").to_owned();
    Error::Start { log: last }
}

// === The hub's side ===

/// Is the hub, until stdin ends.
pub(crate) async fn serve() -> Result<(), ServeError> {
    tracing_subscriber::fmt()
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .with_max_level(LevelFilter::INFO)
        .init();
    let mut stdin = BufReader::new(tokio::io::stdin());
    let mut line = String::new();
    (&mut stdin)
        .take(64 << 10)
        .read_line(&mut line)
        .await
        .map_err(ServeError::Orders)?;
    let orders: Orders = serde_json::from_str(&line).map_err(ServeError::Understand)?;
    let hub = assemble(orders)?;
    let ready = Ready {
        address: hub.local_addr().unwrap_or(SocketAddr::from(([0; 4], 0))),
        ca_file: hub.ca_file().map(Path::to_owned).unwrap_or_default(),
    };
    say(&ready).map_err(ServeError::Tell)?;
    let shutdown = CancellationToken::new();
    let ends = shutdown.clone().drop_guard();
    let (ran, ()) = tokio::join!(hub.run(shutdown), async move {
        let mut rest = [0; 64];
        while matches!(stdin.read(&mut rest).await, Ok(length) if length > 0) {}
        drop(ends);
    });
    ran.map_err(ServeError::Hub)
}

fn assemble(orders: Orders) -> Result<Hub, ServeError> {
    let server = orders
        .server
        .parse()
        .map_err(|_| ServeError::Name(orders.server.clone()))?;
    let node = crate::cloud::NODE;
    let node = node
        .parse()
        .map_err(|_| ServeError::Name(node.to_owned()))?;
    let store = orders.data_dir.join("store");
    let store = LogStore::open(store, LogConfig::default()).map_err(ServeError::Store)?;
    let upstream = UpstreamConfig {
        servers: vec![server],
        ca_file: orders.ca_file,
        client_certificate: orders.client_certificate,
        client_key: orders.client_key,
        ..UpstreamConfig::default()
    };
    let mut config = Config::new(node, upstream, orders.data_dir);
    config.listen = vec![orders.listen];
    config.admin_listen = None;
    config.drain = DRAIN;
    Hub::new(config, Arc::new(store), jiff::Timestamp::now()).map_err(ServeError::Hub)
}

fn say(ready: &Ready) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", serde_json::to_string(ready)?)?;
    stdout.flush()
}
