//! The last bytes of a stream that has ended: it is not over before they have arrived.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use yurt_core::transport::{Acceptor, Listener, Open, Opener, State, Stream, Target};
use yurt_tunnel::link::Config;

use crate::site::{Site, Way, loopback};

const PATIENCE: Duration = Duration::from_secs(60);

/// Passes one peer's packets on, unless it is told to hold them.
struct Relay {
    address: SocketAddr,
    is_held: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

async fn relay(to: SocketAddr) -> Relay {
    let front = UdpSocket::bind(loopback()).await.unwrap();
    let back = UdpSocket::bind(loopback()).await.unwrap();
    back.connect(to).await.unwrap();
    let address = front.local_addr().unwrap();
    let (is_held, mut held) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        let mut peer = None;
        loop {
            drop(held.wait_for(|held| !held).await);
            tokio::select! {
                biased;
                () = async { drop(held.wait_for(|held| *held).await) } => {}
                received = front.recv_from(&mut up) => {
                    let (len, from) = received.unwrap();
                    peer = Some(from);
                    let _ = back.send(&up[..len]).await;
                }
                received = back.recv(&mut down) => {
                    if let (Ok(len), Some(peer)) = (received, peer) {
                        let _ = front.send_to(&down[..len], peer).await;
                    }
                }
            }
        }
    });
    Relay {
        address,
        is_held,
        _tasks: tasks,
    }
}

/// A session over a relay that holds the last bytes of its only stream.
struct Held {
    _kept: (Site, Box<dyn Listener>),
    relay: Relay,
    acceptor: Arc<dyn Acceptor>,
    opener: Arc<dyn Opener>,
    ours: Box<dyn Stream>,
    said: Vec<u8>,
}

async fn held(way: Way) -> Held {
    let site = Site::new();
    let config = Config::default();
    let listener = way.transport(site.server(), config.clone());
    let listener = listener.listen(loopback()).await.unwrap();
    let relay = match way {
        Way::Quic => relay(listener.address()).await,
        Way::H2 => tcp_relay(listener.address()).await,
    };
    let edge = way.transport(site.node("edge-1"), config);
    let (acceptor, opener) = tokio::join!(
        edge.connect(relay.address, "tunnel.test"),
        listener.accept()
    );
    let (acceptor, opener) = (acceptor.unwrap(), opener.unwrap().unwrap());
    let open = opener.open(Open::new(Target::Echo, PATIENCE));
    let accept = async { acceptor.accept().await?.accept().await };
    let (ours, theirs) = tokio::join!(open, accept);
    let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
    ours.shutdown().await.unwrap();
    assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);

    relay.is_held.send_replace(true);
    let said = vec![7; 50_000];
    theirs.write_all(&said).await.unwrap();
    theirs.shutdown().await.unwrap();
    drop(theirs);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(acceptor.stats().streams, 1, "nothing of it has arrived");
    Held {
        _kept: (site, listener),
        relay,
        acceptor,
        opener,
        ours,
        said,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_counts_until_its_last_bytes_have_arrived() {
    let held = held(Way::Quic).await;
    let (acceptor, opener, mut ours) = (held.acceptor, held.opener, held.ours);
    held.relay.is_held.send_replace(false);
    let over = async {
        while acceptor.stats().streams > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, over).await.unwrap();
    // What has arrived is there to be read, though the session has ended.
    acceptor.close("nothing is left to be done").await;
    let mut state = opener.state();
    let is_closed = state.wait_for(|state| matches!(state, State::Closed { .. }));
    drop(timeout(PATIENCE, is_closed).await.unwrap());
    let is_told = poll_fn(|cx| Poll::Ready(ours.poll_reset(cx).is_ready()));
    assert!(!is_told.await, "a slow reader gets it all");
    let mut heard = Vec::new();
    timeout(PATIENCE, ours.read_to_end(&mut heard))
        .await
        .unwrap()
        .unwrap();
    assert!(heard == held.said);
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut held: watch::Receiver<bool>) {
    let mut piece = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        drop(held.wait_for(|held| !held).await);
        if to.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await; // its peer may be gone
}

async fn tcp_relay(to: SocketAddr) -> Relay {
    let front = TcpListener::bind(loopback()).await.unwrap();
    let address = front.local_addr().unwrap();
    let (is_held, held) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut passing = JoinSet::new();
        while let Ok((front, _)) = front.accept().await {
            let back = TcpStream::connect(to).await.unwrap();
            let ((up, to_front), (down, to_back)) = (front.into_split(), back.into_split());
            passing.spawn(pass(up, to_back, held.clone()));
            passing.spawn(pass(down, to_front, held.clone()));
        }
    });
    Relay {
        address,
        is_held,
        _tasks: tasks,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_over_http2_counts_until_its_end_was_read() {
    let held = held(Way::H2).await;
    let (acceptor, mut ours) = (held.acceptor, held.ours);
    held.relay.is_held.send_replace(false);
    let over = async {
        while acceptor.stats().streams > 0 {
            sleep(Duration::from_millis(5)).await;
        }
        // An agent closes its session now.
        acceptor.close("nothing is left to be done").await;
    };
    let mut heard = Vec::new();
    let hear = async { ours.read_to_end(&mut heard).await.unwrap() };
    timeout(PATIENCE, async { tokio::join!(over, hear) })
        .await
        .expect("it comes to its end");
    assert!(heard == held.said);
}
