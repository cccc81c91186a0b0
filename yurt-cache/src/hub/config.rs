//! The hub's configuration and its errors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use yurt_core::name::NodeName;

use super::{Budget, FilterConfig, Limits, UpstreamConfig};

/// Who signs the hub's serving certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingSigner {
    /// The hub's own CA, in `hub-ca.pem` in the data directory; clients need that file.
    Own,
    /// The cluster, through a CertificateSigningRequest for `kubernetes.io/kubelet-serving`, which someone has to
    /// approve. Clients trust the cluster's CA; until the certificate is signed the hub presents one of its own CA.
    Cluster,
}

/// The hub's configuration: plain data. [`Config::new`] sets the defaults.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The name of the node that the hub runs on.
    pub node_name: NodeName,
    /// The API servers and how to reach them.
    pub upstream: UpstreamConfig,
    /// The addresses to serve clients on, over HTTPS; at least one.
    pub listen: Vec<SocketAddr>,
    /// The address at which the node's pods reach the hub, the same on every node, such as 169.254.2.1:10268. Unless an
    /// interface has it, the hub adds it to one, which needs `CAP_NET_ADMIN`. Without it, filters do not redirect pods to
    /// the hub.
    pub pod_address: Option<SocketAddr>,
    /// Additional names and addresses in the serving certificate, such as the cluster IP of the Service `kubernetes`.
    pub serving_names: Vec<String>,
    /// The node's pool; by default the value of the node's label `apps.openyurt.io/nodepool`.
    pub pool_name: Option<String>,
    /// The filters that change what callers see.
    pub filters: FilterConfig,
    /// The serving certificate, PEM; by default the hub issues one, see `serving_signer`.
    pub serving_certificate: Option<PathBuf>,
    /// The serving certificate's key, PEM.
    pub serving_key: Option<PathBuf>,
    /// Who signs the serving certificate if none is given.
    pub serving_signer: ServingSigner,
    /// A file with a bootstrap token, on its own or in a bootstrap kubeconfig. With it the hub requests the node's client
    /// certificate itself instead of using the one in `upstream`, stores it in the data directory, renews it, and wipes
    /// the file once it has the first certificate.
    pub bootstrap_token_file: Option<PathBuf>,
    /// The CA that signs client certificates, PEM; by default the CA of the API servers.
    pub client_ca_file: Option<PathBuf>,
    /// The address to serve health and metrics on, over plain HTTP; `None` to disable.
    pub admin_listen: Option<SocketAddr>,
    /// The directory for the hub's certificates; the store is passed to [`Hub::new`](super::Hub::new). It and all that is
    /// in it is for its owner alone: laxer permissions are mended at the start.
    pub data_dir: PathBuf,
    /// A file with the keys that seal Secrets and tokens in the store, 32 bytes in base64 in a line: the first seals, all
    /// open. Without it Secrets are in the store as they are, and tokens in memory alone.
    pub seal_key_file: Option<PathBuf>,
    /// The file with the machine's boot id. After a reboot no pod of the node counts as ready until its kubelet reports it
    /// as ready.
    pub boot_id_file: PathBuf,
    /// How long an unused mirror is kept while online, unless an offline restart of the node needs it.
    pub mirror_idle: Duration,
    /// How long other unused entries are kept while online: objects read by name that no pod on the node refers to,
    /// discovery documents, authorization decisions.
    pub forget_after: Duration,
    /// The budget for objects read by name; those that an offline restart needs do not count.
    pub objects_by_name: Budget,
    /// The budget for discovery, OpenAPI and other documents.
    pub documents: Budget,
    /// The maximum number of authorization decisions that are kept.
    pub verdicts: usize,
    /// The budget for each resource. Scopes beyond it are forwarded only, the least recently used first; those that an
    /// offline restart needs are always kept.
    pub per_kind: Budget,
    /// Budgets of single resources, by plural and group, such as `deployments.apps`, or by the plural alone.
    pub kinds: BTreeMap<String, Budget>,
    /// The largest object that is mirrored, in bytes of JSON. A resource with a larger one is forwarded only.
    pub object_limit: usize,
    /// The maximum number of events that a mirror keeps in memory for its watchers.
    pub window_events: usize,
    /// The maximum size of the events of all mirrors, in bytes. One mirror has at most an eighth of it; where there are
    /// more, those with the most lose their oldest.
    pub window_bytes: usize,
    /// How long authentication and authorization decisions of the API server are honoured while offline.
    pub verdict_limit: Duration,
    /// The same for decisions on Secrets, if that is shorter; the node's own right to them is not limited.
    pub secret_verdict_limit: Duration,
    /// The limits on a single client.
    pub limits: Limits,
    /// How often to check whether the node would survive a reboot while offline.
    pub autonomy_period: Duration,
    /// Whether to report the result in the Node's condition `Autonomy`, which needs the node's client certificate.
    pub autonomy_condition: bool,
    /// How long requests in flight may continue after shutdown begins.
    pub drain: Duration,
    /// The wall clock. It may be wrong: where time decides about rights, the hub goes on from what it knows by `uptime`.
    pub clock: fn() -> jiff::Timestamp,
    /// The time since the machine's start, suspensions included, which nobody can set.
    pub uptime: fn() -> Duration,
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
            seal_key_file: None,
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
            window_bytes: 32 << 20,
            verdict_limit: Duration::from_secs(30 * 86_400),
            secret_verdict_limit: Duration::from_secs(86_400),
            limits: Limits::default(),
            autonomy_period: Duration::from_secs(30),
            autonomy_condition: true,
            drain: Duration::from_secs(10),
            clock: jiff::Timestamp::now,
            uptime: crate::identity::clock::uptime,
        }
    }
}

/// Why a hub cannot start, or has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Could not bind a listener.
    #[error("listen on {address}")]
    Listen {
        /// The address to bind.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// Could not accept connections.
    #[error("accept clients")]
    Accept(#[source] std::io::Error),
    /// Could not add the pods' address to an interface.
    #[error("set up the address at which pods reach the hub")]
    PodAddress(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Could not set up the connections to the API servers.
    #[error("set up the way to the API servers")]
    Upstream(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Could not keep the data directory from other users.
    #[error("keep {} from other users", path.display())]
    DataDir {
        /// The data directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Could not read the keys that seal the store.
    #[error("read the seal keys in {}", path.display())]
    SealKeys {
        /// The file with the keys.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Could not load or issue the serving certificate.
    #[error("set up the serving certificate")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Could not read the store.
    #[error("read the store")]
    Store(#[source] yurt_core::store::Error),
    /// An essential task ended before shutdown.
    #[error("run the task {task:?}")]
    Task {
        /// The name of the task.
        task: &'static str,
        /// The panic, or how it ended.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
