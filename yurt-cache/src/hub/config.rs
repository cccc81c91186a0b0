//! What a hub is told, and what keeps it from running.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use yurt_core::name::NodeName;

use super::{Budget, FilterConfig, Limits, UpstreamConfig};

/// Who signs what the hub presents to its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingSigner {
    /// A CA of the hub's own, in `hub-ca.pem` beside the data: clients are handed that file.
    Own,
    /// The cluster, by a CertificateSigningRequest to `kubernetes.io/kubelet-serving`, which somebody has to
    /// approve. Clients trust the cluster's CA; until it is signed they meet the hub's own.
    Cluster,
}

/// What a hub is told. Plain data; [`Config::new`] sets what has a default.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The node that the hub serves.
    pub node_name: NodeName,
    /// The API servers and how to reach them.
    pub upstream: UpstreamConfig,
    /// Where clients reach the hub, by HTTPS; at least one address.
    pub listen: Vec<SocketAddr>,
    /// Where the node's pods reach it: the hub puts the address on an interface, which takes `CAP_NET_ADMIN`
    /// unless it is there. The same on every node, as 169.254.2.1:10268; without it no filter sends pods here.
    pub pod_address: Option<SocketAddr>,
    /// More names and addresses for the serving certificate, such as the cluster IP of the Service `kubernetes`.
    pub serving_names: Vec<String>,
    /// The node's pool; without it the node's label `apps.openyurt.io/nodepool` says it.
    pub pool_name: Option<String>,
    /// What callers see differently from the cloud.
    pub filters: FilterConfig,
    /// The serving certificate, PEM; without it the hub makes a CA of its own beside the data.
    pub serving_certificate: Option<PathBuf>,
    /// The serving certificate's key, PEM.
    pub serving_key: Option<PathBuf>,
    /// Who signs the serving certificate where none is given.
    pub serving_signer: ServingSigner,
    /// A file with a bootstrap token, alone or in a bootstrap kubeconfig: with it the hub gets a client
    /// certificate of its own for the node, instead of the one in `upstream`, keeps it beside the data, renews it,
    /// and wipes the file when it has the first.
    pub bootstrap_token_file: Option<PathBuf>,
    /// The CA of the callers' certificates, PEM; without it the CA of the API servers.
    pub client_ca_file: Option<PathBuf>,
    /// Where health and metrics are served, by plain HTTP; nowhere if `None`.
    pub admin_listen: Option<SocketAddr>,
    /// Where the hub keeps its certificates; the store is given to [`Hub::new`](super::Hub::new).
    pub data_dir: PathBuf,
    /// Where the system names the machine's latest start. After another one no pod of the node is taken for ready
    /// until its kubelet says so.
    pub boot_id_file: PathBuf,
    /// How long a mirror stays that nobody asks for, while the cloud is there and no restart needs it.
    pub mirror_idle: Duration,
    /// How long else stays what nobody uses, while the cloud is there: objects that were read by name and that
    /// no pod on the node refers to, documents, verdicts.
    pub forget_after: Duration,
    /// What is kept of objects that were read by name; what a restart needs is kept beyond.
    pub objects_by_name: Budget,
    /// What is kept of discovery, OpenAPI and other documents.
    pub documents: Budget,
    /// How many verdicts of the cloud on its callers are kept.
    pub verdicts: usize,
    /// What is kept of any kind of object. Beyond it scopes are only forwarded, the least recently used first;
    /// what a restart needs is kept beyond.
    pub per_kind: Budget,
    /// What is kept of some kinds: plural and group, as in `deployments.apps`, or the plural alone.
    pub kinds: BTreeMap<String, Budget>,
    /// The largest object, in bytes of JSON, that a mirror takes. A kind with a larger one is only forwarded.
    pub object_limit: usize,
    /// Events that a mirror keeps in memory for its watchers, and their bytes.
    pub window_events: usize,
    /// See `window_events`.
    pub window_bytes: usize,
    /// How long what the cloud said of a caller counts while it is away: who it is and what it may read.
    pub verdict_limit: Duration,
    /// How much one client may hold.
    pub limits: Limits,
    /// How often it is looked whether the node would survive a reboot without the cloud.
    pub autonomy_period: Duration,
    /// Whether the cloud is told, by the Node's condition `Autonomy`. It needs the node's client certificate.
    pub autonomy_condition: bool,
    /// How long running requests may go on after the shutdown began.
    pub drain: Duration,
    /// What time it is.
    pub clock: fn() -> jiff::Timestamp,
}

impl Config {
    /// Returns a configuration with the defaults: clients at 127.0.0.1:10268, administration at 127.0.0.1:10267.
    #[must_use]
    pub fn new(node_name: NodeName, upstream: UpstreamConfig, data_dir: PathBuf) -> Self {
        Self {
            node_name,
            upstream,
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 10_268))],
            pod_address: None,
            serving_names: Vec::new(),
            pool_name: None,
            filters: FilterConfig::default(),
            serving_certificate: None,
            serving_key: None,
            serving_signer: ServingSigner::Own,
            bootstrap_token_file: None,
            client_ca_file: None,
            admin_listen: Some(SocketAddr::from(([127, 0, 0, 1], 10_267))),
            data_dir,
            boot_id_file: "/proc/sys/kernel/random/boot_id".into(),
            mirror_idle: Duration::from_secs(3_600),
            forget_after: Duration::from_secs(7 * 86_400),
            objects_by_name: Budget::new(5_000, 32 << 20),
            documents: Budget::new(200, 32 << 20),
            verdicts: 10_000,
            per_kind: Budget::new(100_000, 256 << 20),
            kinds: BTreeMap::new(),
            object_limit: crate::codec::OBJECT_LIMIT,
            window_events: 4_096,
            window_bytes: 4 << 20,
            verdict_limit: Duration::from_secs(30 * 86_400),
            limits: Limits::default(),
            autonomy_period: Duration::from_secs(30),
            autonomy_condition: true,
            drain: Duration::from_secs(10),
            clock: jiff::Timestamp::now,
        }
    }
}

/// What keeps a hub from starting or running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A listener's address cannot be had.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The listeners cannot be used.
    #[error("accept clients")]
    Accept(#[source] std::io::Error),
    /// The address of the pods cannot be put on an interface.
    #[error("set up the address at which pods reach the hub")]
    PodAddress(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The way to the API servers cannot be set up.
    #[error("set up the way to the API servers")]
    Upstream(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The serving certificate cannot be had.
    #[error("set up the serving certificate")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store cannot be read.
    #[error("read the store")]
    Store(#[source] yurt_core::store::Error),
    /// A task that the hub cannot be without has ended before it was told to.
    #[error("run the task {task:?}")]
    Task {
        /// Which one.
        task: &'static str,
        /// What it panicked of, or how it ended.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
