//! What tunnels lead to.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A TCP server on a port of its own, as long as it lives.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Target {
    /// Serves each connection with a task of its own.
    pub(crate) async fn serving<F: Future<Output = io::Result<()>> + Send + 'static>(
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let served = serve(stream);
                connections.spawn(async move { drop(served.await) });
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            _serving: serving,
        }
    }

    /// Gives every byte back, and the end.
    pub(crate) async fn echo() -> Self {
        Self::serving(async |mut stream| {
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await?;
            write.shutdown().await
        })
        .await
    }

    /// Speaks first, then listens to the end.
    pub(crate) async fn first(words: &'static str) -> Self {
        Self::serving(async move |mut stream: TcpStream| {
            stream.set_nodelay(true)?;
            stream.write_all(words.as_bytes()).await?;
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
            Ok(())
        })
        .await
    }

    /// Has its connections given to the test.
    pub(crate) async fn held() -> (Self, tokio::sync::mpsc::UnboundedReceiver<TcpStream>) {
        let (give, taken) = tokio::sync::mpsc::unbounded_channel();
        let target = Self::serving(move |stream| {
            drop(give.send(stream));
            std::future::ready(Ok(()))
        });
        (target.await, taken)
    }
}

/// Returns a port at which nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    listener.local_addr().unwrap()
}

/// Returns bytes that repeat after a long while only.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}

/// Reads to the end.
pub(crate) async fn all(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    Ok(bytes)
}
