//! A client of the egress socket, as kube-apiserver is one.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::setup::Fault;

/// Where to dial, and what.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub(crate) socket: PathBuf,
    pub(crate) target: SocketAddr,
}

impl Dialer {
    /// Connects to the target and tells it what to be.
    pub(crate) async fn dial(&self, role: u8) -> Result<UnixStream, Fault> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let target = self.target;
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 1024];
        let count = stream.read(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer[..count]);
        if !answer.starts_with("HTTP/1.1 200 ") || !answer.ends_with("\r\n\r\n") {
            return Err(format!("the door says {answer}").into());
        }
        stream.write_all(&[role]).await?;
        Ok(stream)
    }
}
