//! A real cluster with many ConfigMaps, a link, and the hub's release binary in front of it.

use std::fmt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use testbed::cluster::{Cluster, ClusterConfig};
use testbed::link::Link;
use tokio::net::TcpListener;

use crate::client::{Connection, Shared};

/// Whatever went wrong: a bench has nobody to handle it.
pub(crate) struct Fault(String);

impl Fault {
    pub(crate) fn new(cause: impl fmt::Display) -> Self {
        Self(cause.to_string())
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that a figure needs.
pub(crate) struct Setup {
    pub(crate) cluster: Cluster,
    pub(crate) link: Link,
    hub: Mutex<Child>,
    dir: tempfile::TempDir,
    ports: [u16; 2],
}

/// The hub's memory in bytes.
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// What of it is not the program's file.
    anonymous: u64,
    peak: u64,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} MB ({:.1} anonymous), peak {:.1}",
            super::mega(self.resident),
            super::mega(self.anonymous),
            super::mega(self.peak)
        )
    }
}

/// How a client reaches the hub, wherever it runs.
#[derive(Clone)]
pub(crate) struct Way {
    url: String,
    tls: Arc<rustls::ClientConfig>,
    token: String,
}

impl Way {
    pub(crate) async fn open(&self) -> Result<Connection, Fault> {
        Connection::open(&self.url, self.tls.clone(), &self.token).await
    }

    /// Opens a connection that carries many watches.
    pub(crate) async fn open_shared(&self) -> Result<Shared, Fault> {
        Shared::open(&self.url, &self.tls, &self.token).await
    }
}

impl Setup {
    /// Starts all of it and fills the namespace `load`.
    pub(crate) async fn start(objects: usize) -> Result<Self, Fault> {
        let cluster = Cluster::start(ClusterConfig::default())
            .await
            .map_err(Fault::new)?;
        let address = cluster
            .endpoint()
            .url
            .trim_start_matches("https://")
            .parse()
            .map_err(Fault::new)?;
        let link = Link::start(address).map_err(Fault::new)?;
        let dir = tempfile::tempdir().map_err(Fault::new)?;
        let ports = [free_port().await?, free_port().await?];
        let hub = spawn(&cluster, &link, &dir, ports, &WIDE)?;
        let setup = Self {
            cluster,
            link,
            hub: Mutex::new(hub),
            dir,
            ports,
        };
        setup.fill("load", objects).await?;
        setup.ready().await?;
        Ok(setup)
    }

    /// Connects to the hub.
    pub(crate) async fn hub(&self) -> Result<Connection, Fault> {
        self.way()?.open().await
    }

    /// Returns all that a client of the hub needs.
    pub(crate) fn way(&self) -> Result<Way, Fault> {
        let ca = self.dir.path().join("hub-ca.pem");
        let ca = std::fs::read_to_string(ca).map_err(Fault::new)?;
        Ok(Way {
            url: format!("https://127.0.0.1:{}", self.ports[0]),
            tls: tls(&ca)?,
            token: self.cluster.endpoint().admin_token,
        })
    }

    /// Connects to the hub as the node itself.
    pub(crate) async fn node(&self) -> Result<Connection, Fault> {
        let read = |name: &str| std::fs::read_to_string(self.dir.path().join(name));
        let certificate = read("node.pem").map_err(Fault::new)?;
        let key = read("node.key").map_err(Fault::new)?;
        let tls = tls_of(
            &read("hub-ca.pem").map_err(Fault::new)?,
            Some((&certificate, &key)),
        )?;
        let url = format!("https://127.0.0.1:{}", self.ports[0]);
        Connection::open(&url, tls, "").await
    }

    /// Connects to the API server.
    pub(crate) async fn cloud(&self) -> Result<Connection, Fault> {
        let endpoint = self.cluster.endpoint();
        Connection::open(&endpoint.url, tls(&endpoint.ca_pem)?, &endpoint.admin_token).await
    }

    /// Bytes that came over the link.
    pub(crate) fn link_bytes(&self) -> u64 {
        self.link.bytes_down()
    }

    pub(crate) fn binary_bytes(&self) -> Result<u64, Fault> {
        Ok(std::fs::metadata(binary()).map_err(Fault::new)?.len())
    }

