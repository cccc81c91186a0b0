//! Health and metrics, for the node's own people.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Shared;
use super::metrics::gauge;
use crate::identity::Credentials;

/// Connections at a time: probes and a scraper or two.
const CONNECTIONS: usize = 32;

/// The longest head of a request.
const MAX_HEAD: usize = 8 << 10;

/// How long a client may take for one request.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer of a server proves the path for so long.
const LATELY: Duration = Duration::from_secs(15);

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut clients = JoinSet::new();
    loop {
        while clients.len() >= CONNECTIONS {
            clients.join_next().await;
        }
        tokio::select! {
            Some(_) = clients.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let shared = shared.clone();
                    clients.spawn(async move {
                        // A client that breaks off, or is slow, is its own affair.
                        let _ = timeout(PATIENCE, answer(stream, &shared)).await;
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: let some connections end first.
                    tracing::warn!(%error, "an admin client cannot be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn answer(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut head = Vec::new();
    let path = loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                let method = request.method.unwrap_or_default();
                let path = request.path.unwrap_or_default();
                break (method == "GET").then(|| path.to_owned());
            }
            Ok(httparse::Status::Partial) if head.len() < MAX_HEAD => {}
            Ok(httparse::Status::Partial) | Err(_) => return Ok(()),
        }
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    };
    let (code, content_type, body) = match path {
        Some(path) => page(&path, shared),
        None => ("405 Method Not Allowed", TEXT, "only GET\n".to_owned()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {code}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn page(path: &str, shared: &Shared) -> (&'static str, &'static str, String) {
    match path.split('?').next().unwrap_or_default() {
        "/healthz" | "/livez" => ("200 OK", TEXT, "ok\n".to_owned()),
        "/readyz" => match readyz(shared) {
            (true, report) => ("200 OK", TEXT, report),
            (false, report) => ("503 Service Unavailable", TEXT, report),
        },
        "/metrics" => ("200 OK", METRICS, shared.metrics.text()),
        path => {
            let message = format!("{path} is not served here: /healthz, /readyz, /metrics\n");
            ("404 Not Found", TEXT, message)
        }
    }
}

/// Ready means: a server that could open a stream now has answered lately.
fn readyz(shared: &Shared) -> (bool, String) {
    let (seen, _) = shared.board.look(Instant::now());
    let mut report = String::new();
    let mut is_ready = false;
    for one in seen.iter().filter(|one| !one.is_leaving) {
        let is_alive = one.answered.is_some_and(|ago| ago <= LATELY);
        is_ready |= is_alive;
        let mark = if is_alive { '+' } else { '-' };
        let answered = match one.answered {
            Some(ago) => format!("answered {:.1} s ago", ago.as_secs_f64()),
            None => "has not answered yet".to_owned(),
        };
        let (server, transport) = (one.server, one.transport);
        let _written = writeln!(report, "[{mark}] {server} by {transport}: {answered}");
    }
    let away = {
        let standings = shared.standings.lock();
        let away = standings
            .iter()
            .filter(|(_, standing)| **standing == super::Standing::Away);
        away.map(|(server, _)| *server).collect::<Vec<_>>()
    };
    for server in away {
        let _written = writeln!(report, "[-] {server}: away");
    }
    if seen.is_empty() {
        report.push_str("[-] no server is connected\n");
    }
    report.push_str(if is_ready { "ready\n" } else { "not ready\n" });
    (is_ready, report)
}

/// When our certificate expires, read at each scrape.
#[derive(Debug)]
pub(super) struct Expiry(pub(super) Credentials);

impl Collector for Expiry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let expires = self.0.own().expires;
        let since_epoch = expires
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let help = "When the agent's certificate expires, in seconds since 1970";
        let name = "certificate_expiry_timestamp_seconds";
        gauge(&mut encoder, name, help, since_epoch.as_secs())
    }
}
