//! A TCP link that a test cuts: silently, as a lost route does, or with refusals, as a dead host does.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Whole,
    /// Connections stand, new ones are accepted by the kernel, no byte passes.
    Silent,
    /// Connections are gone, new ones are refused.
    Refused,
}

pub(super) struct Relay {
    pub(super) addr: SocketAddr,
    link: watch::Sender<Link>,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub(super) async fn to(server: SocketAddr) -> Self {
        Self::slow(server, Duration::ZERO).await
    }

    /// A link on which everything takes so long, in each direction.
    pub(super) async fn slow(server: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (link, mode) = watch::channel(Link::Whole);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, mode, delay));
        Self {
            addr,
            link,
            _tasks: tasks,
        }
    }

    pub(super) fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

async fn accept(
    mut listener: TcpListener,
    server: SocketAddr,
    mode: watch::Receiver<Link>,
    delay: Duration,
) {
    let mut cut = mode.clone();
    let addr = listener.local_addr().unwrap();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let near = accepted.unwrap().0;
                let far = TcpStream::connect(server).await.unwrap();
                let mode = mode.clone();
                connections.spawn(async move {
                    let (near_read, near_write) = near.into_split();
                    let (far_read, far_write) = far.into_split();
                    tokio::join!(
                        copy(near_read, far_write, mode.clone(), delay),
                        copy(far_read, near_write, mode, delay),
                    );
                });
            }
            is_open = until(&mut cut, |link| link == Link::Refused) => {
                drop(listener);
                connections.shutdown().await;
                if !is_open || !until(&mut cut, |link| link != Link::Refused).await {
                    return;
                }
                listener = TcpListener::bind(addr).await.unwrap();
            }
        }
    }
}

/// Whether the test is still there when the link is like that.
async fn until(mode: &mut watch::Receiver<Link>, wanted: impl Fn(Link) -> bool) -> bool {
    mode.wait_for(|link| wanted(*link)).await.is_ok()
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut mode: watch::Receiver<Link>,
    delay: Duration,
) {
    let (sent, mut arriving) = mpsc::unbounded_channel();
    let reading = async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let arrives = Instant::now() + delay;
            if sent.send((arrives, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((arrives, bytes)) = arriving.recv().await {
            sleep_until(arrives).await;
            if !until(&mut mode, |link| link == Link::Whole).await {
                return;
            }
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}
