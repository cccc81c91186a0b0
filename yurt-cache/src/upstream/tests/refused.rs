//! Requests that a server closes its connection before: it says so, and they are sent again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use yurt_core::credentials::Identity;

use super::*;
use crate::tls;

/// How a server puts a request off.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    /// The stream is above the last one that its GOAWAY counts.
    Goaway,
    /// The stream is reset before it is looked at.
    RefusedStream,
}

/// Refuses so many writes, then answers each with what it was sent.
async fn refusing(
    authority: &Authority,
    refusal: Refusal,
    refused: Arc<AtomicUsize>,
) -> (SocketAddr, JoinSet<()>) {
    authority.issue("server", "api");
    let identity =
        Identity::read(&authority.path("server.pem"), &authority.path("server.key")).unwrap();
    let presented = Arc::new(tls::Presented::new(&identity).unwrap());
    let acceptor = TlsAcceptor::from(Arc::new(tls::server_config(presented).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (acceptor, refused) = (acceptor.clone(), refused.clone());
            connections.spawn(async move {
                if let Ok(stream) = acceptor.accept(socket).await {
                    let _gone = serve(stream, refusal, &refused).await;
                }
            });
        }
    });
    (address, tasks)
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

async fn frame<S: AsyncWrite + Unpin>(
    stream: &mut S,
    (kind, flags, id): (u8, u8, u32),
    payload: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(id.to_be_bytes());
    frame.extend(payload);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// HTTP/2 by hand: no library puts off a stream that it has seen.
async fn serve<S>(mut stream: S, refusal: Refusal, refused: &AtomicUsize) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.read_exact(&mut [0; 24]).await?;
    frame(&mut stream, (SETTINGS, 0, 0), &[]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let (kind, flags) = (head[3], head[4]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await?;
        match kind {
            SETTINGS if flags & ACK == 0 => frame(&mut stream, (SETTINGS, ACK, 0), &[]).await?,
            PING if flags & ACK == 0 => frame(&mut stream, (PING, ACK, 0), &payload).await?,
            HEADERS => {
                // The static table's `:method: POST`.
                let is_write = payload[0] == 0x83;
                let left = refused.load(Ordering::Relaxed);
                if is_write && left > 0 {
                    refused.store(left - 1, Ordering::Relaxed);
                    match refusal {
                        Refusal::RefusedStream => {
                            let reason = u32::from(h2::Reason::REFUSED_STREAM).to_be_bytes();
                            frame(&mut stream, (RST_STREAM, 0, id), &reason).await?;
                        }
                        Refusal::Goaway => {
                            let last = u64::from(id.saturating_sub(2)) << 32;
                            frame(&mut stream, (GOAWAY, 0, 0), &last.to_be_bytes()).await?;
                            return stream.shutdown().await;
                        }
                    }
                    continue;
                }
                // The static table's `:status: 200`.
                let end = END_HEADERS | (flags & END_STREAM);
                frame(&mut stream, (HEADERS, end, id), &[0x88]).await?;
            }
            DATA => frame(&mut stream, (DATA, flags, id), &payload).await?,
            _ => {}
        }
    }
}

fn write() -> Request<Body> {
    Request::post("/echo").body(body::full("once")).unwrap()
}

#[tokio::test]
async fn what_was_refused_unread_is_sent_again_with_its_body() {
    for refusal in [Refusal::Goaway, Refusal::RefusedStream] {
        let authority = Authority::new();
        let refused = Arc::new(AtomicUsize::new(0));
        let (address, _server) = refusing(&authority, refusal, refused.clone()).await;
        let running = Running::start(config(&authority, &[address]));
        running.online().await;
        for times in 0..3 {
            refused.store(times, Ordering::Relaxed);
            let sent = running.upstream.send(Credential::Node, write()).await;
            let answer = sent.unwrap_or_else(|error| panic!("{refusal:?} {times}: {error:?}"));
            assert_eq!(text(answer.into_body()).await, "once");
        }
        refused.store(3, Ordering::Relaxed);
        let sent = running.upstream.send(Credential::Node, write()).await;
        let is_said = matches!(sent, Err(SendError::NotCarriedOut { .. }));
        assert!(is_said, "{refusal:?}: {sent:?}");
    }
}
