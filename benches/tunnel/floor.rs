//! The floor: the same two relays with one TLS connection for each stream between them, and no tunnel.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use yurt_tunnel::identity::{Credentials, Files, Protocol};
use yurt_tunnel::splice::{self, End};

use crate::setup::Fault;

/// The first argument of a relay's process.
pub(crate) const ROLE: &str = "floor-relay";

/// Runs one of the relays: `near SOCKET FAR FOLDER` or `far LISTEN TARGET FOLDER`.
pub(crate) async fn relay(arguments: &[String]) -> Result<(), Fault> {
    let [end, here, there, folder] = arguments else {
        return Err("near SOCKET FAR FOLDER, or far LISTEN TARGET FOLDER".into());
    };
    let name = if end == "near" { "agent" } else { "server" };
    let at = |kind: &str| Path::new(folder).join(format!("{name}.{kind}"));
    let credentials = Credentials::load(Files {
        ca: at("ca"),
        certificate: at("pem"),
        key: at("key"),
    })?;
    let (end, here, there) = (end.clone(), here.clone(), there.clone());
    tokio::task::spawn_blocking(move || {
        // One thread, as the programs that are measured beside it.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async move {
            match end.as_str() {
                "near" => near(Path::new(&here), there.parse()?, &credentials).await,
                _ => far(here.parse()?, there.parse()?, &credentials).await,
            }
        })
    })
    .await?
}

async fn near(here: &Path, there: SocketAddr, credentials: &Credentials) -> Result<(), Fault> {
    let listener = UnixListener::bind(here)?;
    let connector = TlsConnector::from(credentials.client(Protocol::Door));
    let mut streams = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await?;
        while streams.try_join_next().is_some() {}
        streams.spawn(carry(client, there, connector.clone()));
    }
}

async fn carry(client: UnixStream, there: SocketAddr, tls: TlsConnector) -> Result<(), Fault> {
    let (mut client, mut head) = (Plain(client), [0; 1024]);
    let _ = client.read(&mut head).await?;
    let socket = TcpStream::connect(there).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from("tunnel.test")?;
    let mut far = Plain(tls.connect(name, socket).await?);
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    Ok(splice::both(&mut client, &mut far).await?)
}

async fn far(here: SocketAddr, there: SocketAddr, credentials: &Credentials) -> Result<(), Fault> {
    let listener = TcpListener::bind(here).await?;
    let acceptor = TlsAcceptor::from(credentials.server(Protocol::Door));
    let mut streams = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        while streams.try_join_next().is_some() {}
        let acceptor = acceptor.clone();
        streams.spawn(async move {
            let mut near = Plain(acceptor.accept(socket).await?);
            let target = TcpStream::connect(there).await?;
            target.set_nodelay(true)?;
            let mut target = Plain(target);
            Ok::<_, Fault>(splice::both(&mut near, &mut target).await?)
        });
    }
}

/// A connection whose end is seen by who reads or writes it.
struct Plain<T>(T);

impl<T: AsyncRead + AsyncWrite + Unpin> End for Plain<T> {
    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<io::Error> {
        Poll::Pending
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Plain<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Plain<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
