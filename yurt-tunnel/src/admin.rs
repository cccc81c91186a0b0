//! Health and metrics over HTTP, for an end's own people.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Connections at a time: probes and a scraper or two.
const CONNECTIONS: usize = 32;

/// The longest head of a request.
const MAX_HEAD: usize = 8 << 10;

/// How long a client may take for one request, and the answer for being made.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is shown.
#[async_trait]
pub(crate) trait Pages: fmt::Debug + Send + Sync + 'static {
    /// Returns the page of a path, without its query.
    async fn page(&self, path: &str, query: &str) -> Page;
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) code: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Page {
    /// Words, for a person.
    pub(crate) fn text(is_ok: bool, body: impl Into<String>) -> Self {
        Self {
            code: if is_ok {
                "200 OK"
            } else {
                "503 Service Unavailable"
            },
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    /// Metrics, for Prometheus.
    pub(crate) fn metrics(body: String) -> Self {
        Self {
            code: "200 OK",
            content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
            body,
        }
    }

    /// There is no such page; `known` are those that there are.
    pub(crate) fn missing(path: &str, known: &str) -> Self {
        Self {
            code: "404 Not Found",
            ..Self::text(true, format!("{path} is not served here: {known}\n"))
        }
    }
}

/// Serves until the shutdown.
pub(crate) async fn serve(
    listener: TcpListener,
    pages: Arc<dyn Pages>,
    shutdown: CancellationToken,
) {
    let mut clients = JoinSet::new();
    loop {
        while clients.len() >= CONNECTIONS {
            clients.join_next().await;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(_) = clients.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let pages = pages.clone();
                    clients.spawn(async move {
                        // A client that breaks off, or is slow, is its own affair.
                        let _ = timeout(PATIENCE, answer(stream, pages.as_ref())).await;
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

async fn answer(mut stream: TcpStream, pages: &dyn Pages) -> io::Result<()> {
    let Some(request) = head(&mut stream).await? else {
        return Ok(());
    };
    let page = match request {
        Some(target) => {
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            pages.page(path, query).await
        }
        None => Page {
            code: "405 Method Not Allowed",
            ..Page::text(true, "only GET\n")
        },
    };
    let Page {
        code,
        content_type,
        body,
    } = page;
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {code}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// Reads a request's head: nothing if it is none, and no target if its method is not GET.
async fn head(stream: &mut TcpStream) -> io::Result<Option<Option<String>>> {
    let mut head = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                let target = request.path.unwrap_or_default();
                let is_get = request.method == Some("GET");
                return Ok(Some(is_get.then(|| target.to_owned())));
            }
            Ok(httparse::Status::Partial) if head.len() < MAX_HEAD => {}
            Ok(httparse::Status::Partial) | Err(_) => return Ok(None),
        }
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
}
