//! A session in memory: what its two ends share, and the opens on their way from one to the other.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::pipe::{BothCounts, Channel, MemoryStream, Side, WINDOW};
use crate::transport::{
    Acceptor, Error, ErrorKind, Incoming, MAX_MESSAGE_LEN, Open, Opener, Peer, Result, Session,
    State, Stats, Stream,
};

/// Streams of a session at once.
pub(crate) const LIMIT: usize = 512;

/// Opens that nobody has taken yet, before more are refused.
const UNTAKEN: usize = 64;

/// Returns both ends of a session, each an identity with its address, and what they share.
pub(super) fn session(
    (server, listener): (Peer, SocketAddr),
    (node, remote): (Peer, SocketAddr),
) -> (MemoryOpener, MemoryAcceptor, Arc<Link>) {
    let link = Arc::new(Link {
        state: watch::Sender::new(State::Open),
        way: Mutex::default(),
        arrived: Notify::new(),
        slots: Arc::new(Semaphore::new(LIMIT)),
        opened: AtomicU64::new(0),
        is_frozen: AtomicBool::new(false),
        counts: Arc::default(),
    });
    let end = |side, peer, remote| End {
        link: Arc::clone(&link),
        side,
        peer,
        remote,
    };
    let opener = MemoryOpener(end(Side::Opener, node, remote));
    let acceptor = MemoryAcceptor(end(Side::Acceptor, server, listener));
    (opener, acceptor, link)
}

// === Link ===

#[derive(Debug)]
pub(super) struct Link {
    state: watch::Sender<State>,
    way: Mutex<Way>,
    arrived: Notify,
    slots: Arc<Semaphore>,
    opened: AtomicU64,
    is_frozen: AtomicBool,
    counts: Arc<BothCounts>,
}

#[derive(Debug, Default)]
struct Way {
    last_id: u64,
    offers: VecDeque<Offer>,
    channels: Vec<Weak<Channel>>,
}

/// An open that the acceptor has not taken yet.
#[derive(Debug)]
struct Offer {
    open: Open,
    since: Instant,
    channel: Arc<Channel>,
    answer: oneshot::Sender<Result<MemoryStream>>,
}

impl Link {
    /// Waits for a place among the streams.
    async fn place(&self) -> Result<OwnedSemaphorePermit> {
        let mut state = self.state.subscribe();
        let slots = Arc::clone(&self.slots);
        tokio::select! {
            biased;
            _ = state.wait_for(|state| *state != State::Open) => Err(self.refusal()),
            permit = slots.acquire_owned() => permit.map_err(|_| self.refusal()),
        }
    }

    async fn open(
        &self,
        open: Open,
        since: Instant,
        permit: OwnedSemaphorePermit,
    ) -> Result<MemoryStream> {
        let mut state = self.state.subscribe();
        let mut waiting = self.offer(open, since, permit)?;
        tokio::select! {
            biased;
            answer = &mut waiting.answer => answer.unwrap_or_else(|_| Err(self.refusal())),
            _ = state.wait_for(|state| matches!(state, State::Closed { .. })) => Err(self.refusal()),
        }
    }

