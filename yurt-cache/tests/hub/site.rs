//! A hub as its users have it: a configuration, files with certificates, a store, clients.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use testbed::api::{ApiConfig, ApiServer};
use testbed::client::{Client, Watch};
use testbed::endpoint::Endpoint;
use testbed::link::{Cut, Link};
use testbed::pki::Pki;
use testbed::tokens::TokenIssuer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use yurt_cache::hub::{Config, Error, Hub, UpstreamConfig};
use yurt_cache::store::{LogConfig, LogStore, MemoryStore};
use yurt_core::store::{self, Batch, ErrorKind, Health, Store};

/// Nothing that a test waits for takes longer.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// What has not come for so long does not come.
pub(crate) const MOMENT: Duration = Duration::from_millis(300);

/// Whose hub it is.
pub(crate) const NODE: &str = "n1";

type Adjust = Arc<dyn Fn(&mut Config) + Send + Sync>;

/// A node with a hub, and the authority that it believes.
pub(crate) struct Site {
    pub(crate) pki: Arc<Pki>,
    servers: Vec<SocketAddr>,
    adjust: Adjust,
    store: Option<Arc<dyn Store>>,
    dir: tempfile::TempDir,
    /// Of the store of the hub that runs now.
    is_dead: Arc<AtomicBool>,
    running: Option<Running>,
}

struct Running {
    hub: SocketAddr,
    addresses: Vec<SocketAddr>,
    admin: SocketAddr,
    pods: Option<SocketAddr>,
    ca_pem: String,
    shutdown: CancellationToken,
    /// Dropped with it, as by a crash, unless it was asked to end.
    task: JoinSet<Result<(), Error>>,
}

impl Site {
    /// Returns a site whose hub is not started yet.
    pub(crate) fn new(pki: Arc<Pki>, servers: Vec<SocketAddr>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = pki.client(&format!("system:node:{NODE}"), &["system:nodes"]);
        for (name, text) in [
            ("ca.crt", pki.ca_pem()),
            ("node.crt", &certificate),
            ("node.key", &key),
        ] {
            write(dir.path().join(name), text);
        }
        Self {
            pki,
            servers,
            adjust: Arc::new(|_| {}),
            store: Some(Arc::new(MemoryStore::new())),
            dir,
            is_dead: Arc::default(),
            running: None,
        }
    }

    /// Changes the configuration of the hubs to come.
    pub(crate) fn adjust(&mut self, adjust: impl Fn(&mut Config) + Send + Sync + 'static) {
        self.adjust = Arc::new(adjust);
    }

    /// Gives the hubs to come this store.
    pub(crate) fn with_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Gives the hubs to come a log on the disk, opened at each start.
    pub(crate) fn on_disk(mut self) -> Self {
        self.store = None;
        self
    }

    /// Returns where the hub keeps its certificates.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Returns where the log is.
    pub(crate) fn log_dir(&self) -> PathBuf {
        self.dir.path().join("objects")
    }

