//! What a session knows: its streams, what waits to be accepted, and what is to be said to the peer.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use yurt_core::transport::{Error, ErrorKind, Open, Priority, Result, State, Stats};

use super::BUFFER;
use super::message::{self, Message};
use super::stream::{DROPPED, Fate, TcpTunnelStream};

/// Streams of a session at once: each takes a file descriptor.
pub const LIMIT: usize = 320;

/// Opens that wait to be accepted; more are refused.
const BACKLOG: usize = 64;

/// Messages that wait to be written; a peer that takes none is given up.
const OUTBOX: usize = 1024;

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Opener,
    Acceptor,
}

#[derive(Debug)]
pub(super) struct Link {
    side: Side,
    state: watch::Sender<State>,
    outbox: mpsc::Sender<Message>,
    places: Arc<Semaphore>,
    arrived: Notify,
    inner: Mutex<Inner>,
    pub(super) counts: Counts,
}

#[derive(Debug, Default)]
struct Inner {
    last_id: u64,
    streams: HashMap<u64, Entry>,
    offers: VecDeque<Offer>,
    pings: HashMap<u64, oneshot::Sender<()>>,
}

/// A stream that has not ended.
#[derive(Debug)]
struct Entry {
    fate: Arc<Fate>,
    /// Who waits for the peer's answer.
    answer: Option<oneshot::Sender<Result<TcpTunnelStream>>>,
    _place: Option<OwnedSemaphorePermit>,
}

/// A stream that the peer wants.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) id: u64,
    pub(super) open: Open,
    pub(super) since: Instant,
    pub(super) fate: Arc<Fate>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) opened: AtomicU64,
    pub(super) reset: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) stalls: AtomicU64,
    /// In microseconds, or none yet.
    pub(super) round_trip: AtomicU64,
}

impl Link {
    /// Returns a link and the messages that it wants written.
    pub(super) fn new(side: Side) -> (Arc<Self>, mpsc::Receiver<Message>) {
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let link = Self {
            side,
            state: watch::Sender::new(State::Open),
            outbox,
            places: Arc::new(Semaphore::new(LIMIT)),
            arrived: Notify::new(),
            inner: Mutex::default(),
            counts: Counts::default(),
        };
        (Arc::new(link), messages)
    }

    // === Opening ===

    pub(super) async fn open(self: &Arc<Self>, open: Open) -> Result<TcpTunnelStream> {
        let mut state = self.state();
        let places = Arc::clone(&self.places);
        let since = Instant::now();
        let place = tokio::select! {
            biased;
            _ = state.wait_for(|state| *state != State::Open) => return Err(self.refusal()),
            place = places.acquire_owned() => place.map_err(|_| self.refusal())?,
        };
        let left = open.deadline.saturating_sub(since.elapsed());
        let mut waiting = self.ask(
            Open {
                deadline: left,
                ..open
            },
            place,
        )?;
        let stream = (&mut waiting.answer).await.map_err(|_| self.refusal())??;
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        Ok(stream)
    }

    fn ask(self: &Arc<Self>, open: Open, place: OwnedSemaphorePermit) -> Result<Waiting> {
        let (answer_tx, answer) = oneshot::channel();
        let mut inner = self.inner.lock();
        if *self.state.borrow() != State::Open {
            return Err(self.refusal());
        }
        inner.last_id += 1;
        let id = inner.last_id;
        let message = Message::open(id, &open)?;
        let entry = Entry {
            fate: Arc::default(),
            answer: Some(answer_tx),
            _place: Some(place),
        };
        inner.streams.insert(id, entry);
        drop(inner);
        self.say(message);
        Ok(Waiting {
            link: Arc::clone(self),
            id,
            answer,
        })
    }

    /// Takes the connection of a stream that was asked for.
    pub(super) async fn join(self: &Arc<Self>, id: u64, mut socket: TcpStream) {
        let asked = self.inner.lock().streams.get_mut(&id).and_then(|entry| {
            let answer = entry.answer.take()?;
            Some((answer, Arc::clone(&entry.fate)))
        });
        let Some((answer, fate)) = asked else {
            return;
        };
        if message::welcome(&mut socket).await.is_ok() {
            let stream = TcpTunnelStream::new(id, Arc::clone(self), fate, socket);
            // Who asked may be gone; then the stream is dropped, and so reset.
            let _gone = answer.send(Ok(stream));
        }
    }

    /// Returns the next stream that the peer wants.
    pub(super) async fn take(&self) -> Result<Offer> {
        loop {
            let mut arrival = std::pin::pin!(self.arrived.notified());
            arrival.as_mut().enable();
            if matches!(*self.state.borrow(), State::Closed { .. }) {
                return Err(self.refusal());
            }
            let offer = self.inner.lock().offers.pop_front();
            match offer {
                Some(offer) => return Ok(offer),
                None => arrival.await,
            }
        }
    }

    pub(super) fn reject(&self, id: u64, why: &Error) {
        self.forget(id);
        self.say(Message::reject(id, why));
    }

    // === Ending ===

    /// Tells the peer that a stream is reset, unless it has ended.
    pub(super) fn reset(&self, id: u64, code: u16) {
        if self.forget(id) {
            self.counts.reset.fetch_add(1, Ordering::Relaxed);
            self.say(Message::Reset { stream: id, code });
        }
    }

    /// Gives a stream's place to another; returns whether it had one.
    pub(super) fn forget(&self, id: u64) -> bool {
        self.inner.lock().streams.remove(&id).is_some()
    }

    pub(super) fn drain(&self) {
        self.set_draining();
        self.say(Message::Drain);
    }