    pub(crate) fn memory(&self) -> Result<Memory, Fault> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.hub.lock().id()))
            .map_err(Fault::new)?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes =
                line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kilobytes
                .map(|kilobytes| kilobytes * 1_024)
                .ok_or_else(|| Fault::new(format!("no {name} in /proc")))
        };
        Ok(Memory {
            resident: field("VmRSS:")?,
            anonymous: field("RssAnon:")?,
            peak: field("VmHWM:")?,
        })
    }

    /// The time on a processor of all the hub's threads.
    pub(crate) fn processor_time(&self) -> Result<Duration, Fault> {
        let tasks = format!("/proc/{}/task", self.hub.lock().id());
        let mut nanoseconds = 0;
        for task in std::fs::read_dir(tasks).map_err(Fault::new)? {
            let path = task.map_err(Fault::new)?.path().join("schedstat");
            let text = std::fs::read_to_string(path).map_err(Fault::new)?;
            let first = text.split(' ').next().map(str::parse::<u64>);
            nanoseconds += first.and_then(Result::ok).unwrap_or_default();
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Kills the hub and starts it again on the same store.
    pub(crate) async fn restart(&self) -> Result<(), Fault> {
        self.start_again()?;
        self.ready().await
    }

    /// The same, and does not wait until it is ready.
    pub(crate) fn start_again(&self) -> Result<(), Fault> {
        self.end_hub();
        *self.hub.lock() = spawn(&self.cluster, &self.link, &self.dir, self.ports, &WIDE)?;
        Ok(())
    }

    /// The same with the limits that users have.
    pub(crate) async fn restart_bounded(&self) -> Result<(), Fault> {
        self.end_hub();
        *self.hub.lock() = spawn(&self.cluster, &self.link, &self.dir, self.ports, &[])?;
        self.ready().await
    }

    /// Returns one of the hub's own metrics, summed over its labels.
    pub(crate) async fn metric(&self, name: &str) -> Result<f64, Fault> {
        let text = self.admin("/metrics").await?;
        let values = text
            .lines()
            .filter(|line| line.starts_with(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(values.sum())
    }

    /// Creates a small ConfigMap in the cloud.
    pub(crate) async fn create(&self, namespace: &str, name: &str) -> Result<(), Fault> {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        self.cloud()
            .await?
            .put("POST", &path, config_map(name, 0))
            .await
    }

    /// Makes a namespace with so many ConfigMaps.
    pub(crate) async fn fill(&self, namespace: &str, objects: usize) -> Result<(), Fault> {
        let object = format!("{{\"metadata\":{{\"name\":\"{namespace}\"}}}}");
        let mut cloud = self.cloud().await?;
        cloud.put("POST", "/api/v1/namespaces", object).await?;
        let path = &format!("/api/v1/namespaces/{namespace}/configmaps");
        let parts = (0..8).map(|part| async move {
            let mut cloud = self.cloud().await?;
            for at in (part..objects).step_by(8) {
                let object = config_map(&format!("cm-{at:05}"), at);
                cloud.put("POST", path, object).await?;
            }
            Ok(())
        });
        futures_util::future::join_all(parts)
            .await
            .into_iter()
            .collect()
    }

    async fn ready(&self) -> Result<(), Fault> {
        for _ in 0..200 {
            if self
                .admin("/readyz")
                .await
                .is_ok_and(|text| text.ends_with("\nready\n"))
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(Fault::new("the hub is not ready"))
    }

    async fn admin(&self, path: &str) -> Result<String, Fault> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.ports[1]))
            .await
            .map_err(Fault::new)?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .map_err(Fault::new)?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.map_err(Fault::new)?;
        Ok(text)
    }

    fn end_hub(&self) {
        let mut hub = self.hub.lock();
        // It may have ended by itself; then there is nothing to kill.
        let _killed = hub.kill();
        let _reaped = hub.wait();
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.end_hub();
    }
}

/// An object of about 1.3 kB as the server returns it; ten have one label `tens`.
pub(crate) fn config_map(name: &str, number: usize) -> String {
    let value: String = std::iter::repeat_with(fastrand::alphanumeric)
        .take(850)
        .collect();
    let tens = number / 10;
    format!(
        "{{\"metadata\":{{\"name\":\"{name}\",\"labels\":{{\"app\":\"load\",\"tens\":\"{tens}\"}}}},\"data\":{{\"key\":\"{value}\"}}}}"
    )
}

fn binary() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    target.join("release/yurthub")
}

/// All clients of the figures are one caller, and none of them is refused.
const WIDE: [&str; 4] = [
    "--caller-connections=100000",
    "--caller-requests=100000",
    "--caller-watches=100000",
    "--caller-rate=1000000",
];

fn spawn(
    cluster: &Cluster,
    link: &Link,
    dir: &tempfile::TempDir,
    ports: [u16; 2],
    limits: &[&str],
) -> Result<Child, Fault> {
    let (certificate, key) = cluster.pki().client("system:node:bench", &["system:nodes"]);
    let files = [
        ("ca.pem", &cluster.endpoint().ca_pem),
        ("node.pem", &certificate),
        ("node.key", &key),
    ];
    for (name, text) in files {
        #[expect(
            clippy::disallowed_methods,
            reason = "a bench's own files need no crash safety"
        )]
        std::fs::write(dir.path().join(name), text).map_err(Fault::new)?;
    }
    let path = |name: &str| dir.path().join(name);
    Command::new(binary())
        .arg("--node-name=bench")
        .arg(format!("--server=https://{}", link.addr()))
        .args([
            format!("--listen=127.0.0.1:{}", ports[0]),
            format!("--admin-listen=127.0.0.1:{}", ports[1]),
        ])
        .arg("--ca-file")
        .arg(path("ca.pem"))
        .arg("--client-certificate")
        .arg(path("node.pem"))
        .arg("--client-key")
        .arg(path("node.key"))
        .arg("--data-dir")
        .arg(dir.path())
        .arg("--log=warn")
        .args(limits)
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| {
            Fault::new(format!(
                "start {}: {error}; build it first: cargo build --release -p yurthub",
                binary().display()
            ))
        })
}

async fn free_port() -> Result<u16, Fault> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(Fault::new)?;
    Ok(listener.local_addr().map_err(Fault::new)?.port())
}

fn tls(ca_pem: &str) -> Result<Arc<rustls::ClientConfig>, Fault> {
    tls_of(ca_pem, None)
}

fn tls_of(
    ca_pem: &str,
    identity: Option<(&str, &str)>,
) -> Result<Arc<rustls::ClientConfig>, Fault> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(Fault::new)?)
        .map_err(Fault::new)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Fault::new)?;
    let config = config.with_root_certificates(roots);
    let config = match identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate =
                CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(Fault::new)?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(Fault::new)?;
            config
                .with_client_auth_cert(vec![certificate], key)
                .map_err(Fault::new)?
        }
    };
    Ok(Arc::new(config))
}