    /// Returns the key of the hub's client certificate.
    pub(crate) fn node_key(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("node.key")).unwrap()
    }

    fn config(&self) -> Config {
        let file = |name: &str| self.dir.path().join(name);
        let servers = self.servers.iter();
        let upstream = UpstreamConfig {
            servers: servers
                .map(|addr| format!("https://{addr}").parse().unwrap())
                .collect(),
            ca_file: file("ca.crt"),
            client_certificate: Some(file("node.crt")),
            client_key: Some(file("node.key")),
            probe_interval: Duration::from_millis(100),
            ..UpstreamConfig::default()
        };
        let mut config = Config::new(NODE.parse().unwrap(), upstream, file("data"));
        config.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        config.admin_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.drain = Duration::from_secs(2);
        (self.adjust)(&mut config);
        config
    }

    fn open_store(&self) -> Arc<dyn Store> {
        match &self.store {
            Some(store) => Arc::new(Process {
                store: store.clone(),
                is_dead: self.is_dead.clone(),
            }),
            None => Arc::new(LogStore::open(self.log_dir(), LogConfig::default()).unwrap()),
        }
    }

    /// Makes a hub, without running it.
    pub(crate) fn make(&self) -> Result<Hub, Error> {
        std::fs::create_dir_all(self.dir.path().join("data")).unwrap();
        Hub::new(self.config(), self.open_store(), jiff::Timestamp::now())
    }

    /// Starts a hub.
    pub(crate) fn start(&mut self) {
        self.is_dead = Arc::default();
        let hub = self.make().unwrap();
        let shutdown = CancellationToken::new();
        let running = Running {
            hub: hub.local_addr().unwrap(),
            addresses: hub.local_addrs(),
            admin: hub.admin_addr().unwrap(),
            pods: hub.pod_addr(),
            ca_pem: std::fs::read_to_string(hub.ca_file().unwrap()).unwrap(),
            shutdown: shutdown.clone(),
            task: JoinSet::new(),
        };
        let running = self.running.insert(running);
        running.task.spawn(hub.run(shutdown));
    }

    /// Ends the hub as by a crash of its program.
    pub(crate) async fn crash(&mut self) {
        self.is_dead.store(true, Ordering::SeqCst);
        self.running.take().unwrap().task.shutdown().await;
        if self.store.is_none() {
            let path = self.log_dir();
            // Its last tasks hold the store for a moment longer.
            eventually("the crashed hub has let go of its store", async || {
                LogStore::open(&path, LogConfig::default()).is_ok()
            })
            .await;
        }
    }

    /// Ends the hub as it wants to be ended; returns what it says, `None` if it did not end in time.
    pub(crate) async fn stop(&mut self, within: Duration) -> Option<Result<(), Error>> {
        let mut running = self.running.take().unwrap();
        running.shutdown.cancel();
        let ended = tokio::time::timeout(within, running.task.join_next()).await;
        Some(ended.ok()??.unwrap())
    }

    /// Waits for a hub that ends by itself; returns what it says, `None` if it did not end in time.
    pub(crate) async fn ended(&mut self, within: Duration) -> Option<Result<(), Error>> {
        let mut running = self.running.take().unwrap();
        let ended = tokio::time::timeout(within, running.task.join_next()).await;
        Some(ended.ok()??.unwrap())
    }

    /// Returns where clients reach the hub.
    pub(crate) fn hub(&self) -> SocketAddr {
        self.running.as_ref().unwrap().hub
    }

    /// Returns every address of the hub.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.running.as_ref().unwrap().addresses.clone()
    }

    /// Returns where its administration is.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.running.as_ref().unwrap().admin
    }

    /// Returns where pods reach the hub.
    pub(crate) fn pods(&self) -> SocketAddr {
        self.running.as_ref().unwrap().pods.unwrap()
    }

    /// Returns the hub as an endpoint.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint {
            url: format!("https://{}", self.hub()),
            ca_pem: self.running.as_ref().unwrap().ca_pem.clone(),
            admin_token: testbed::api::ADMIN_TOKEN.to_owned(),
        }
    }

    /// Returns a client that is the node.
    pub(crate) fn node(&self) -> Client {
        self.certified(&format!("system:node:{NODE}"), &["system:nodes"])
    }

    /// Returns a client with a certificate of the cluster.
    pub(crate) fn certified(&self, user: &str, groups: &[&str]) -> Client {
        let (certificate, key) = self.pki.client(user, groups);
        Client::with_certificate(&self.endpoint(), &certificate, &key).unwrap()
    }

    /// Returns a client with a bearer token.
    pub(crate) fn bearer(&self, token: &str) -> Client {
        Client::with_token(&self.endpoint(), token).unwrap()
    }

    /// Opens a raw connection for HTTP/1.1, with a certificate and its key or without.
    pub(crate) async fn raw(
        &self,
        identity: Option<(String, String)>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.raw_of(identity, &[]).await
    }

    /// Opens a raw connection that offers these protocols.
    async fn raw_of(
        &self,
        identity: Option<(String, String)>,
        protocols: &[&[u8]],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let ca = CertificateDer::from_pem_slice(self.endpoint().ca_pem.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(vec![certificate], key)
                    .unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let stream = TcpStream::connect(self.hub()).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    /// Opens a raw connection of the node.
    pub(crate) async fn raw_node(&self) -> TlsStream<TcpStream> {
        let identity = self
            .pki
            .client(&format!("system:node:{NODE}"), &["system:nodes"]);
        self.raw(Some(identity)).await.unwrap()
    }

    /// Opens a raw connection of the node for HTTP/2.
    pub(crate) async fn raw_http2_node(&self) -> TlsStream<TcpStream> {
        let identity = self
            .pki
            .client(&format!("system:node:{NODE}"), &["system:nodes"]);
        self.raw_of(Some(identity), &[b"h2"]).await.unwrap()
    }

    /// Sends raw bytes as the node and returns everything that comes back until the end.
    pub(crate) async fn say(&self, request: &str) -> String {
        let mut stream = self.raw_node().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
        // However it ended, what came counts.
        drop(read.expect("the hub answers and closes"));
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Gets a page of the administration: code and text.
    pub(crate) async fn page(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    /// Returns the sum of a metric over the label sets that contain `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &str) -> f64 {
        let (_, text) = self.page("/metrics").await;
        text.lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(labels))
            })
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// Returns when the hub takes the cloud for reachable, or for gone.
    pub(crate) async fn sees_the_cloud(&self, is_there: bool) {
        let wanted = f64::from(u8::from(is_there));
        eventually("the hub knows about the link", async || {
            (self.metric("yurthub_cloud_reachable", "").await - wanted).abs() < 0.5
        })
        .await;
    }

    /// Returns when the mirror whose scope contains this text follows the cloud.
    pub(crate) async fn is_live(&self, scope: &str) {
        let label = format!("scope=\"{scope}\"");
        eventually("the mirror is live", async || {
            self.metric("yurthub_mirror_live", &label).await > 0.5
        })
        .await;
    }
}

