//! A plain client: one connection of HTTP/1.1 over TLS, bodies counted and not parsed.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::setup::Fault;

/// One connection to a server.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    token: String,
    /// Carries the connection; ends with it.
    _driver: JoinSet<()>,
}

impl Connection {
    /// Connects to `https://127.0.0.1:port`; without a token the certificate says who it is.
    pub(crate) async fn open(
        url: &str,
        tls: Arc<rustls::ClientConfig>,
        token: &str,
    ) -> Result<Self, Fault> {
        let address = url.trim_start_matches("https://").to_owned();
        let stream = TcpStream::connect(&address).await.map_err(Fault::new)?;
        stream.set_nodelay(true).map_err(Fault::new)?;
        let name = ServerName::try_from("127.0.0.1").map_err(Fault::new)?;
        let stream = TlsConnector::from(tls)
            .connect(name, stream)
            .await
            .map_err(Fault::new)?;
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
            _driver: driver,
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
            _connection: self,
        })
    }

    async fn send(&mut self, method: &str, path: &str, body: Bytes) -> Result<Incoming, Fault> {
        let mut request = Request::builder();
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        let request = request
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1")
            .header("content-type", "application/json")
            .header("accept", "application/json")
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

/// An open watch.
pub(crate) struct Watch {
    body: Incoming,
    buffer: BytesMut,
    _connection: Connection,
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
