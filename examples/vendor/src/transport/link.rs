//! What a session knows: its streams, what waits to be accepted, and what is to be said to the peer.

mod hear;
mod open;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use yurt_core::transport::{Error, ErrorKind, Open, Result, State, Stats};

use super::BUFFER;
use super::message::Message;
use super::stream::{Fate, TcpTunnelStream};

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
