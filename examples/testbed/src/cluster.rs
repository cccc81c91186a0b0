//! The real API server: etcd and kube-apiserver on loopback ports, for as long as a test lives.
//!
//! The programs come from `make assets`. Unless a test asks for [`Controllers`] there are none: what it creates
//! stays as it was created, and pods need no service account.

mod addons;
mod arguments;
mod binaries;
mod controllers;
mod egress;
mod kubeconfig;
mod kubectl;
mod metrics;
mod servers;
mod shared;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use tokio::time::{Instant, sleep};

pub(crate) use self::addons::DNS_ADDRESS;
use self::servers::{Owner, Servers};
pub use self::{
    binaries::{Binaries, Version},
    controllers::Controllers,
    egress::Egress,
    kubeconfig::kubeconfig,
    kubectl::Kubectl,
    metrics::MetricsServer,
    shared::shared,
};
use crate::{endpoint::Endpoint, pki::Pki};

const ADMIN_TOKEN: &str = "admin-token-of-the-testbed";
/// The cluster IP of the Service `kubernetes`, the first of the range below.
const SERVICE_ADDRESS: &str = "10.96.0.1";
/// A cold start takes 4 s on two idle cores.
const START_LIMIT: Duration = Duration::from_secs(90);
/// Another process can take a port between our choice and the server's bind.
const START_ATTEMPTS: usize = 3;

/// What is different from a cluster with one administrator.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Which Kubernetes.
    pub version: Version,
    /// Where the API server listens: on loopback, or where nodes reach it.
    pub address: Ipv4Addr,
    /// The controllers and the scheduler, if there are to be any.
    pub controllers: Option<Controllers>,
    /// The value of `--authorization-mode`.
    pub authorization: String,
    /// Bearer tokens beside the administrator's.
    pub tokens: Vec<Token>,
    /// By which door the API server reaches kubelets, pods, Services and aggregated APIs, if not directly.
    pub egress: Option<Egress>,
    /// More arguments of kube-apiserver.
    pub arguments: Vec<String>,
}

/// A bearer token and who its holder is.
#[derive(Clone)]
pub struct Token {
    /// The token itself, without commas.
    pub token: String,
    /// The user's name.
    pub user: String,
    /// The user's groups.
    pub groups: Vec<String>,
}

/// A running API server; it ends when this value is dropped, or when the process ends, in whatever way.
///
/// A test that panics leaves the servers' logs, and prints where.
#[derive(Debug)]
pub struct Cluster {
    binaries: Binaries,
    endpoint: Endpoint,
    pki: Pki,
    kubectl: Kubectl,
    servers: Servers,
}

/// Why there is no cluster, or no answer from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program is not where it should be.
    #[error("no {name} at {path}: run `make assets`")]
    FindBinary {
        /// The program.
        name: &'static str,
        /// Where it was sought.
        path: PathBuf,
    },
    /// A configuration file could not be written, or a log not opened.
    #[error("cannot write {path}")]
    WriteFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No free port.
    #[error("no free port on {address}")]
    PickPort {
        /// Where it was sought.
        address: IpAddr,
        /// Why.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {name}")]
    Spawn {
        /// The program.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A server ended by itself.
    #[error("{name} ended with {status}:\n{log}")]
    ServerEnded {
        /// The server.
        name: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it printed.
        log: String,
    },
    /// A server runs but does not become ready.
    #[error("{name} is not ready after {} s, its log is in {folder}: {why}", START_LIMIT.as_secs())]
    NotReady {
        /// The server.
        name: &'static str,
        /// What it said the last time.
        why: String,
        /// The servers' files and logs, kept.
        folder: PathBuf,
    },
    /// kubectl said no.
    #[error("kubectl {arguments}: {stderr}")]
    Kubectl {
        /// What was asked.
        arguments: String,
        /// What it answered.
        stderr: String,
    },
    /// The cluster that tests in other processes use too cannot be found.
    #[error("cannot share a cluster by {path}")]
    Share {
        /// The lock, or the file with the endpoint.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

// === ClusterConfig, Token ===

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            version: Version::default(),
            address: Ipv4Addr::LOCALHOST,
            controllers: None,
            authorization: "Node,RBAC".to_owned(),
            tokens: Vec::new(),
            egress: None,
            arguments: Vec::new(),
        }
    }
}

impl Token {
    /// A line of kube-apiserver's `--token-auth-file`; the user's id is the name.
    fn line(&self) -> String {
        let Self {
            token,
            user,
            groups,
        } = self;
        format!("{token},{user},{user},\"{}\"\n", groups.join(","))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("token", &"…")
            .field("user", &self.user)
            .field("groups", &self.groups)
            .finish()
    }
}

// === Cluster ===

impl Cluster {
    /// Starts etcd and kube-apiserver and waits until the API server says that it is ready.
    ///
    /// # Errors
    ///
    /// When a program is missing, ends early three times in a row, or is not ready in 90 s.
    ///
    /// # Cancel safety
    ///
    /// A dropped future ends what it has started.
    pub async fn start(config: ClusterConfig) -> Result<Self, Error> {
        Self::start_in(&std::env::temp_dir(), &Owner::ThisProcess, &config).await
    }

    /// The API server, as its administrator.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// The authority that signs its serving certificate and its clients' certificates.
    #[must_use]
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The programs that it runs, and those of its nodes.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// kubectl as the administrator.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Returns the API server's own metrics, as text.
    ///
    /// # Errors
    ///
    /// [`Error::Kubectl`] when it does not answer.
    ///
    /// # Cancel safety
    ///
    /// Nothing is left of a dropped future.
    pub async fn metrics(&self) -> Result<String, Error> {
        self.kubectl.run(&["get", "--raw=/metrics"]).await
    }

