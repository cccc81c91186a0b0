//! From an address of this machine to a real API server, by TLS on both sides.
//!
//! A hub checks that the certificate of its API server is for the host that it was told. A link to cut
//! stands at 127.0.0.1, for which few clusters' certificates are. So the link leads to a bridge, which has
//! a certificate for 127.0.0.1, and the bridge checks the cluster's own name against the cluster's own CA.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use testbed::pki::Pki;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// How long either side may take to connect.
const PATIENCE: Duration = Duration::from_secs(10);

/// A real API server, and how it proves that it is the one.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The name that its certificate must have.
    pub(crate) name: ServerName<'static>,
    /// The CA that must have signed it, PEM.
    pub(crate) ca_pem: String,
}

/// A client certificate with its key, PEM.
#[derive(Clone)]
pub(crate) struct Certificate {
    pub(crate) chain_pem: String,
    pub(crate) key_pem: String,
}

/// A running bridge; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Bridge {
    address: SocketAddr,
    pki: Pki,
    way: Arc<Way>,
    /// Owns the task that accepts, which owns those of the connections.
    _tasks: JoinSet<()>,
}

struct Way {
    server: Server,
    inward: Arc<ServerConfig>,
    outward: ClientConfig,
}

/// Why there is no bridge.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// No port on this machine.
    #[error("listen on 127.0.0.1")]
    Listen(#[source] io::Error),
    /// The CA is none.
    #[error("read the cluster's CA")]
    Authority(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The client certificate or its key is none.
    #[error("read the client certificate and its key")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nobody there.
    #[error("connect to {0}")]
    Connect(String, #[source] io::Error),
    /// Not who it should be.
    #[error("agree on TLS with {0}")]
    Handshake(String, #[source] io::Error),
}

// === Bridge ===

impl Bridge {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// With a certificate the server sees whoever comes as its owner; so nobody comes without [`Bridge::key`].
    pub(crate) fn start(server: &Server, certificate: Option<&Certificate>) -> Result<Self, Error> {
        let pki = Pki::new();
        let way = Arc::new(Way {
            server: server.clone(),
            inward: Arc::new(inward(&pki, certificate.is_some())?),
            outward: outward(&server.ca_pem, certificate)?,
        });
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(Error::Listen)?;
        listener.set_nonblocking(true).map_err(Error::Listen)?;
        let listener = TcpListener::from_std(listener).map_err(Error::Listen)?;
        let address = listener.local_addr().map_err(Error::Listen)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, way.clone()));
        Ok(Self {
            address,
            pki,
            way,
            _tasks: tasks,
        })
    }

    /// Where it is reached.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The CA of its certificate.
    pub(crate) fn ca_pem(&self) -> &str {
        self.pki.ca_pem()
    }

    /// A client certificate and its key, PEM, with which a guarded bridge is entered.
    pub(crate) fn key(&self) -> (String, String) {
        self.pki.client("quickstart", &[])
    }

    /// Finds out whether the other end is there and is who it should be.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        self.way.dial(&[b"h2".to_vec()]).await.map(drop)
    }
}

async fn accept(listener: TcpListener, way: Arc<Way>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let way = way.clone();
                    connections.spawn(async move {
                        if let Err(error) = way.carry(stream).await {
                            tracing::debug!(%error, "bridge");
                        }
                    });
                }
                Err(error) => tracing::debug!(%error, "bridge"),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Way {
    async fn carry(&self, stream: TcpStream) -> Result<(), Error> {
        let told = || "the client".to_owned();
        stream
            .set_nodelay(true)
            .map_err(|error| Error::Connect(told(), error))?;
        let accepting = TlsAcceptor::from(self.inward.clone()).accept(stream);
        let mut near = within(accepting)
            .await
            .map_err(|error| Error::Handshake(told(), error))?;
        let protocol = near.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let mut far = self.dial(protocol.as_slice()).await?;
        // A connection that breaks off is the client's and the server's affair.
        let _carried = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        Ok(())
    }

    async fn dial(&self, protocols: &[Vec<u8>]) -> Result<TlsStream<TcpStream>, Error> {
        let Server { host, port, .. } = &self.server;
        let told = || format!("{host}:{port}");
        let connect = |error| Error::Connect(told(), error);
        let stream = within(TcpStream::connect((host.as_str(), *port)))
            .await
            .map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        let mut config = self.outward.clone();
        config.alpn_protocols = protocols.to_vec();
        let connecting =
            TlsConnector::from(Arc::new(config)).connect(self.server.name.clone(), stream);
        within(connecting)
            .await
            .map_err(|error| Error::Handshake(told(), error))
    }
}

async fn within<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, future).await.map_err(io::Error::from)?
}

fn inward(pki: &Pki, is_guarded: bool) -> Result<ServerConfig, Error> {
    let (certificate, key) = pki.server(&["127.0.0.1"]);
    let (chain, key) = read(&certificate, &key)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Certificate(error.into()))?;
    let builder = if is_guarded {
        let roots = Arc::new(roots(pki.ca_pem())?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
        builder
            .with_client_cert_verifier(verifier.map_err(|error| Error::Certificate(error.into()))?)
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| Error::Certificate(error.into()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(ca_pem: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        let authority = authority.map_err(|error| Error::Authority(error.into()))?;
        roots
            .add(authority)
            .map_err(|error| Error::Authority(error.into()))?;
    }
    if roots.is_empty() {
        return Err(Error::Authority("there is no certificate in it".into()));
    }
    Ok(roots)
}

fn outward(ca_pem: &str, certificate: Option<&Certificate>) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Authority(error.into()))?
        .with_root_certificates(roots(ca_pem)?);
    let Some(Certificate { chain_pem, key_pem }) = certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let (chain, key) = read(chain_pem, key_pem)?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| Error::Certificate(error.into()))
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read(chain_pem: &str, key_pem: &str) -> Result<Pair, Error> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect();
    let chain = chain.map_err(|error| Error::Certificate(error.into()))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes());
    Ok((
        chain,
        key.map_err(|error| Error::Certificate(error.into()))?,
    ))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Way")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificate(…)")
    }
}
