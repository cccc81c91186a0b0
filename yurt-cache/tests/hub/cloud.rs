//! A cloud that says what a case makes it say.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use testbed::pki::Pki;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use yurt_cache::hub::Config;

use super::site::Site;

/// Streams on a connection.
const STREAMS: u32 = 200;

/// A request as the cloud got it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// How many of this path, list or watch, were there before.
    pub(crate) before: usize,
}

impl Asked {
    pub(crate) fn is_watch(&self) -> bool {
        self.query.contains("watch=1")
    }

    /// Returns whether it is what the hub asks to learn the cloud's revision.
    pub(crate) fn is_barrier(&self) -> bool {
        self.query.contains("limit=1&") || self.query.ends_with("limit=1") || self.is_proof()
    }

    /// Returns whether it is what the hub asks to prove that a mirror has caught up.
    pub(crate) fn is_proof(&self) -> bool {
        let accept = self.headers.get("accept").map(|accept| accept.as_bytes());
        accept.is_some_and(|accept| accept.starts_with(b"application/json;as=Partial"))
            && !self.is_revision()
    }

    /// Returns whether it is what the hub asks to learn where the cloud is.
    pub(crate) fn is_revision(&self) -> bool {
        self.query.contains("limit=1&") || self.query.ends_with("limit=1")
    }
}

/// What the cloud says.
pub(crate) struct Say {
    code: u16,
    headers: Vec<(&'static str, &'static str)>,
    chunks: Vec<Bytes>,
    end: End,
}

/// How a body ends.
pub(crate) enum End {
    Well,
    /// The stream is reset.
    Broken,
    /// The stream is reset when the channel says true.
    BrokenThen(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// Nothing more comes.
    Silent,
    /// These bytes come when the channel says true, and then it ends.
    Then(Pin<Box<dyn Future<Output = Bytes> + Send>>),
    /// It goes on for ever.
    Endless(Box<dyn FnMut() -> Bytes + Send>),
}

impl Say {
    pub(crate) fn json(code: u16, text: impl Into<Bytes>) -> Self {
        Self {
            code,
            headers: vec![("content-type", "application/json")],
            chunks: vec![text.into()],
            end: End::Well,
        }
    }

    /// What no API server says.
    pub(crate) fn text(code: u16, text: &'static str) -> Self {
        Self {
            headers: vec![("content-type", "text/html")],
            ..Self::json(code, text)
        }
    }

    pub(crate) fn ending(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// Goes on with these bytes when the channel says true, and then ends.
    pub(crate) fn then(self, mut when: watch::Receiver<bool>, text: impl Into<Bytes>) -> Self {
        let text = text.into();
        self.ending(End::Then(Box::pin(async move {
            let _said = when.wait_for(|now| *now).await;
            text
        })))
    }

    /// Breaks when the channel says true.
    pub(crate) fn breaking(self, mut when: watch::Receiver<bool>) -> Self {
        self.ending(End::BrokenThen(Box::pin(async move {
            let _said = when.wait_for(|now| *now).await;
        })))
    }

    pub(crate) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// An empty watch that stays open.
    pub(crate) fn silence() -> Self {
        Self::json(200, "").ending(End::Silent)
    }

    /// A list of ConfigMaps, each a name and a revision.
    pub(crate) fn list(revision: u64, items: &[(&str, u64)]) -> Self {
        Self::json(200, list(revision, items))
    }

    /// A watch of these lines that stays open.
    pub(crate) fn lines(lines: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        let mut watch = Self::silence();
        watch.chunks = lines.into_iter().map(Into::into).collect();
        watch
    }
}

/// The text of a list of ConfigMaps.
pub(crate) fn list(revision: u64, items: &[(&str, u64)]) -> String {
    let items: Vec<String> = items
        .iter()
        .map(|(name, revision)| bare(name, *revision))
        .collect();
    format!(
        r#"{{"kind":"ConfigMapList","apiVersion":"v1","metadata":{{"resourceVersion":"{revision}"}},"items":[{}]}}"#,
        items.join(",")
    )
}

fn bare(name: &str, revision: u64) -> String {
    format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"default","resourceVersion":"{revision}"}},"data":{{"k":"{revision}"}}}}"#
    )
}

