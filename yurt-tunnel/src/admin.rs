//! Health and metrics over HTTP, for an end's own people.

pub(crate) mod scrape;

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

/// How long a client may take to ask: those that never do must not keep a probe out for long.
const HEAD_LIMIT: Duration = Duration::from_secs(5);

/// How long the answer may take to be made and read.
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
    let Ok(asked) = timeout(HEAD_LIMIT, head(&mut stream)).await else {
        return Ok(());
    };
    let page = match asked? {
        Asked::Get(target) => {
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            pages.page(path, query).await
        }
        Asked::Otherwise => Page {
            code: "405 Method Not Allowed",
            ..Page::text(true, "only GET\n")
        },
        Asked::Nonsense => Page {
            code: "400 Bad Request",
            ..Page::text(true, "that is no request of HTTP\n")
        },
        Asked::Nothing => return Ok(()),
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

/// What a client wants.
enum Asked {
    /// What is at this target.
    Get(String),
    /// Something by another method.
    Otherwise,
    /// It has sent what is no head of a request, or none of ours for its length.
    Nonsense,
    /// It has gone.
    Nothing,
}

async fn head(stream: &mut TcpStream) -> io::Result<Asked> {
    let mut head = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                let target = request.path.unwrap_or_default().to_owned();
                return Ok(match request.method {
                    Some("GET") => Asked::Get(target),
                    _ => Asked::Otherwise,
                });
            }
            Ok(httparse::Status::Partial) if head.len() < MAX_HEAD => {}
            Ok(httparse::Status::Partial) | Err(_) => return Ok(Asked::Nonsense),
        }
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(Asked::Nothing);
        }
    }
}
