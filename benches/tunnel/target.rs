//! What is dialled: a source, a sink, an echo, told apart by the first byte.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Sends until nobody reads.
pub(crate) const SOURCE: u8 = b's';
/// Reads until the end, and then says so by one byte.
pub(crate) const SINK: u8 = b'd';
/// Returns what it reads.
pub(crate) const ECHO: u8 = b'e';

/// What is written and read at once.
pub(crate) const PIECE: usize = 256 << 10;

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(answer(socket));
    }
}

async fn answer(mut socket: TcpStream) {
    let _ = socket.set_nodelay(true);
    // A client that breaks off is the end of its row.
    let _ = match socket.read_u8().await {
        Ok(SOURCE) => source(socket).await,
        Ok(SINK) => sink(socket).await,
        Ok(ECHO) => echo(socket).await,
        Ok(_) | Err(_) => Ok(()),
    };
}

async fn source(mut socket: TcpStream) -> std::io::Result<()> {
    let piece = vec![7; PIECE];
    loop {
        socket.write_all(&piece).await?;
    }
}

async fn sink(mut socket: TcpStream) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    while socket.read(&mut piece).await? > 0 {}
    socket.write_all(b".").await
}

async fn echo(mut socket: TcpStream) -> std::io::Result<()> {
    let mut piece = vec![0; 4096];
    loop {
        match socket.read(&mut piece).await? {
            0 => return socket.shutdown().await,
            count => socket.write_all(&piece[..count]).await?,
        }
    }
}
