//! A plain client: one connection of HTTP/1.1 over TLS, bodies counted and not parsed.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::setup::Fault;

/// One connection to a server.
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    token: String,
    /// Carries the connection; ends with it.
    driver: JoinSet<()>,
}

impl Connection {
    /// Connects to `https://127.0.0.1:port`; without a token the certificate says who it is.
    pub(crate) async fn open(
        url: &str,
        tls: Arc<rustls::ClientConfig>,
        token: &str,
    ) -> Result<Self, Fault> {
        let stream = connect(url, tls).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(Fault::new)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Its end is seen by whoever waits for an answer.
            let _ended = connection.await;
        });
        Ok(Self {
            sender,
            token: token.to_owned(),
            driver,
        })
    }

    /// Reads a whole answer and returns its length.
    pub(crate) async fn get(&mut self, path: &str) -> Result<usize, Fault> {
        let mut body = self.send("GET", path, Bytes::new()).await?;
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame.map_err(Fault::new)?.data_ref().map_or(0, Bytes::len);
        }
        Ok(length)
    }

    /// Returns the revision of a list.
    pub(crate) async fn revision(&mut self, path: &str) -> Result<String, Fault> {
        let body = self.send("GET", path, Bytes::new()).await?;
        let text = body.collect().await.map_err(Fault::new)?.to_bytes();
        let text = String::from_utf8_lossy(&text);
        let revision = text.split("\"resourceVersion\":\"").nth(1);
        let revision = revision.and_then(|rest| rest.split('"').next());
        let revision = revision.ok_or_else(|| Fault::new("a list without a revision"))?;
        Ok(revision.to_owned())
    }

    /// Sends an object.
    pub(crate) async fn put(
        &mut self,
        method: &str,
        path: &str,
        object: String,
    ) -> Result<(), Fault> {
        let mut body = self.send(method, path, object.into()).await?;
        while let Some(frame) = body.frame().await {
            frame.map_err(Fault::new)?;
        }
        Ok(())
    }

    /// Opens a watch; the connection is its own from then on.
    pub(crate) async fn watch(mut self, path: &str) -> Result<Watch, Fault> {
        let body = self.send("GET", path, Bytes::new()).await?;
        Ok(Watch {
            body,
            buffer: BytesMut::new(),
            _driver: Arc::new(self.driver),
        })
    }

    async fn send(&mut self, method: &str, path: &str, body: Bytes) -> Result<Incoming, Fault> {
        let request = request(method, path, &self.token)
            .header("host", "127.0.0.1")
            .body(Full::new(body))
            .map_err(Fault::new)?;
        self.sender.ready().await.map_err(Fault::new)?;
        let response = self
            .sender
            .send_request(request)
            .await
            .map_err(Fault::new)?;
        let status = response.status();
        if status != StatusCode::OK && status != StatusCode::CREATED {
            let text = response
                .into_body()
                .collect()
                .await
                .map_err(Fault::new)?
                .to_bytes();
            return Err(Fault::new(format!(
                "{method} {path}: {status} {}",
                String::from_utf8_lossy(&text)
            )));
        }
        Ok(response.into_body())
    }
}

/// One connection of HTTP/2; it lasts as long as any of its watches.
pub(crate) struct Shared {
    sender: http2::SendRequest<Full<Bytes>>,
    url: String,
    token: String,
    driver: Arc<JoinSet<()>>,
}

impl Shared {
    /// Connects to `https://127.0.0.1:port`.
    pub(crate) async fn open(
        url: &str,
        tls: &rustls::ClientConfig,
        token: &str,
    ) -> Result<Self, Fault> {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let stream = connect(url, Arc::new(tls)).await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(Fault::new)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Its end is seen by whoever waits for an answer.
            let _ended = connection.await;
        });
        Ok(Self {
            sender,
            url: url.to_owned(),
            token: token.to_owned(),
            driver: Arc::new(driver),
        })
    }

    /// Opens a watch beside the others.
    pub(crate) async fn watch(&self, path: &str) -> Result<Watch, Fault> {
        let request = request("GET", &format!("{}{path}", self.url), &self.token)
            .body(Full::default())
            .map_err(Fault::new)?;
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(Fault::new)?;
        let response = sender.send_request(request).await.map_err(Fault::new)?;
        if response.status() != StatusCode::OK {
            return Err(Fault::new(format!("GET {path}: {}", response.status())));
        }
        Ok(Watch {
            body: response.into_body(),
            buffer: BytesMut::new(),
            _driver: self.driver.clone(),
        })
    }
}

async fn connect(url: &str, tls: Arc<rustls::ClientConfig>) -> Result<TlsStream<TcpStream>, Fault> {
    let address = url.trim_start_matches("https://").to_owned();
    let stream = TcpStream::connect(&address).await.map_err(Fault::new)?;
    stream.set_nodelay(true).map_err(Fault::new)?;
    let name = ServerName::try_from("127.0.0.1").map_err(Fault::new)?;
    let connecting = TlsConnector::from(tls).connect(name, stream);
    connecting.await.map_err(Fault::new)
}

fn request(method: &str, uri: &str, token: &str) -> request::Builder {
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header("content-type", "application/json")
        .header("accept", "application/json");
    if token.is_empty() {
        return request;
    }
    request.header("authorization", format!("Bearer {token}"))
}

/// An open watch.
pub(crate) struct Watch {
    body: Incoming,
    buffer: BytesMut,
    /// Carries it, and ends with it.
    _driver: Arc<JoinSet<()>>,
}

impl Watch {
    /// Returns the next line.
    pub(crate) async fn line(&mut self) -> Result<Bytes, Fault> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Ok(self.buffer.split_to(end + 1).freeze());
            }
            let frame = self
                .body
                .frame()
                .await
                .ok_or_else(|| Fault::new("the watch ended"))?;
            if let Ok(chunk) = frame.map_err(Fault::new)?.into_data() {
                self.buffer.extend_from_slice(&chunk);
            }
        }
    }

    /// Waits for an event of the object with this name.
    pub(crate) async fn until(&mut self, name: &str, within: Duration) -> Result<(), Fault> {
        let named = format!("\"name\":\"{name}\"");
        let found = async {
            loop {
                if String::from_utf8_lossy(&self.line().await?).contains(&named) {
                    return Ok(());
                }
            }
        };
        tokio::time::timeout(within, found)
            .await
            .map_err(|_| Fault::new(format!("no event of {name}")))?
    }
}