    async fn start_in(parent: &Path, owner: &Owner, config: &ClusterConfig) -> Result<Self, Error> {
        let binaries = Binaries::find(config.version)?;
        let mut attempts = 1;
        loop {
            match Self::attempt(parent, owner, config, &binaries).await {
                Err(Error::ServerEnded { .. }) if attempts < START_ATTEMPTS => attempts += 1,
                result => return result,
            }
        }
    }

    async fn attempt(
        parent: &Path,
        owner: &Owner,
        config: &ClusterConfig,
        binaries: &Binaries,
    ) -> Result<Self, Error> {
        let folder = tempfile::Builder::new()
            .prefix("cluster-")
            .tempdir_in(parent);
        let folder = folder.map_err(|source| Error::WriteFile {
            path: parent.to_owned(),
            source,
        })?;
        let [client, peer, secure] = free_ports(config.address)?;
        let pki = Pki::new();
        write_files(folder.path(), &pki, config)?;
        let endpoint = Endpoint {
            url: format!("https://{secure}"),
            ca_pem: pki.ca_pem().to_owned(),
            admin_token: ADMIN_TOKEN.to_owned(),
        };
        let kubectl = Kubectl::new(&endpoint)?;
        let mut servers = Servers::new(folder, owner)?;
        servers.spawn("etcd", &binaries.etcd()?, &arguments::etcd(client, peer))?;
        servers.spawn(
            "kube-apiserver",
            &binaries.kubernetes("kube-apiserver")?,
            &arguments::apiserver(client, secure, config),
        )?;
        if let Some(controllers) = &config.controllers {
            controllers::start(controllers, &mut servers, binaries, &pki, &endpoint.url)?;
        }
        wait_until_ready(&mut servers, &kubectl, config).await?;
        Ok(Self {
            binaries: binaries.clone(),
            endpoint,
            pki,
            kubectl,
            servers,
        })
    }
}

async fn wait_until_ready(
    servers: &mut Servers,
    kubectl: &Kubectl,
    config: &ClusterConfig,
) -> Result<(), Error> {
    // The namespace is made after the server calls itself ready, and tests write into it at once.
    let mut paths = vec!["--raw=/readyz", "--raw=/api/v1/namespaces/default"];
    if config.controllers.is_some() {
        paths.push("--raw=/api/v1/namespaces/default/serviceaccounts/default");
    }
    for path in paths {
        answered(servers, kubectl, "kube-apiserver", path).await?;
    }
    servers.check()
}

/// Waits until the API server answers for a path, by itself or by the server of this name.
async fn answered(
    servers: &mut Servers,
    kubectl: &Kubectl,
    name: &'static str,
    path: &str,
) -> Result<(), Error> {
    let deadline = Instant::now() + START_LIMIT;
    while let Err(error) = kubectl.run(&["get", path]).await {
        servers.check()?;
        if Instant::now() > deadline {
            return Err(Error::NotReady {
                name,
                why: error.to_string(),
                folder: servers.keep_files().to_owned(),
            });
        }
        // kubectl itself takes a tenth of a second of the processor that the server starts on.
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Picks ports that are free now, the last one where the API server listens; all are held until the last is
/// picked, so that they differ.
fn free_ports(address: Ipv4Addr) -> Result<[SocketAddr; 3], Error> {
    let held = [
        pick(Ipv4Addr::LOCALHOST.into())?,
        pick(Ipv4Addr::LOCALHOST.into())?,
        pick(address.into())?,
    ];
    Ok(held.map(|(picked, _listener)| picked))
}

/// Picks a port that is free for as long as the listener is held.
fn pick(address: IpAddr) -> Result<(SocketAddr, TcpListener), Error> {
    let bound = TcpListener::bind((address, 0));
    let bound = bound.and_then(|listener| Ok((listener.local_addr()?, listener)));
    bound.map_err(|source| Error::PickPort { address, source })
}

fn write_files(folder: &Path, pki: &Pki, config: &ClusterConfig) -> Result<(), Error> {
    let address = config.address.to_string();
    let (certificate, key) = pki.server(&[
        "127.0.0.1",
        "localhost",
        &address,
        // As pods know it.
        SERVICE_ADDRESS,
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]);
    let (kubelet_client, kubelet_key) =
        pki.client("kube-apiserver-kubelet-client", &["system:masters"]);
    let service_accounts = pki.service_account_keys();
    let front_proxy = Pki::new();
    let (proxy_client, proxy_key) = front_proxy.client("front-proxy-client", &[]);
    let admin = Token {
        token: ADMIN_TOKEN.to_owned(),
        user: "admin".to_owned(),
        groups: vec!["system:masters".to_owned()],
    };
    let tokens: String = [&admin]
        .into_iter()
        .chain(&config.tokens)
        .map(Token::line)
        .collect();
    for (name, text) in [
        ("ca.pem", pki.ca_pem()),
        ("serving.pem", &certificate),
        ("serving.key", &key),
        ("kubelet-client.pem", &kubelet_client),
        ("kubelet-client.key", &kubelet_key),
        ("front-proxy-ca.pem", front_proxy.ca_pem()),
        ("front-proxy-client.pem", &proxy_client),
        ("front-proxy-client.key", &proxy_key),
        ("service-accounts.pub", &service_accounts.public_pem),
        ("service-accounts.key", &service_accounts.private_pem),
        ("tokens.csv", &tokens),
    ] {
        write(folder.join(name), text)?;
    }
    config
        .egress
        .iter()
        .try_for_each(|egress| egress.write_files(folder, pki))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's files need not survive a crash"
)]
fn write(path: PathBuf, text: &str) -> Result<(), Error> {
    fs::write(&path, text).map_err(|source| Error::WriteFile { path, source })
}