/// A store as one process sees it: what a killed one had begun is not written any more.
#[derive(Debug)]
struct Process {
    store: Arc<dyn Store>,
    is_dead: Arc<AtomicBool>,
}

impl Store for Process {
    fn get(&self, key: &[u8]) -> store::Result<Option<Bytes>> {
        self.store.get(key)
    }

    fn write(&self, batch: Batch) -> store::Result<()> {
        if self.is_dead.load(Ordering::SeqCst) {
            return Err(store::Error::new(ErrorKind::Other, "the process is dead"));
        }
        self.store.write(batch)
    }

    fn sync(&self) -> store::Result<()> {
        self.store.sync()
    }

    fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], usize) -> ControlFlow<()>,
    ) -> store::Result<()> {
        self.store.keys(prefix, after, visit)
    }

    fn health(&self) -> Health {
        self.store.health()
    }
}

/// A site whose cloud is an API server in this process, behind a link.
pub(crate) struct Bed {
    pub(crate) api: ApiServer,
    pub(crate) link: Link,
    pub(crate) site: Site,
}

impl Bed {
    /// Starts everything, with the defaults.
    pub(crate) async fn start() -> Self {
        Self::with(ApiConfig::default(), |site| site).await
    }

    /// Starts everything, adjusted.
    pub(crate) async fn with(config: ApiConfig, adjust: impl FnOnce(Site) -> Site) -> Self {
        let pki = Arc::new(Pki::new());
        let config = ApiConfig {
            pki: Some(pki.clone()),
            ..config
        };
        let api = ApiServer::start(config).await.unwrap();
        let link = Link::start(api.addr()).unwrap();
        let mut site = adjust(Site::new(pki, vec![link.addr()]));
        site.start();
        site.sees_the_cloud(true).await;
        Self { api, link, site }
    }

    /// Returns a client of the API server itself.
    pub(crate) fn cloud(&self) -> Client {
        Client::new(&self.api.endpoint()).unwrap()
    }

    /// Returns who signs the tokens of service accounts.
    pub(crate) fn issuer(&self) -> Arc<TokenIssuer> {
        self.api.issuer()
    }

    /// Cuts the link and waits until the hub knows.
    pub(crate) async fn cut(&self) {
        self.link.cut(Cut::Refuse).await;
        self.site.sees_the_cloud(false).await;
    }

    /// Mends the link and waits until the hub knows.
    pub(crate) async fn mend(&self) {
        self.link.mend().await.unwrap();
        self.site.sees_the_cloud(true).await;
    }

    /// Kills the hub and starts it again on what it left.
    pub(crate) async fn restart(&mut self) {
        self.site.crash().await;
        self.site.start();
    }
}

/// Lets time pass in one leap for all that this process does; the case has to run on one thread.
pub(crate) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Waits until a condition holds, up to a limit.
#[track_caller]
pub(crate) fn eventually<F: Future<Output = bool>>(
    what: &'static str,
    condition: impl FnMut() -> F,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    wait(what, caller, condition)
}

async fn wait<F: Future<Output = bool>>(
    what: &'static str,
    caller: &'static std::panic::Location<'static>,
    mut condition: impl FnMut() -> F,
) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !condition().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "not in time: {what} ({caller})"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What every namespace has, and no case is about.
const ROOT_CA: &str = "kube-root-ca.crt";

/// Returns the next events of a watch: type and name, bookmarks left out.
pub(crate) async fn events(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let event = watch.next(SOON).await.unwrap().expect("the watch goes on");
        let name = event.object["metadata"]["name"].as_str().unwrap_or("-");
        if event.kind != "BOOKMARK" && name != ROOT_CA {
            seen.push(format!("{} {name}", event.kind));
        }
    }
    seen
}

/// Returns the names in a list, in its order.
pub(crate) fn names(list: &serde_json::Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("a list");
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .filter(|name| *name != ROOT_CA)
        .collect()
}

/// Returns the revision of an object or a list.
pub(crate) fn revision(object: &serde_json::Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str();
    text.expect("a revision").parse().unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's own file needs no crash safety"
)]
fn write(path: PathBuf, text: &str) {
    std::fs::write(path, text).unwrap();
}
