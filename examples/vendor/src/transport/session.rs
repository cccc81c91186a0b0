//! The two ends of a session, and the task that talks for each.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{BufReader, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};
use yurt_core::transport::{
    Acceptor, ErrorKind, Incoming, Open, Opener, Peer, Result, Session, State, Stats, Stream,
};

use super::door::Answering;
use super::incoming::TcpIncoming;
use super::link::{Link, Offer, Side};
use super::message::{self, Message};

/// A sign of life is sent this often.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A peer that has given none for so long, or takes nothing, is gone.
const SILENCE: Duration = Duration::from_secs(15);

/// One end of a session; dropped, the session is over.
#[derive(Debug)]
struct End {
    link: Arc<Link>,
    peer: Peer,
    remote: SocketAddr,
    is_done: watch::Receiver<bool>,
    _talking: JoinSet<()>,
}

impl End {
    fn begin(socket: TcpStream, peer: Peer, remote: SocketAddr, side: Side) -> Self {
        let (link, messages) = Link::new(side);
        let (done, is_done) = watch::channel(false);
        let mut talking = JoinSet::new();
        let talk = talk(Arc::clone(&link), socket, messages);
        talking.spawn(async move {
            talk.await;
            done.send_replace(true);
        });
        Self {
            link,
            peer,
            remote,
            is_done,
            _talking: talking,
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.link.end(ErrorKind::Closed, "its owner has dropped it");
    }
}

// === Talking ===

async fn talk(link: Arc<Link>, socket: TcpStream, messages: mpsc::Receiver<Message>) {
    let (reader, writer) = split(socket);
    tokio::join!(listen(&link, reader), speak(&link, writer, messages));
}

async fn listen(link: &Link, reader: ReadHalf<TcpStream>) {
    let mut reader = BufReader::new(reader);
    let hear = async {
        loop {
            match timeout(SILENCE, message::read(&mut reader)).await {
                Ok(Ok(message)) => link.on_message(message),
                Ok(Err(error)) => break link.end(kind_of(&error), "the peer has hung up"),
                Err(_) => break link.end(ErrorKind::Timeout, "the peer has gone silent"),
            }
        }
    };
    tokio::select! {
        () = hear => {}
        () = is_over(link) => {}
    }
}

async fn speak(
    link: &Link,
    mut writer: WriteHalf<TcpStream>,
    mut messages: mpsc::Receiver<Message>,
) {
    let mut alive = interval(KEEP_ALIVE);
    loop {
        let message = tokio::select! {
            biased;
            () = is_over(link) => break,
            Some(message) = messages.recv() => message,
            _ = alive.tick() => Message::Ping { number: 0 },
        };
        let written = timeout(SILENCE, message::write(&mut writer, &message)).await;
        if !matches!(written, Ok(Ok(()))) {
            link.end(ErrorKind::Closed, "the peer does not listen");
        }
    }
    let reason = link.refusal().to_string();
    // A peer that is gone needs no reason.
    let _gone = timeout(
        SILENCE,
        message::write(&mut writer, &Message::Close { reason }),
    )
    .await;
}

async fn is_over(link: &Link) {
    let mut state = link.state();
    let _over = state
        .wait_for(|state| matches!(state, State::Closed { .. }))
        .await;
}

fn kind_of(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::InvalidData => ErrorKind::Protocol,
        _ => ErrorKind::Closed,
    }
}

// === TcpOpener, TcpAcceptor ===

#[derive(Debug)]
pub(super) struct TcpOpener {
    end: End,
    _answering: Arc<Answering>,
}

impl TcpOpener {
    pub(super) fn begin(
        socket: TcpStream,
        peer: Peer,
        remote: SocketAddr,
        answering: Arc<Answering>,
    ) -> Self {
        Self {
            end: End::begin(socket, peer, remote, Side::Opener),
            _answering: answering,
        }
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.end.link
    }
}

#[async_trait]
impl Opener for TcpOpener {
    async fn open(&self, open: Open) -> Result<Box<dyn Stream>> {
        Ok(Box::new(self.end.link.open(open).await?))
    }
}

#[derive(Debug)]
pub(super) struct TcpAcceptor {
    end: End,
    session: u64,
}

impl TcpAcceptor {
    pub(super) fn begin(socket: TcpStream, peer: Peer, remote: SocketAddr, session: u64) -> Self {
        Self {
            end: End::begin(socket, peer, remote, Side::Acceptor),
            session,
        }
    }
}

#[async_trait]
impl Acceptor for TcpAcceptor {
    async fn accept(&self) -> Result<Box<dyn Incoming>> {
        let Offer {
            id,
            mut open,
            since,
            fate,
        } = self.end.link.take().await?;
        open.deadline = open.deadline.saturating_sub(since.elapsed());
        Ok(Box::new(TcpIncoming {
            link: Arc::clone(&self.end.link),
            id,
            open,
            fate,
            address: self.end.remote,
            session: self.session,
            is_answered: false,
        }))
    }
}

macro_rules! session_by_its_end {
    ($($session:ident)*) => {
        $(
            #[async_trait]
            impl Session for $session {
                fn peer(&self) -> &Peer {
                    &self.end.peer
                }

                fn remote(&self) -> SocketAddr {
                    self.end.remote
                }

                fn state(&self) -> watch::Receiver<State> {
                    self.end.link.state()
                }

                async fn ping(&self) -> Result<Duration> {
                    let link = &self.end.link;
                    let asked = Instant::now();
                    let answer = link.ping().await;
                    answer.map_err(|_| link.refusal())?;
                    let round_trip = asked.elapsed();
                    let micros = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
                    link.counts.round_trip.store(micros.max(1), Ordering::Relaxed);
                    Ok(round_trip)
                }

                fn drain(&self) {
                    self.end.link.drain();
                }

                async fn close(&self, reason: &str) {
                    self.end.link.end(ErrorKind::Closed, reason);
                    let mut is_done = self.end.is_done.clone();
                    // An error is a task that has ended, which is what is waited for.
                    let _ended = is_done.wait_for(|is_done| *is_done).await;
                }

                fn stats(&self) -> Stats {
                    self.end.link.stats()
                }
            }
        )*
    };
}

session_by_its_end!(TcpOpener TcpAcceptor);
