//! Doors to knock at, and those who do.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use serde_json::json;
use testbed::pki::Pki;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use yurt_core::transport::{Error, ErrorKind};
use yurt_tunnel::dial::{Address, Caller, Dial, Dialled};
use yurt_tunnel::egress::{self, Config, Doors, Policy};
use yurt_tunnel::identity::{Credentials, Files};

use super::targets::Target;

/// Whatever takes longer has failed.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) const ESTABLISHED: &str = "HTTP/1.1 200 Connection Established\r\n\r\n";

/// Where one may knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Socket,
    Listener,
    Connect,
}

pub(crate) const DOORS: [Door; 3] = [Door::Socket, Door::Listener, Door::Connect];

/// What becomes of a dial.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Road {
    /// A connection to this address.
    To(SocketAddr),
    /// One too, and then no answer.
    Late(SocketAddr),
    Fails(ErrorKind),
    /// No answer, whatever the deadline.
    Never,
}

/// A dialler that knows some hosts.
#[derive(Debug, Default)]
pub(crate) struct Roads {
    known: Mutex<HashMap<String, Road>>,
    pub(crate) asked: Mutex<Vec<(Caller, Address)>>,
    /// Dials that have neither ended nor been dropped.
    running: Arc<AtomicUsize>,
}

/// A connection through a door.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug> Io for T {}

/// The doors, open as long as this lives.
pub(crate) struct Bed {
    pub(crate) pki: Pki,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) roads: Arc<Roads>,
    targets: Mutex<Vec<Target>>,
    pub(crate) socket: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) connect: SocketAddr,
    pub(crate) figures: egress::Metrics,
    pub(crate) shutdown: CancellationToken,
    /// What is still to be done.
    pub(crate) work: TaskTracker,
    pub(crate) running: JoinSet<Result<(), egress::Error>>,
}

// === Bed ===

impl Bed {
    pub(crate) fn open() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let (pki, folder) = (Pki::new(), tempfile::tempdir().unwrap());
        let socket = folder.path().join("egress.sock");
        let anywhere = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let policy = json!({"clients": [{"users": ["prometheus"], "nodes": ["*"]}]});
        let mut config = Config {
            socket: Some(socket.clone()),
            listen: anywhere,
            connect: anywhere,
            policy: Policy::read(&policy).unwrap(),
            ..Config::default()
        };
        change(&mut config);
        let roads = Arc::new(Roads::default());
        let doors = Doors::open(config, credentials(&pki, folder.path()), roads.clone()).unwrap();
        let (listen, connect) = (doors.listen_addr().unwrap(), doors.connect_addr().unwrap());
        let (figures, shutdown) = (doors.metrics(), CancellationToken::new());
        let work = TaskTracker::new();
        let mut running = JoinSet::new();
        running.spawn(doors.run(shutdown.clone(), work.clone()));
        Self {
            pki,
            folder,
            roads,
            targets: Mutex::default(),
            socket,
            listen,
            connect,
            figures,
            shutdown,
            work,
            running,
        }
    }

    /// Leads a host to a target from now on.
    pub(crate) fn lead(&self, host: &str, target: Target) {
        self.roads.lead(host, Road::To(target.address));
        self.targets.lock().push(target);
    }

    /// Connects to a door as one who may.
    pub(crate) async fn knock(&self, door: Door) -> Box<dyn Io> {
        match door {
            Door::Socket => Box::new(UnixStream::connect(&self.socket).await.unwrap()),
            Door::Listener => {
                let tls = self.client("kube-apiserver-kubelet-client", &["system:masters"]);
                Box::new(shake(&tls, self.listen).await.unwrap())
            }
            Door::Connect => {
                let tls = self.client("prometheus", &[]);
                Box::new(shake(&tls, self.connect).await.unwrap())
            }
        }
    }

    /// Asks for a tunnel: the tunnel, or the answer that there is none.
    pub(crate) async fn dial(&self, door: Door, target: &str) -> Result<Box<dyn Io>, String> {
        let mut stream = self.knock(door).await;
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        match answer(&mut stream).await {
            head if head == ESTABLISHED => Ok(stream),
            head => Err(head + &rest(&mut stream).await),
        }
    }

    pub(crate) fn client(&self, user: &str, groups: &[&str]) -> Arc<ClientConfig> {
        let (certificate, key) = self.pki.client(user, groups);
        client(&self.pki, Some((&certificate, &key)), rustls::ALL_VERSIONS)
    }

    /// Returns what is counted under a name, whatever the labels.
    pub(crate) fn counted(&self, name: &str) -> Vec<String> {
        let mut registry = prometheus_client::registry::Registry::default();
        self.figures.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(str::to_owned).collect()
    }
}

pub(crate) fn credentials(pki: &Pki, folder: &Path) -> Credentials {
    let (certificate, key) = pki.server(&["localhost", "127.0.0.1"]);
    let files = Files {
        ca: write(folder, "ca.crt", pki.ca_pem()),
        certificate: write(folder, "tls.crt", &certificate),
        key: write(folder, "tls.key", &key),
    };
    Credentials::load(files).unwrap()
}

/// Writes a file into a folder.
pub(crate) fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    let mut file = std::fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    path
}

/// Makes a client that believes in `pki` and shows a certificate, or none.
pub(crate) fn client(
    pki: &Pki,
    shown: Option<(&str, &str)>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match shown {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

pub(crate) async fn shake(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config.clone())
        .connect(name, stream)
        .await
}

/// Reads a head and not a byte more.
pub(crate) async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        std::io::Result::Ok(())
    };
    soon(reading)
        .await
        .unwrap_or_else(|error| panic!("{error} in {head:?}"));
    String::from_utf8(head).unwrap()
}

pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    soon(stream.read_to_string(&mut text)).await.unwrap();
    text
}

pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(SOON, what)
        .await
        .expect("it takes too long")
}

/// Waits until something that others do is done.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ended = tokio::time::timeout(SOON, waiting).await;
    assert!(ended.is_ok(), "it never came to: {what}");
}

// === Roads ===

impl Roads {
    pub(crate) fn lead(&self, host: &str, road: Road) {
        self.known.lock().insert(host.to_owned(), road);
    }

    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Dial for Roads {
    async fn dial(
        &self,
        caller: &Caller,
        address: &Address,
        deadline: Duration,
    ) -> Result<Dialled, Error> {
        self.asked.lock().push((caller.clone(), address.clone()));
        let _running = Running::new(&self.running);
        let road = self.known.lock().get(&address.host).copied();
        let connect = async |address| {
            let connected = tokio::time::timeout(deadline, TcpStream::connect(address)).await;
            connected.unwrap().map_err(|error| {
                Error::new(ErrorKind::Refused, "connect to the target").with_source(error)
            })
        };
        match road.unwrap_or(Road::Fails(ErrorKind::NoPeer)) {
            Road::To(address) => Ok(Dialled::Direct(connect(address).await?.into())),
            Road::Late(address) => {
                let _open = connect(address).await?;
                std::future::pending().await
            }
            Road::Fails(kind) => Err(Error::new(kind, format!("no road to {address}"))),
            Road::Never => std::future::pending().await,
        }
    }
}

struct Running(Arc<AtomicUsize>);

impl Running {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
