//! A connection through an HTTP proxy: `CONNECT`, then whatever is sent.

use std::io;
use std::pin::pin;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::super::http_proxy::HttpProxy;
use super::race;

/// Why a proxy does not carry a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TunnelError {
    /// It is not there.
    #[error("connect to the proxy {proxy}")]
    Connect {
        /// Where it is.
        proxy: String,
        /// Why not.
        source: io::Error,
    },
    /// What is asked for cannot be written.
    #[error("ask the proxy")]
    Request(#[source] http::Error),
    /// It went, or does not speak HTTP.
    #[error("ask the proxy {proxy}")]
    Ask {
        /// Where it is.
        proxy: String,
        /// What broke.
        source: hyper::Error,
    },
    /// It does not want to.
    #[error("the proxy {proxy} says {status} to CONNECT")]
    Refused {
        /// Where it is.
        proxy: String,
        /// What it says.
        status: StatusCode,
    },
    /// It spoke before it was spoken to.
    #[error("the proxy {proxy} sends bytes of its own")]
    Intruding {
        /// Where it is.
        proxy: String,
    },
}

/// Connects to a host through a proxy.
pub(super) async fn connect(
    proxy: &HttpProxy,
    host: &str,
    port: u16,
) -> Result<TcpStream, TunnelError> {
    let shown = || proxy.to_string();
    let (at, its_port) = proxy.address();
    let connected = race::connect(at, its_port).await;
    let stream = connected.map_err(|source| TunnelError::Connect {
        proxy: shown(),
        source,
    })?;
    let failed = |source| TunnelError::Ask {
        proxy: shown(),
        source,
    };
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let asking = async {
        let asked = request(proxy, host, port).map_err(TunnelError::Request)?;
        let response = requests.send_request(asked).await.map_err(failed)?;
        let status = response.status();
        if !status.is_success() {
            return Err(TunnelError::Refused {
                proxy: shown(),
                status,
            });
        }
        hyper::upgrade::on(response).await.map_err(failed)
    };
    let mut asking = pin!(asking);
    let mut driving = pin!(connection.with_upgrades());
    let upgraded = tokio::select! {
        asked = &mut asking => asked,
        // Who waits for the answer hears what broke.
        _ended = &mut driving => asking.await,
    }?;
    let intruding = || TunnelError::Intruding { proxy: shown() };
    let parts = upgraded.downcast::<TokioIo<TcpStream>>();
    let parts = parts.map_err(|_| intruding())?;
    if !parts.read_buf.is_empty() {
        return Err(intruding());
    }
    Ok(parts.io.into_inner())
}

fn request(proxy: &HttpProxy, host: &str, port: u16) -> Result<Request<Empty<Bytes>>, http::Error> {
    let target = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let mut request = Request::connect(&target).body(Empty::new())?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(&target)?);
    if let Some(authorization) = proxy.authorization() {
        headers.insert(PROXY_AUTHORIZATION, authorization.clone());
    }
    Ok(request)
}