    fn offer(
        &self,
        open: Open,
        since: Instant,
        permit: OwnedSemaphorePermit,
    ) -> Result<Waiting<'_>> {
        let mut way = self.way();
        if *self.state.borrow() != State::Open {
            return Err(self.refusal());
        }
        way.channels.retain(|channel| channel.strong_count() > 0);
        if way.offers.len() >= UNTAKEN {
            let message = format!("{UNTAKEN} streams wait to be accepted");
            return Err(Error::new(ErrorKind::Overloaded, message));
        }
        way.last_id += 1;
        let channel = Channel::new(way.last_id, Arc::clone(&self.counts), permit);
        let channel = Arc::new(channel);
        way.channels.push(Arc::downgrade(&channel));
        let (answer, answered) = oneshot::channel();
        way.offers.push_back(Offer {
            open,
            since,
            channel,
            answer,
        });
        self.arrived.notify_one();
        Ok(Waiting {
            link: self,
            answer: answered,
        })
    }

    async fn take(self: &Arc<Self>) -> Result<MemoryIncoming> {
        loop {
            let mut arrival = std::pin::pin!(self.arrived.notified());
            arrival.as_mut().enable();
            if matches!(*self.state.borrow(), State::Closed { .. }) {
                return Err(self.refusal());
            }
            let offer = self.way().offers.pop_front();
            match offer {
                Some(offer) if offer.answer.is_closed() => {}
                Some(offer) => return Ok(MemoryIncoming::new(self, offer)),
                None => arrival.await,
            }
        }
    }

    /// Ends the session and all of its streams, unless it has ended.
    pub(super) fn end(&self, kind: ErrorKind, reason: &str) {
        let mut way = self.way();
        let is_first = self.state.send_if_modified(|state| {
            let is_first = !matches!(state, State::Closed { .. });
            if is_first {
                let reason = reason.to_owned();
                *state = State::Closed { kind, reason };
            }
            is_first
        });
        if !is_first {
            return;
        }
        self.slots.close();
        let (offers, channels) = (
            std::mem::take(&mut way.offers),
            std::mem::take(&mut way.channels),
        );
        drop(way);
        for channel in channels.iter().filter_map(Weak::upgrade) {
            channel.fail(ErrorKind::Closed);
        }
        drop(offers);
        self.arrived.notify_waiters();
    }

    /// Answers no ping from now on.
    pub(super) fn freeze(&self) {
        self.is_frozen.store(true, Ordering::Relaxed);
    }

    async fn ping(&self) -> Result<Duration> {
        let mut state = self.state.subscribe();
        let is_closed = |state: &State| matches!(state, State::Closed { .. });
        if self.is_frozen.load(Ordering::Relaxed) {
            // An error is a session that is gone.
            let _ = state.wait_for(is_closed).await;
        }
        if is_closed(&state.borrow()) {
            return Err(self.refusal());
        }
        Ok(Duration::ZERO)
    }

    fn drain(&self) {
        let _way = self.way();
        self.state.send_if_modified(|state| {
            let is_open = *state == State::Open;
            if is_open {
                *state = State::Draining;
            }
            is_open
        });
    }

    /// Why there is no new stream in this state.
    fn refusal(&self) -> Error {
        match &*self.state.borrow() {
            State::Open => Error::new(ErrorKind::Other, "the peer did not answer the open"),
            State::Draining => Error::new(ErrorKind::Draining, "the session takes no new streams"),
            State::Closed { reason, .. } => {
                Error::new(ErrorKind::Closed, format!("the session is over: {reason}"))
            }
        }
    }

    fn stats(&self, side: Side) -> Stats {
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let streams = (LIMIT - self.slots.available_permits().min(LIMIT)) as u64;
        let own = self.counts.of(side);
        Stats {
            streams,
            opened: count(&self.opened),
            reset: count(&own.reset),
            sent: count(&own.sent),
            received: count(&own.received),
            credit: streams * WINDOW as u64,
            stalls: count(&own.stalls),
            round_trip: Some(Duration::ZERO),
            ..Stats::default()
        }
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().expect("no holder of this lock panics")
    }
}

/// An open that waits for its answer; without one it is cancelled when it is dropped.
struct Waiting<'a> {
    link: &'a Link,
    answer: oneshot::Receiver<Result<MemoryStream>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answer.is_terminated() {
            self.answer.close();
            let mut way = self.link.way();
            way.offers.retain(|offer| !offer.answer.is_closed());
        }
    }
}

// === MemoryOpener, MemoryAcceptor ===

/// One end of a session; the session is over when it is dropped.
#[derive(Debug)]
pub(super) struct End {
    link: Arc<Link>,
    side: Side,
    peer: Peer,
    remote: SocketAddr,
}

impl Drop for End {
    fn drop(&mut self) {
        self.link.end(ErrorKind::Closed, "its owner has dropped it");
    }
}

#[derive(Debug)]
pub(super) struct MemoryOpener(End);

