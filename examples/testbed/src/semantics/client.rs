//! A small raw client: what is on the wire, without a typed layer between it and the assertion.

mod answer;
pub mod raw;
mod watch;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{net::TcpStream, sync::Mutex};
use tokio_rustls::TlsConnector;

pub use self::{
    answer::Answer,
    watch::{Event, Watch},
};
use crate::{api::tasks::Tasks, endpoint::Endpoint};

/// No answer of a test takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of one API server, over one HTTP/2 connection that is made when it is needed.
///
/// Dropping it ends the connection, and every watch on it.
pub struct Client {
    endpoint: Endpoint,
    token: Option<String>,
    tls: TlsConnector,
    sender: Mutex<Option<http2::SendRequest<Full<Bytes>>>>,
    tasks: Tasks,
}

/// What can go wrong between the test and the server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A certificate, a key or a name is not what it should be.
    #[error("set up TLS")]
    SetUp(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The TCP or TLS connection.
    #[error("connect to {url}")]
    Connect {
        /// Where to.
        url: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The request or its answer.
    #[error("{method} {path}")]
    Exchange {
        /// The method.
        method: Method,
        /// Path and query.
        path: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server said nothing in time.
    #[error("no answer to {0} in time")]
    Silence(String),
    /// A line of a watch that is not an event.
    #[error("no event: {0}")]
    Malformed(String),
}

// === Client ===

impl Client {
    /// Makes a client with the administrator's token.
    ///
    /// # Errors
    ///
    /// When the endpoint's CA is not PEM.
    pub fn new(endpoint: &Endpoint) -> Result<Self, Error> {
        Self::build(endpoint, Some(endpoint.admin_token.clone()), None)
    }

    /// Makes a client with another token.
    ///
    /// # Errors
    ///
    /// When the endpoint's CA is not PEM.
    pub fn with_token(endpoint: &Endpoint, token: &str) -> Result<Self, Error> {
        Self::build(endpoint, Some(token.to_owned()), None)
    }

    /// Makes a client with a client certificate and its key, PEM.
    ///
    /// # Errors
    ///
    /// When anything is not PEM, or the key is not the certificate's.
    pub fn with_certificate(
        endpoint: &Endpoint,
        certificate: &str,
        key: &str,
    ) -> Result<Self, Error> {
        Self::build(endpoint, None, Some((certificate, key)))
    }

    /// Makes a client that says nothing about itself.
    ///
    /// # Errors
    ///
    /// When the endpoint's CA is not PEM.
    pub fn anonymous(endpoint: &Endpoint) -> Result<Self, Error> {
        Self::build(endpoint, None, None)
    }

    fn build(
        endpoint: &Endpoint,
        token: Option<String>,
        identity: Option<(&str, &str)>,
    ) -> Result<Self, Error> {
        Ok(Self {
            tls: TlsConnector::from(Arc::new(tls(&endpoint.ca_pem, identity)?)),
            endpoint: endpoint.clone(),
            token,
            sender: Mutex::new(None),
            tasks: Tasks::default(),
        })
    }

    /// Returns whom it talks to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Gets a path.
    ///
    /// # Errors
    ///
    /// When there is no whole answer; a refusal is an answer.
    pub async fn get(&self, path: &str) -> Result<Answer, Error> {
        self.send(Method::GET, path, &[], "").await
    }

    /// Gets a path with an Accept header.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn get_as(&self, path: &str, accept: &str) -> Result<Answer, Error> {
        self.send(Method::GET, path, &[("accept", accept)], "")
            .await
    }

    /// Posts an object.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer, Error> {
        self.send(Method::POST, path, &[], &body.to_string()).await
    }

    /// Puts an object.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn put(&self, path: &str, body: &Value) -> Result<Answer, Error> {
        self.send(Method::PUT, path, &[], &body.to_string()).await
    }

    /// Patches an object; `kind` is `json`, `merge`, `strategic-merge` or `apply`.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn patch(&self, path: &str, kind: &str, body: &Value) -> Result<Answer, Error> {
        let content_type = match kind {
            "apply" => "application/apply-patch+yaml".to_owned(),
            other => format!("application/{other}-patch+json"),
        };
        self.send(
            Method::PATCH,
            path,
            &[("content-type", &content_type)],
            &body.to_string(),
        )
        .await
    }

    /// Deletes a path, with or without options.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn delete(&self, path: &str, options: Option<&Value>) -> Result<Answer, Error> {
        let body = options.map(ToString::to_string).unwrap_or_default();
        self.send(Method::DELETE, path, &[], &body).await
    }

    /// Sends anything; a body is JSON unless a header says otherwise.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, Error> {
        let what = format!("{method} {path}");
        let exchange = async {
            let response = self.open(&method, path, headers, body).await?;
            let (parts, body) = response.into_parts();
            let body = body
                .collect()
                .await
                .map_err(|source| broken(&method, path, source))?;
            Ok(Answer {
                code: parts.status.as_u16(),
                headers: parts.headers,
                body: body.to_bytes(),
            })
        };
        let answered = tokio::time::timeout(PATIENCE, exchange).await;
        answered.map_err(|_| Error::Silence(what))?
    }

    /// Opens a watch: returns when the headers are there, whatever they say.
    ///
    /// # Errors
    ///
    /// When no headers come.
    pub async fn watch(&self, path: &str) -> Result<Watch, Error> {
        self.watch_as(path, "application/json").await
    }

    /// Opens a watch with an Accept header.
    ///
    /// # Errors
    ///
    /// As [`Client::watch`].
    pub async fn watch_as(&self, path: &str, accept: &str) -> Result<Watch, Error> {
        let headers = [("accept", accept)];
        let opening = self.open(&Method::GET, path, &headers, "");
        let opened = tokio::time::timeout(PATIENCE, opening).await;
        let response = opened.map_err(|_| Error::Silence(format!("watch {path}")))??;
        let (parts, body) = response.into_parts();
        Ok(Watch {
            code: parts.status.as_u16(),
            headers: parts.headers,
            body,
            buffer: Vec::new(),
        })
    }

    async fn open(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<http::Response<Incoming>, Error> {
        let mut builder = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.endpoint.url));
        if let Some(token) = &self.token {
            builder = builder.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let mut request = builder
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|source| broken(method, path, source))?;
        if !body.is_empty() {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).map_err(|e| broken(method, path, e))?;
            let value = HeaderValue::try_from(*value).map_err(|e| broken(method, path, e))?;
            request.headers_mut().insert(name, value);
        }
        let mut sender = self.sender().await?;
        sender
            .send_request(request)
            .await
            .map_err(|source| broken(method, path, source))
    }

    async fn sender(&self) -> Result<http2::SendRequest<Full<Bytes>>, Error> {
        let mut kept = self.sender.lock().await;
        if let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let sender = self.connect().await?;
        *kept = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(&self) -> Result<http2::SendRequest<Full<Bytes>>, Error> {
        let url = || self.endpoint.url.clone();
        let failed = |source| Error::Connect { url: url(), source };
        let authority = self.endpoint.url.trim_start_matches("https://").to_owned();
        let stream = TcpStream::connect(&authority).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let host = authority
            .rsplit_once(':')
            .map_or(authority.as_str(), |(host, _)| host);
        let name =
            ServerName::try_from(host.to_owned()).map_err(|error| Error::SetUp(Box::new(error)))?;
        let stream = self.tls.connect(name, stream).await.map_err(failed)?;
        let (sender, connection) = http2::handshake(self.tasks.clone(), TokioIo::new(stream))
            .await
            .map_err(|error| failed(std::io::Error::other(error)))?;
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "client connection");
            }
        });
        Ok(sender)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.endpoint.url)
            .finish_non_exhaustive()
    }
}

fn broken(
    method: &Method,
    path: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::Exchange {
        method: method.clone(),
        path: path.to_owned(),
        source: source.into(),
    }
}

fn tls(ca_pem: &str, identity: Option<(&str, &str)>) -> Result<ClientConfig, Error> {
    fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::SetUp(error.into())
    }
    let authority = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(failed)?;
    let mut roots = RootCertStore::empty();
    roots.add(authority).map_err(failed)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(failed)?;
            builder
                .with_client_auth_cert(chain.map_err(failed)?, key)
                .map_err(failed)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
