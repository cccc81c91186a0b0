//! Health and metrics, for the node's own people.

use std::convert::Infallible;
use std::fmt::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use yurt_core::store::Store;

use super::autonomy::Autonomy;
use crate::api::{elapsed, human};
use crate::autonomy::Outcome;
use crate::body::{self, Body};
use crate::follow::registry::Registry;
use crate::limits::{Connections, Limits};
use crate::metrics::Metrics;
use crate::tasks::Tasks;
use crate::upstream::{Reach, Upstream};

/// Connections at a time: probes and a scraper or two.
const CONNECTIONS: usize = 32;

/// What is told about.
#[derive(Debug)]
pub(super) struct Admin {
    pub(super) registry: Arc<Registry>,
    pub(super) upstream: Upstream,
    pub(super) store: Arc<dyn Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) autonomy: Arc<Autonomy>,
}

/// Serves until `stop`.
pub(super) async fn serve(
    listener: TcpListener,
    admin: Arc<Admin>,
    tasks: Tasks,
    stop: CancellationToken,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin listener cannot be used"),
    };
    // Nobody says who it is here: all connections are anonymous, of which the oldest makes room.
    let connections = Connections::new(Limits {
        anonymous_connections: CONNECTIONS,
        ..Limits::default()
    });
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: let some connections end first.
                tracing::warn!(%error, "an admin client cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (admin, stop) = (admin.clone(), stop.child_token());
        let (entry, _) = connections.enter(address.ip(), stop.clone());
        tasks.spawn(async move {
            let _entry = entry;
            let service = service_fn(|request| {
                let admin = admin.clone();
                async move { Ok::<_, Infallible>(admin.answer(&request).await) }
            });
            let mut builder = http1::Builder::new();
            let connection = builder
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10));
            let connection = connection.serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = stop.cancelled() => {}
                // A client that breaks off is its own affair.
                _ended = connection => {}
            }
        });
    }
}

impl Admin {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let mut query = request.uri().query().unwrap_or_default().split('&');
        let is_about_autonomy = query.any(|one| one.split('=').next() == Some("autonomy"));
        match request.uri().path() {
            "/readyz" if is_about_autonomy => self.autonomy().await,
            "/healthz" | "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => self.readyz(),
            "/metrics" => {
                let mut response = text(StatusCode::OK, self.metrics.text());
                let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response
                    .headers_mut()
                    .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
                response
            }
            path => text(
                StatusCode::NOT_FOUND,
                format!(
                    "{path} is not served here: /healthz, /readyz, /readyz?autonomy, /metrics\n"
                ),
            ),
        }
    }

    /// Would this node survive a reboot now, without the cloud? With the code of kube-apiserver's checks.
    async fn autonomy(&self) -> Response<Body> {
        let report = self.autonomy.look().await;
        let code = match report.outcome() {
            Outcome::Holds => StatusCode::OK,
            Outcome::Fails | Outcome::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        };
        text(code, report.to_string())
    }

    /// Ready means: a client that asks now gets an answer, from the cloud or from here.
    fn readyz(&self) -> Response<Body> {
        let mirrors = self.registry.all();
        let synced = mirrors.iter().filter(|mirror| mirror.is_synced()).count();
        let reach = *self.upstream.reach().borrow();
        let (is_ready, cloud) = match reach {
            Reach::Online => (true, "[+] cloud reachable".to_owned()),
            Reach::Unknown => (false, "[-] cloud not asked yet".to_owned()),
            Reach::CutOff { since } => {
                let ago = human(elapsed(since, jiff::Timestamp::now()));
                let mark = if synced > 0 { '+' } else { '-' };
                (
                    synced > 0,
                    format!(
                        "[{mark}] cloud not reachable for {ago}, answering from {synced} mirrors"
                    ),
                )
            }
        };
        let health = self.store.health();
        let mut report = cloud;
        let _written = write!(
            report,
            "\n[+] mirrors: {synced} synced of {}\n[+] store: {} records, {} bytes, {} damaged\n",
            mirrors.len(),
            health.records,
            health.live_bytes,
            health.damaged
        );
        report.push_str(if is_ready { "ready\n" } else { "not ready\n" });
        text(
            if is_ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            },
            report,
        )
    }
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = code;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