    fn set_draining(&self) {
        self.state.send_if_modified(|state| {
            let is_open = *state == State::Open;
            if is_open {
                *state = State::Draining;
            }
            is_open
        });
    }

    /// Ends the session and all of its streams, unless it has ended.
    pub(super) fn end(&self, kind: ErrorKind, reason: &str) {
        let inner = {
            let mut inner = self.inner.lock();
            self.state.send_if_modified(|state| {
                let is_first = !matches!(state, State::Closed { .. });
                if is_first {
                    let reason = reason.to_owned();
                    *state = State::Closed { kind, reason };
                }
                is_first
            });
            std::mem::take(&mut *inner)
        };
        self.places.close();
        for entry in inner.streams.values() {
            entry.fate.fail(ErrorKind::Closed);
        }
        self.arrived.notify_waiters();
    }

    // === The peer ===

    /// Does what the peer says.
    pub(super) fn on_message(&self, message: Message) {
        match message {
            Message::Open {
                stream,
                target,
                is_bulk,
                deadline,
            } => match target.target() {
                Some(target) if self.side == Side::Acceptor => self.on_open(
                    stream,
                    Open {
                        target,
                        priority: if is_bulk {
                            Priority::Bulk
                        } else {
                            Priority::Interactive
                        },
                        deadline: Duration::from_millis(deadline),
                    },
                ),
                _ => self.end(ErrorKind::Protocol, "the peer asks for what cannot be"),
            },
            Message::Reject {
                stream,
                kind,
                message,
            } => self.on_end(stream, ErrorKind::Reset(DROPPED), || {
                Error::new(message::kind(&kind), message)
            }),
            Message::Reset { stream, code } => self.on_end(stream, ErrorKind::Reset(code), || {
                Error::new(ErrorKind::Reset(code), "the peer has reset the stream")
            }),
            Message::Ping { number } => self.say(Message::Pong { number }),
            Message::Pong { number } => {
                if let Some(asker) = self.inner.lock().pings.remove(&number) {
                    let _gone = asker.send(());
                }
            }
            Message::Drain => self.set_draining(),
            Message::Close { reason } => self.end(ErrorKind::Closed, &reason),
            Message::Hello { .. } | Message::Join { .. } => {
                self.end(ErrorKind::Protocol, "the peer says hello again");
            }
        }
    }

    fn on_open(&self, id: u64, open: Open) {
        let mut inner = self.inner.lock();
        let why = match *self.state.borrow() {
            State::Closed { .. } => return,
            State::Draining => Error::new(ErrorKind::Draining, "it takes no new streams"),
            State::Open if inner.offers.len() >= BACKLOG => {
                Error::new(ErrorKind::Overloaded, "nobody takes its streams")
            }
            State::Open => {
                let fate = Arc::<Fate>::default();
                let entry = Entry {
                    fate: Arc::clone(&fate),
                    answer: None,
                    _place: None,
                };
                inner.streams.insert(id, entry);
                inner.offers.push_back(Offer {
                    id,
                    open,
                    since: Instant::now(),
                    fate,
                });
                self.arrived.notify_one();
                return;
            }
        };
        drop(inner);
        self.say(Message::reject(id, &why));
    }

    /// The peer has ended a stream, or will not have it.
    fn on_end(&self, id: u64, kind: ErrorKind, why: impl FnOnce() -> Error) {
        let mut inner = self.inner.lock();
        inner.offers.retain(|offer| offer.id != id);
        let Some(entry) = inner.streams.remove(&id) else {
            return;
        };
        drop(inner);
        entry.fate.fail(kind);
        match entry.answer {
            Some(answer) => {
                let _gone = answer.send(Err(why()));
            }
            None => {
                self.counts.reset.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Has a ping written; the answer wakes the receiver.
    pub(super) fn ping(&self) -> oneshot::Receiver<()> {
        let (answer_tx, answer) = oneshot::channel();
        let number = fastrand::u64(..);
        let mut inner = self.inner.lock();
        inner.pings.retain(|_, asker| !asker.is_closed());
        inner.pings.insert(number, answer_tx);
        drop(inner);
        self.say(Message::Ping { number });
        answer
    }

    fn say(&self, message: Message) {
        if self.outbox.try_send(message).is_err() {
            self.end(ErrorKind::Closed, "the peer does not listen");
        }
    }

    // === What is known ===

    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Why there is no new stream in this state.
    pub(super) fn refusal(&self) -> Error {
        match &*self.state.borrow() {
            State::Open => Error::new(ErrorKind::Other, "the peer has not answered"),
            State::Draining => Error::new(ErrorKind::Draining, "the session takes no new streams"),
            State::Closed { reason, .. } => Error::new(ErrorKind::Closed, reason.clone()),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let mut stats = Stats::default();
        stats.streams = self.inner.lock().streams.len() as u64;
        stats.opened = count(&self.counts.opened);
        stats.reset = count(&self.counts.reset);
        stats.sent = count(&self.counts.sent);
        stats.received = count(&self.counts.received);
        stats.stalls = count(&self.counts.stalls);
        // The kernel doubles what it is asked for.
        stats.credit = stats.streams * 2 * u64::from(BUFFER);
        let round_trip = count(&self.counts.round_trip);
        stats.round_trip = (round_trip > 0).then(|| Duration::from_micros(round_trip));
        stats
    }
}

/// An open that waits for its answer; the peer is told when it is dropped without one.
struct Waiting {
    link: Arc<Link>,
    id: u64,
    answer: oneshot::Receiver<Result<TcpTunnelStream>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answer.is_terminated() && self.link.forget(self.id) {
            let (stream, code) = (self.id, DROPPED);
            self.link.say(Message::Reset { stream, code });
        }
    }
}
