//! Health and metrics over HTTP.

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

/// How long a client may take to send its request: idle ones must not keep a probe out for long.
const HEAD_LIMIT: Duration = Duration::from_secs(5);

/// How long an exchange may take.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(30);

/// The pages of an end.
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
    /// A page of plain text.
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

    /// A page of metrics.
    pub(crate) fn metrics(body: String) -> Self {
        Self {
            code: "200 OK",
            content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
            body,
        }
    }

    /// The answer to an unknown path; `known` lists the pages.
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
                        // A client that hangs up, or is slow, gets no answer.
                        let _answered_or_not = timeout(EXCHANGE_LIMIT, answer(stream, pages.as_ref())).await;
                    });
                }
                Err(error) => {
                    // Most likely out of file descriptors: let some connections end first.
                    tracing::warn!(%error, "cannot accept a client of health and metrics");
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
        Request::Get(target) => {
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            pages.page(path, query).await
        }
        Request::OtherMethod => Page {
            code: "405 Method Not Allowed",
            ..Page::text(true, "only GET\n")
        },
        Request::Malformed => Page {
            code: "400 Bad Request",
            ..Page::text(true, "this is not a request of HTTP\n")
        },
        Request::HungUp => return Ok(()),
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

/// A request.
enum Request {
    /// GET of this target.
    Get(String),
    /// Another method.
    OtherMethod,
    /// Not a request of HTTP, or a head that is too long.
    Malformed,
    /// The client hung up.
    HungUp,
}

async fn head(stream: &mut TcpStream) -> io::Result<Request> {
    let mut head = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                let target = request.path.unwrap_or_default().to_owned();
                return Ok(match request.method {
                    Some("GET") => Request::Get(target),
                    _ => Request::OtherMethod,
                });
            }
            Ok(httparse::Status::Partial) if head.len() < MAX_HEAD => {}
            Ok(httparse::Status::Partial) | Err(_) => return Ok(Request::Malformed),
        }
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(Request::HungUp);
        }
    }
}
