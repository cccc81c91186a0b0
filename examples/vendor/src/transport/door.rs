//! Where nodes call: for a session, or to join it with a stream.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use yurt_core::transport::{Listener, Opener, Peer, Result};

use super::HANDSHAKE;
use super::link::Link;
use super::message::{self, Message};
use super::session::TcpOpener;

/// Callers that have not said what they want, and sessions that nobody has taken; more are hung up on.
const CALLERS: usize = 512;

/// A listener of the transport.
#[derive(Debug)]
pub(super) struct TcpDoor {
    address: SocketAddr,
    desk: Arc<Desk>,
    answering: Arc<Answering>,
    arrivals: tokio::sync::Mutex<mpsc::Receiver<Arrival>>,
}

/// Who takes calls. Sessions keep it, as their streams come this way when the listener is gone, too.
#[derive(Debug)]
pub(super) struct Answering {
    _tasks: JoinSet<()>,
}

/// What is needed to answer a call.
#[derive(Debug)]
struct Desk {
    peer: Peer,
    sessions: Mutex<HashMap<u64, Weak<Link>>>,
}

/// A node that has said who it is.
#[derive(Debug)]
struct Arrival {
    socket: TcpStream,
    peer: Peer,
    remote: SocketAddr,
    session: u64,
}

impl TcpDoor {
    pub(super) fn open(listener: TcpListener, peer: Peer) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (arrivals_tx, arrivals) = mpsc::channel(CALLERS);
        let desk = Arc::new(Desk {
            peer,
            sessions: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(answer_all(listener, Arc::clone(&desk), arrivals_tx));
        Ok(Self {
            address,
            desk,
            answering: Arc::new(Answering { _tasks: tasks }),
            arrivals: tokio::sync::Mutex::new(arrivals),
        })
    }
}

#[async_trait]
impl Listener for TcpDoor {
    fn address(&self) -> SocketAddr {
        self.address
    }

    async fn accept(&self) -> Option<Result<Arc<dyn Opener>>> {
        let arrival = self.arrivals.lock().await.recv().await?;
        let Arrival {
            socket,
            peer,
            remote,
            session,
        } = arrival;
        let answering = Arc::clone(&self.answering);
        let opener = TcpOpener::begin(socket, peer, remote, answering);
        let mut sessions = self.desk.sessions.lock();
        sessions.retain(|_, link| link.strong_count() > 0);
        sessions.insert(session, Arc::downgrade(opener.link()));
        Some(Ok(Arc::new(opener)))
    }
}

/// Takes calls side by side until it is aborted.
async fn answer_all(listener: TcpListener, desk: Arc<Desk>, arrivals: mpsc::Sender<Arrival>) {
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = calls.join_next() => {}
            Ok((socket, remote)) = listener.accept(), if calls.len() < CALLERS => {
                let (desk, arrivals) = (Arc::clone(&desk), arrivals.clone());
                calls.spawn(async move {
                    // Whoever is slow, or speaks another language, is hung up on.
                    let _hung_up = timeout(HANDSHAKE, answer(socket, remote, &desk, &arrivals)).await;
                });
            }
        }
    }
}

async fn answer(
    mut socket: TcpStream,
    remote: SocketAddr,
    desk: &Desk,
    arrivals: &mpsc::Sender<Arrival>,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    match message::read(&mut socket).await? {
        Message::Join { session, stream } => {
            let link = desk.sessions.lock().get(&session).and_then(Weak::upgrade);
            if let Some(link) = link {
                link.join(stream, socket).await;
            }
        }
        hello => {
            let Some((peer, _)) = hello.into_peer() else {
                return Ok(());
            };
            let Ok(place) = arrivals.try_reserve() else {
                return Ok(());
            };
            let session = fastrand::u64(..);
            message::write(&mut socket, &Message::hello(&desk.peer, session)).await?;
            place.send(Arrival {
                socket,
                peer,
                remote,
                session,
            });
        }
    }
    Ok(())
}