/// The line of an event about a ConfigMap.
pub(crate) fn event(kind: &str, name: &str, revision: u64) -> String {
    let object = bare(name, revision).replacen('{', r#"{"kind":"ConfigMap","apiVersion":"v1","#, 1);
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

type Answer = dyn Fn(&Asked) -> Say + Send + Sync;

/// What is said to an access review, after so many others.
type Review = dyn Fn(usize) -> Say + Send + Sync;

/// A cloud that is a function.
pub(crate) struct Cloud {
    pub(crate) addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _serving: JoinSet<()>,
}

impl Cloud {
    /// Starts it; readiness and access reviews it answers by itself, with yes.
    pub(crate) async fn start(
        pki: &Pki,
        answer: impl Fn(&Asked) -> Say + Send + Sync + 'static,
    ) -> Self {
        let yes = |_| Say::json(201, r#"{"status":{"allowed":true}}"#);
        Self::listening(pki, STREAMS, yes, answer).await
    }

    /// Starts it; it allows so many streams on a connection.
    async fn listening(
        pki: &Pki,
        streams: u32,
        review: impl Fn(usize) -> Say + Send + Sync + 'static,
        answer: impl Fn(&Asked) -> Say + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut serving = JoinSet::new();
        serving.spawn(accept(
            listener,
            (acceptor(pki), streams),
            asked.clone(),
            Arc::new(answer),
            Arc::new(review),
        ));
        Self {
            addr,
            asked,
            _serving: serving,
        }
    }

    /// Starts it with a hub in front.
    pub(crate) async fn with_hub(
        answer: impl Fn(&Asked) -> Say + Send + Sync + 'static,
    ) -> (Self, Site) {
        Self::with_adjusted_hub(|_| {}, answer).await
    }

    /// Starts it with a hub in front; access reviews are answered as the case says.
    pub(crate) async fn with_reviews(
        review: impl Fn(usize) -> Say + Send + Sync + 'static,
        answer: impl Fn(&Asked) -> Say + Send + Sync + 'static,
    ) -> (Self, Site) {
        let pki = Arc::new(Pki::new());
        let cloud = Self::listening(&pki, STREAMS, review, answer).await;
        let mut site = Site::new(pki, vec![cloud.addr]);
        site.start();
        site.sees_the_cloud(true).await;
        (cloud, site)
    }

    /// Starts it with a hub in front whose configuration is changed.
    pub(crate) async fn with_adjusted_hub(
        adjust: impl Fn(&mut Config) + Send + Sync + 'static,
        answer: impl Fn(&Asked) -> Say + Send + Sync + 'static,
    ) -> (Self, Site) {
        Self::with_streams(STREAMS, adjust, answer).await
    }

    /// The same, and it allows so many streams on a connection.
    pub(crate) async fn with_streams(
        streams: u32,
        adjust: impl Fn(&mut Config) + Send + Sync + 'static,
        answer: impl Fn(&Asked) -> Say + Send + Sync + 'static,
    ) -> (Self, Site) {
        let pki = Arc::new(Pki::new());
        let yes = |_| Say::json(201, r#"{"status":{"allowed":true}}"#);
        let cloud = Self::listening(&pki, streams, yes, answer).await;
        let mut site = Site::new(pki, vec![cloud.addr]);
        site.adjust(adjust);
        site.start();
        site.sees_the_cloud(true).await;
        (cloud, site)
    }

    /// Returns the requests for resources so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    /// Counts the watches, or the lists of objects, of a path.
    pub(crate) fn count(&self, path: &str, is_watch: bool) -> usize {
        let asked = self.asked.lock();
        asked
            .iter()
            .filter(|one| !one.is_barrier())
            .filter(|one| one.path == path && one.is_watch() == is_watch)
            .count()
    }
}

fn acceptor(pki: &Pki) -> TlsAcceptor {
    let (certificate, key) = pki.server(&["127.0.0.1"]);
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(
    listener: TcpListener,
    (tls, streams): (TlsAcceptor, u32),
    asked: Arc<Mutex<Vec<Asked>>>,
    answer: Arc<Answer>,
    review: Arc<Review>,
) {
    let reviews = Arc::new(AtomicUsize::new(0));
    let review = Arc::new(move || review(reviews.fetch_add(1, Ordering::Relaxed)));
    let counts = Arc::new(Mutex::new(HashMap::new()));
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, asked, answer, counts) =
            (tls.clone(), asked.clone(), answer.clone(), counts.clone());
        let review = review.clone();
        connections.spawn(async move {
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let service = service_fn(|request| {
                let (asked, answer, counts) = (asked.clone(), answer.clone(), counts.clone());
                let review = review.clone();
                async move {
                    let said = respond(request, &asked, &counts, (&*answer, &*review)).await;
                    Ok::<_, Infallible>(said)
                }
            });
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http2().max_concurrent_streams(streams);
            let _ended = builder
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    asked: &Mutex<Vec<Asked>>,
    counts: &Mutex<HashMap<(String, bool), usize>>,
    (answer, review): (&Answer, &(dyn Fn() -> Say + Send + Sync)),
) -> Response<Saying> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let said = if path == "/readyz" {
        Say::json(200, "ok")
    } else if path.starts_with("/.well-known/") {
        // It has no keys of service accounts to show.
        Say::json(404, "{}")
    } else if path.ends_with("selfsubjectaccessreviews") {
        review()
    } else {
        let body = body.collect().await.map(|body| body.to_bytes());
        let mut one = Asked {
            method: parts.method,
            path,
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body: body.unwrap_or_default(),
            before: 0,
        };
        if !one.is_barrier() {
            let mut counts = counts.lock();
            let count = counts
                .entry((one.path.clone(), one.is_watch()))
                .or_default();
            one.before = *count;
            *count += 1;
        }
        let said = answer(&one);
        asked.lock().push(one);
        said
    };
    let mut response = Response::builder().status(said.code);
    for (name, value) in &said.headers {
        response = response.header(*name, *value);
    }
    let saying = Saying {
        chunks: said.chunks.into(),
        end: said.end,
    };
    response.body(saying).unwrap()
}

/// A body that is being said.
pub(crate) struct Saying {
    chunks: std::collections::VecDeque<Bytes>,
    end: End,
}

impl http_body::Body for Saying {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if let Some(chunk) = self.chunks.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match &mut self.end {
            End::Well => Poll::Ready(None),
            End::Broken => Poll::Ready(Some(Err(std::io::Error::other("broken on purpose")))),
            End::BrokenThen(later) => {
                std::task::ready!(later.as_mut().poll(cx));
                Poll::Ready(Some(Err(std::io::Error::other("broken on purpose"))))
            }
            End::Silent => Poll::Pending,
            End::Then(later) => {
                let chunk = std::task::ready!(later.as_mut().poll(cx));
                self.end = End::Well;
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            End::Endless(more) => Poll::Ready(Some(Ok(Frame::data(more())))),
        }
    }
}