#[derive(Debug)]
pub(super) struct MemoryAcceptor(End);

#[async_trait]
impl Opener for MemoryOpener {
    async fn open(&self, open: Open) -> Result<Box<dyn Stream>> {
        let (target, deadline) = (open.target.clone(), open.deadline);
        let (link, since) = (&self.0.link, Instant::now());
        let permit = timeout_at(since + deadline, link.place()).await;
        let permit = permit.map_err(|_| {
            let message = format!("open {target}: {LIMIT} streams are open");
            Error::new(ErrorKind::Overloaded, message)
        })??;
        let opened = timeout_at(since + deadline, link.open(open, since, permit)).await;
        let stream = opened.map_err(|_| {
            let message = format!("open {target}: no answer within {deadline:?}");
            Error::new(ErrorKind::Timeout, message)
        })??;
        Ok(Box::new(stream))
    }
}

#[async_trait]
impl Acceptor for MemoryAcceptor {
    async fn accept(&self) -> Result<Box<dyn Incoming>> {
        Ok(Box::new(self.0.link.take().await?))
    }
}

macro_rules! session_by_its_end {
    ($($session:ident)*) => {
        $(
            #[async_trait]
            impl Session for $session {
                fn peer(&self) -> &Peer {
                    &self.0.peer
                }

                fn remote(&self) -> SocketAddr {
                    self.0.remote
                }

                fn state(&self) -> watch::Receiver<State> {
                    self.0.link.state.subscribe()
                }

                async fn ping(&self) -> Result<Duration> {
                    self.0.link.ping().await
                }

                fn drain(&self) {
                    self.0.link.drain();
                }

                async fn close(&self, reason: &str) {
                    self.0.link.end(ErrorKind::Closed, reason);
                }

                fn stats(&self) -> Stats {
                    self.0.link.stats(self.0.side)
                }
            }
        )*
    };
}

session_by_its_end!(MemoryOpener MemoryAcceptor);

// === MemoryIncoming ===

#[derive(Debug)]
struct MemoryIncoming {
    link: Arc<Link>,
    request: Open,
    channel: Arc<Channel>,
    /// Until it was used.
    answer: Option<oneshot::Sender<Result<MemoryStream>>>,
}

impl MemoryIncoming {
    fn new(link: &Arc<Link>, offer: Offer) -> Self {
        let mut request = offer.open;
        request.deadline = request.deadline.saturating_sub(offer.since.elapsed());
        Self {
            link: Arc::clone(link),
            request,
            channel: offer.channel,
            answer: Some(offer.answer),
        }
    }

    fn answer(&mut self, answer: Result<MemoryStream>) -> Result<()> {
        let Some(sender) = self.answer.take() else {
            return Ok(());
        };
        let gave_up = || Error::new(ErrorKind::Reset(0), "nobody waits for this stream any more");
        sender.send(answer).map_err(|_| gave_up())
    }
}

#[async_trait]
impl Incoming for MemoryIncoming {
    fn request(&self) -> &Open {
        &self.request
    }

    async fn cancelled(&mut self) {
        if let Some(answer) = &mut self.answer {
            answer.closed().await;
        }
    }

    async fn accept(mut self: Box<Self>) -> Result<Box<dyn Stream>> {
        if matches!(*self.link.state.borrow(), State::Closed { .. }) {
            return Err(self.link.refusal());
        }
        let theirs = MemoryStream::new(Arc::clone(&self.channel), Side::Opener);
        let ours = MemoryStream::new(Arc::clone(&self.channel), Side::Acceptor);
        self.answer(Ok(theirs))?;
        self.link.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(ours))
    }

    fn reject(mut self: Box<Self>, why: Error) {
        let mut message = why.to_string();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_LEN));
        let _nobody_waits = self.answer(Err(Error::new(why.kind(), message)));
    }
}

impl Drop for MemoryIncoming {
    fn drop(&mut self) {
        if self.answer.is_some() {
            let why = Error::new(ErrorKind::Other, "the peer has dropped the open");
            let _nobody_waits = self.answer(Err(why));
        }
    }
}
