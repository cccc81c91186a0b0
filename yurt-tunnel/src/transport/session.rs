//! A session on a carrier: the link's decisions, done.

mod accept;
mod driver;
mod open;
mod purpose;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use yurt_core::transport::{
    Acceptor, Error, ErrorKind, Incoming, Open, Opener, Peer, Priority, Result, Session, State,
    Stats, Stream,
};

use self::accept::Offer;
use self::driver::Chore;
use self::purpose::Purposes;
use super::pipe::{Carrier, malformed, read_message, transport_error};
use crate::link::{Config, Event, Link, Role, StreamId};
use crate::wire::{Frame, Hello, PREFIX};

/// One end of a session; dropped, the session is over.
pub(super) struct Handle<C: Carrier> {
    core: Arc<Core<C>>,
    peer: Peer,
    state: watch::Receiver<State>,
    /// Streams that the peer wants; the end that opens has none.
    offers: Option<tokio::sync::Mutex<mpsc::Receiver<Box<Offer<C>>>>>,
    done: watch::Receiver<bool>,
    /// The driver; aborted with the handle.
    _driver: JoinSet<()>,
}

/// What the session's handle, its driver and its streams share.
struct Core<C: Carrier> {
    carrier: C,
    began: Instant,
    /// Wakes the driver when there is something to send or to wait for.
    changed: Notify,
    chores: mpsc::UnboundedSender<Chore>,
    inner: Mutex<Inner>,
}

/// Counts a stream until its last bytes have arrived.
struct Tail<C: Carrier>(Arc<Core<C>>);

/// The link, and who waits for its events.
struct Inner {
    link: Link,
    slots: HashMap<StreamId, Slot>,
    pings: HashMap<u64, oneshot::Sender<Duration>>,
    state: watch::Sender<State>,
    /// Frames that wait to be sent on the control pipe.
    control: Vec<u8>,
    purposes: Purposes,
}

/// Who waits for something to happen to a stream.
#[derive(Default)]
struct Slot {
    /// Told once when there is a place.
    placed: Option<oneshot::Sender<()>>,
    /// Told once when there will be none, or no answer.
    failed: Option<oneshot::Sender<Error>>,
    writer: Option<Waker>,
    reader: Option<Waker>,
    /// Who neither reads nor writes, and wants to know when the stream fails.
    watcher: Option<Waker>,
    failure: Option<(ErrorKind, String)>,
}

// === Handle ===

impl<C: Carrier> Handle<C> {
    /// Says hello on the control pipe and begins; the caller bounds the time.
    pub(super) async fn begin(carrier: C, peer: Peer, role: Role, config: Config) -> Result<Self> {
        let began = Instant::now();
        let pipe = match role {
            Role::Opener => carrier.open(Priority::Interactive).await,
            Role::Acceptor => carrier.accept().await,
        };
        let (mut send, mut receive) = pipe.map_err(|error| transport_error(&error))?;
        let mut purposes = Purposes::default();
        let mut hello = Vec::new();
        purposes.encode(&Frame::Hello(config.hello()), &mut hello);
        let said = async {
            send.write_all(&hello).await?;
            send.flush().await?;
            let (kind, body) = read_message(&mut receive).await?;
            purposes.received(None, PREFIX + body.len());
            match Frame::decode(kind, &body).map_err(malformed)? {
                Some(Frame::Hello(hello)) => Ok(hello),
                _ => Err(malformed(crate::wire::Malformed("no hello"))),
            }
        };
        let hello: Hello = said.await.map_err(|error| transport_error(&error))?;
        let inbox = match role {
            Role::Opener => None,
            Role::Acceptor => Some(mpsc::channel(config.backlog)),
        };
        let link = Link::new(role, config, hello, Duration::ZERO)?;
        let link = match C::TELLS_ARRIVAL {
            true => link,
            false => link.telling_ends(),
        };
        let (state_tx, state) = watch::channel(State::Open);
        let (offers_tx, offers) = inbox.unzip();
        let (done_tx, done) = watch::channel(false);
        // As many as there are offers, and those are bounded.
        let (chores, chores_rx) = mpsc::unbounded_channel();
        let core = Arc::new(Core {
            carrier,
            began,
            changed: Notify::new(),
            chores,
            inner: Mutex::new(Inner {
                link,
                slots: HashMap::new(),
                pings: HashMap::new(),
                state: state_tx,
                control: Vec::new(),
                purposes,
            }),
        });
        let mut driver = JoinSet::new();
        let drive = driver::drive(core.clone(), (send, receive), offers_tx, chores_rx);
        driver.spawn(async move {
            drive.await;
            done_tx.send_replace(true);
        });
        Ok(Self {
            core,
            peer,
            state,
            offers: offers.map(tokio::sync::Mutex::new),
            done,
            _driver: driver,
        })
    }

    /// The reason for which the session is over.
    fn closed(&self) -> Error {
        closed(&self.state.borrow())
    }
}

impl<C: Carrier> fmt::Debug for Handle<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer.user)
            .field("remote", &self.remote())
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

impl<C: Carrier> Drop for Handle<C> {
    fn drop(&mut self) {
        let reason = "its owner dropped it";
        self.core.with(|inner, _| inner.link.close(reason));
        self.core.carrier.close(reason);
    }
}

#[async_trait]
impl<C: Carrier> Session for Handle<C> {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn remote(&self) -> SocketAddr {
        self.core.carrier.path().remote
    }

    fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    async fn ping(&self) -> Result<Duration> {
        let (tx, rx) = oneshot::channel();
        self.core.with(|inner, now| {
            inner.pings.retain(|_, asker| !asker.is_closed());
            let number = inner.link.ping(now);
            inner.pings.insert(number, tx);
        });
        let mut state = self.state.clone();
        tokio::select! {
            answered = rx => answered.map_err(|_| self.closed()),
            _ = state.wait_for(|state| matches!(state, State::Closed { .. })) => Err(self.closed()),
        }
    }

    fn drain(&self) {
        self.core.with(|inner, _| inner.link.drain());
    }

    async fn close(&self, reason: &str) {
        self.core.with(|inner, _| inner.link.close(reason));
        let mut done = self.done.clone();
        // An error is a driver that is gone, which is what is waited for.
        let _ = done.wait_for(|done| *done).await;
    }

    fn stats(&self) -> Stats {
        let path = self.core.carrier.path();
        let mut stats = Stats::default();
        self.core.with(|inner, _| {
            let counts = inner.link.counts();
            stats.streams = inner.link.streams() as u64 + inner.link.tails();
            stats.opened = counts.opened;
            stats.reset = counts.reset;
            stats.sent = counts.sent;
            stats.received = counts.received;
            stats.stalls = counts.stalls;
            stats.keep_alive = inner.purposes.keep_alive;
            stats.control = inner.purposes.control;
            stats.credit = inner.link.exposure();
            stats.round_trip = path.round_trip.or(inner.link.round_trip());
        });
        stats.wire = path.wire;
        stats.lost = path.lost;
        stats.migrations = path.migrations;
        stats
    }
}

#[async_trait]
impl<C: Carrier> Opener for Handle<C> {
    async fn open(&self, open: Open) -> Result<Box<dyn Stream>> {
        open::open(&self.core, open).await
    }
}

#[async_trait]
impl<C: Carrier> Acceptor for Handle<C> {
    async fn accept(&self) -> Result<Box<dyn Incoming>> {
        let Some(offers) = &self.offers else {
            let message = "the end that listened accepts no streams";
            return Err(Error::new(ErrorKind::Other, message));
        };
        match offers.lock().await.recv().await {
            Some(offer) => Ok(offer),
            None => Err(self.closed()),
        }
    }
}

// === Core ===

impl<C: Carrier> Core<C> {
    /// Does something with the link, now, and then what follows from it.
    fn with<T>(&self, act: impl FnOnce(&mut Inner, Duration) -> T) -> T {
        let now = self.began.elapsed();
        let mut inner = self.inner.lock();
        let result = act(&mut inner, now);
        if inner.settle() {
            self.changed.notify_one();
        }
        result
    }

    /// Counts a message on a stream's own pipe.
    fn said(&self, bytes: usize) {
        self.with(|inner, _| inner.purposes.control.sent += bytes as u64);
    }

    fn heard(&self, bytes: usize) {
        self.with(|inner, _| inner.purposes.control.received += bytes as u64);
    }

    /// Has something done that outlives who wants it, as long as the session lives.
    fn later(&self, chore: impl Future<Output = ()> + Send + 'static) {
        // A session that is over does nothing more.
        let _ = self.chores.send(Box::pin(chore));
    }
}

// === Tail ===

impl<C: Carrier> Tail<C> {
    fn new(core: &Arc<Core<C>>) -> Self {
        core.with(|inner, _| inner.link.tail_begins());
        Self(core.clone())
    }
}

impl<C: Carrier> Drop for Tail<C> {
    fn drop(&mut self) {
        self.0.with(|inner, _| inner.link.tail_arrives());
    }
}

// === Inner ===

impl Inner {
    /// Tells who waits; returns whether the driver has something to do.
    fn settle(&mut self) -> bool {
        let mut is_changed = false;
        while let Some(event) = self.link.poll() {
            is_changed |= matches!(event, Event::Send(_) | Event::State(_) | Event::Begin(_));
            match event {
                Event::Send(frame) => self.purposes.encode(&frame, &mut self.control),
                Event::Begin(id) => self.begin(id),
                Event::Fail(id, kind, message) => self.fail(id, kind, message),
                Event::Credit(id) => self.wake(id),
                Event::Pong(number, round_trip) => {
                    if let Some(asker) = self.pings.remove(&number) {
                        let _ = asker.send(round_trip); // who asked may be gone
                    }
                }
                Event::State(state) => {
                    self.state.send_replace(state);
                }
            }
        }
        is_changed
    }

    fn begin(&mut self, id: StreamId) {
        let slot = self.slots.get_mut(&id);
        if let Some(placed) = slot.and_then(|slot| slot.placed.take()) {
            let _ = placed.send(()); // who opens may be gone
        }
    }

    fn fail(&mut self, id: StreamId, kind: ErrorKind, message: String) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.failure = Some((kind, message.clone()));
        for waker in [slot.writer.take(), slot.reader.take(), slot.watcher.take()] {
            waker.into_iter().for_each(Waker::wake);
        }
        if let Some(failed) = slot.failed.take() {
            let _ = failed.send(Error::new(kind, message)); // who opens may be gone
        }
    }

    fn wake(&mut self, id: StreamId) {
        if let Some(writer) = self.slots.get_mut(&id).and_then(|slot| slot.writer.take()) {
            writer.wake();
        }
    }
}

fn closed(state: &State) -> Error {
    match state {
        State::Closed { reason, .. } => Error::new(ErrorKind::Closed, reason.clone()),
        State::Open | State::Draining => Error::new(ErrorKind::Closed, "the session has ended"),
    }
}
