//! Bytes as they are: what no client library would send.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{Answer, Error, PATIENCE, broken, tls};
use crate::endpoint::Endpoint;

/// An answer that a test reads whole is not longer.
const MAX_ANSWER: u64 = 64 << 20;

/// Sends bytes over a connection of HTTP/1.1 and returns all that comes back until its end: nothing where the
/// server just closes. `identity` is a client certificate and its key, PEM.
///
/// # Errors
///
/// When there is no connection, or it does not end in time.
pub async fn say(
    endpoint: &Endpoint,
    identity: Option<(&str, &str)>,
    bytes: &[u8],
) -> Result<Vec<u8>, Error> {
    let mut config = tls(&endpoint.ca_pem, identity)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let exchange = async {
        let failed = |source| Error::Connect {
            url: endpoint.url.clone(),
            source,
        };
        let name = ServerName::from(endpoint.addr().ip());
        let stream = TcpStream::connect(endpoint.addr()).await.map_err(failed)?;
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, stream).await.map_err(failed)?;
        let mut answer = Vec::new();
        let (reading, mut writing) = tokio::io::split(&mut stream);
        let mut reading = reading.take(MAX_ANSWER);
        // A server may answer and close before it has read everything, and close without a farewell.
        let (_sent, _read) =
            tokio::join!(writing.write_all(bytes), reading.read_to_end(&mut answer));
        Ok(answer)
    };
    let answered = tokio::time::timeout(PATIENCE, exchange).await;
    answered.map_err(|_| Error::Silence("raw bytes".to_owned()))?
}

/// Reads the one answer in what a server has said before it closed.
///
/// # Errors
///
/// When it is none.
pub fn parse(said: &[u8]) -> Result<Answer, Error> {
    let malformed = || broken(&Method::GET, "raw bytes", String::from_utf8_lossy(said));
    let end = said.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = said.split_at(end.ok_or_else(malformed)? + 4);
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let code = lines.next().and_then(|line| line.get(9..12)?.parse().ok());
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name = HeaderName::try_from(name).map_err(|_| malformed())?;
        let value = HeaderValue::try_from(value.trim()).map_err(|_| malformed())?;
        headers.append(name, value);
    }
    let is_chunked = headers.contains_key(http::header::TRANSFER_ENCODING);
    Ok(Answer {
        code: code.ok_or_else(malformed)?,
        headers,
        body: if is_chunked {
            chunks(body)
        } else {
            Bytes::copy_from_slice(body)
        },
    })
}

fn chunks(mut rest: &[u8]) -> Bytes {
    let mut whole = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let length = std::str::from_utf8(&rest[..end]).ok();
        let length = length.and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
        let Some(chunk) = length.and_then(|length| rest.get(end + 2..end + 2 + length)) else {
            break;
        };
        whole.extend_from_slice(chunk);
        rest = rest.get(end + 4 + chunk.len()..).unwrap_or_default();
    }
    whole.into()
}
