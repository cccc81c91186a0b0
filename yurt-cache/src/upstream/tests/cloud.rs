//! A certificate authority and an API server in the test's own process.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use yurt_core::credentials::Identity;

use crate::body::{self, Body, BoxError};
use crate::tls;

/// A name of every server, which no resolver knows.
pub(super) const API_NAME: &str = "api.invalid";

// === Authority ===

/// Signs for the servers and the clients of one test, whose files lie in `dir`.
pub(super) struct Authority {
    pub(super) dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "the cloud");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let authority = Self {
            dir: TempDir::new().unwrap(),
            issuer: Issuer::new(params, key),
        };
        authority.write("ca.pem", &certificate.pem());
        authority
    }

    pub(super) fn path(&self, file: &str) -> std::path::PathBuf {
        self.dir.path().join(file)
    }

    #[expect(clippy::disallowed_methods, reason = "a test's files need no crash")]
    pub(super) fn write(&self, file: &str, content: &str) {
        std::fs::write(self.path(file), content).unwrap();
    }

    /// Leaves `<file>.pem` and `<file>.key`.
    pub(super) fn issue(&self, file: &str, name: &str) {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(["127.0.0.1", API_NAME].map(str::to_owned)).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.write(&format!("{file}.pem"), &certificate.pem());
        self.write(&format!("{file}.key"), &key.serialize_pem());
    }
}

// === ApiServer ===

pub(super) struct ApiServer {
    pub(super) addr: SocketAddr,
    pub(super) seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

/// What the server did and does.
pub(super) struct Seen {
    pub(super) connections: AtomicUsize,
    pub(super) requests: AtomicUsize,
    pub(super) readyz: AtomicU16,
    /// Tells every connection to take no new requests.
    pub(super) goaway: Notify,
    /// A request without a certificate ends its connection in order, unless it is a watch.
    pub(super) ends_anonymous: AtomicBool,
    streams: u32,
}

impl ApiServer {
    pub(super) async fn start(authority: &Authority) -> Self {
        Self::with_streams(authority, 100).await
    }

    pub(super) async fn without_alpn(authority: &Authority) -> Self {
        Self::serve(authority, 100, |config| config.alpn_protocols.clear()).await
    }

    /// Chooses HTTP/1.1 and nothing else.
    pub(super) async fn of_http1(authority: &Authority) -> Self {
        Self::serve(authority, 100, |config| {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        })
        .await
    }

    /// `streams` is what it allows on a connection.
    pub(super) async fn with_streams(authority: &Authority, streams: u32) -> Self {
        Self::serve(authority, streams, |_| {}).await
    }

    async fn serve(
        authority: &Authority,
        streams: u32,
        change: impl FnOnce(&mut rustls::ServerConfig),
    ) -> Self {
        authority.issue("server", "api");
        let identity =
            Identity::read(&authority.path("server.pem"), &authority.path("server.key")).unwrap();
        let presented = Arc::new(tls::Presented::new(&identity).unwrap());
        let mut config = tls::server_config(presented).unwrap();
        change(&mut config);
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen {
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            readyz: AtomicU16::new(200),
            goaway: Notify::new(),
            ends_anonymous: AtomicBool::new(false),
            streams,
        });
        let mut tasks = JoinSet::new();
        let shared = seen.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let socket = listener.accept().await.unwrap().0;
                let acceptor = TlsAcceptor::from(config.clone());
                connections.spawn(serve(socket, acceptor, shared.clone()));
            }
        });
        Self {
            addr,
            seen,
            _tasks: tasks,
        }
    }
}

async fn serve(socket: TcpStream, acceptor: TlsAcceptor, seen: Arc<Seen>) {
    socket.set_nodelay(true).unwrap();
    let Ok(stream) = acceptor.accept(socket).await else {
        return;
    };
    seen.connections.fetch_add(1, Ordering::Relaxed);
    let session = stream.get_ref().1;
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let caller = session
        .peer_certificates()
        .map_or("nobody".into(), |certificates| {
            let certificate = x509_parser::parse_x509_certificate(&certificates[0])
                .unwrap()
                .1;
            let mut names = certificate.subject().iter_common_name();
            names.next().unwrap().as_str().unwrap().to_owned()
        });
    let shared = seen.clone();
    let own_end = Arc::new(Notify::new());
    let end = own_end.clone();
    let service =
        service_fn(move |request| answer(request, (shared.clone(), end.clone()), caller.clone()));
    let io = TokioIo::new(stream);
    if !is_http2 {
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
        let _ = connection.with_upgrades().await;
        return;
    }
    let mut connection = std::pin::pin!(
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(seen.streams)
            .serve_connection(io, service)
    );
    tokio::select! {
        _ = connection.as_mut() => {}
        () = async { tokio::select! { () = seen.goaway.notified() => {} () = own_end.notified() => {} } } => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn answer(
    mut request: Request<Incoming>,
    (seen, end): (Arc<Seen>, Arc<Notify>),
    caller: String,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    if caller == "nobody" && path != "/watch" && seen.ends_anonymous.load(Ordering::Relaxed) {
        end.notify_one();
    }
    if path == "/readyz" {
        let status = StatusCode::from_u16(seen.readyz.load(Ordering::Relaxed)).unwrap();
        return Ok(Response::builder()
            .status(status)
            .body(body::empty())
            .unwrap());
    }
    seen.requests.fetch_add(1, Ordering::Relaxed);
    Ok(match path.as_str() {
        "/whoami" => Response::new(body::full(caller)),
        "/host" => {
            let authority = request.uri().authority().map(ToString::to_string);
            let host = request.headers().get("host");
            let host = host.map(|host| host.to_str().unwrap().to_owned());
            Response::new(body::full(format!(
                "{} and {}",
                authority.unwrap_or("nobody".into()),
                host.unwrap_or("no header".into()),
            )))
        }
        "/echo" => Response::new(body::incoming(request.into_body())),
        "/watch" => Response::new(endless()),
        "/silence" => std::future::pending().await,
        "/upgrade" => {
            let upgrade = hyper::upgrade::on(&mut request);
            let mut session = JoinSet::new();
            session.spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.unwrap());
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                stream.write_all(&all).await.unwrap();
                stream.shutdown().await.unwrap();
            });
            session.detach_all();
            Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "upgrade")
                .header("upgrade", "echo")
                .body(body::empty())
                .unwrap()
        }
        _ => Response::builder()
            .status(StatusCode::NOT_FOUND)
            .body(body::full("no such path"))
            .unwrap(),
    })
}

/// One event, then nothing for ever.
fn endless() -> Body {
    struct Endless(Option<Bytes>);
    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
            match self.0.take() {
                Some(bytes) => std::task::Poll::Ready(Some(Ok(http_body::Frame::data(bytes)))),
                None => std::task::Poll::Pending,
            }
        }
    }
    Endless(Some(Bytes::from_static(b"event\n"))).boxed_unsync()
}
