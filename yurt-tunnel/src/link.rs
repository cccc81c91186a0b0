//! One end of a session without I/O: which streams there are, who may send how much, and whether the peer lives.
//!
//! The shell round it moves bytes: it tells what the peer said and what the streams' owners did, each with the
//! time since the session began, takes the [`Event`]s that follow, and comes back at [`Link::timeout`]. Nothing
//! here reads a clock, so that a whole session can be lived through in virtual time.

mod credit;
mod liveness;
mod meter;
mod stream;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use yurt_core::transport::{Error, ErrorKind, Open, Priority, State};

use self::credit::Budget;
use self::liveness::Liveness;
use self::stream::{Phase, Stream};
use crate::wire::{Frame, Head, Hello, VERSION};

/// The number of a stream.
pub type StreamId = u64;

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end that opens streams.
    Opener,
    /// The end that accepts them.
    Acceptor,
}

/// What an end allows its peer, and how long it waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many streams may be open at once.
    pub streams: u64,
    /// How many streams may wait to be accepted; more are refused.
    pub backlog: usize,
    /// How many bytes of a stream the peer may send before any is read.
    pub window: u64,
    /// How far that grows for a stream that is read as fast as it arrives.
    pub max_window: u64,
    /// How much all windows that have grown may be together.
    pub budget: u64,
    /// The peer is asked for a sign of life after this silence.
    pub keep_alive: Duration,
    /// The session is over after this silence.
    pub liveness: Duration,
}

/// What the shell has to do.
#[derive(Debug)]
pub enum Event {
    /// Send this on the control pipe.
    Send(Frame),
    /// There is a place for the stream: begin its pipe with the head.
    Begin(StreamId),
    /// The stream is over before its end: fail its owner, and reset its pipe.
    Fail(StreamId, ErrorKind, String),
    /// There is credit for the stream again.
    Credit(StreamId),
    /// The peer has answered a ping of this number.
    Pong(u64, Duration),
    /// The session has come to this state.
    State(State),
}

/// What to say to a head.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Somebody may accept it.
    Offer,
    /// Nobody will.
    Refuse(ErrorKind, &'static str),
}

/// One end of a session.
#[derive(Debug)]
pub struct Link {
    role: Role,
    config: Config,
    /// What the peer takes.
    peer: Hello,
    state: State,
    streams: HashMap<StreamId, Stream>,
    /// Opens without a place, the oldest first.
    waiting: VecDeque<StreamId>,
    next_stream: StreamId,
    /// When opens that have no answer fail.
    deadlines: BTreeSet<(Duration, StreamId)>,
    /// The streams that count towards the peer's limit.
    placed: u64,
    /// The streams that were offered and not answered.
    offered: usize,
    budget: Budget,
    liveness: Liveness,
    events: VecDeque<Event>,
    counts: Counts,
}

/// What a link has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Streams that were opened or accepted.
    pub opened: u64,
    /// Streams that ended before their end.
    pub reset: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes read.
    pub received: u64,
    /// Times that a stream ran out of credit.
    pub stalls: u64,
}

impl Default for Config {
    /// A thousand streams, which cost 64 MiB when nobody reads any of them, and as much again for those that
    /// are read fast; silence is noticed after 5 s and ends the session after 30 s, so that a blackout of a
    /// quarter of a minute is lived through.
    fn default() -> Self {
        Self {
            streams: 1024,
            backlog: 128,
            window: 64 << 10,
            max_window: 8 << 20,
            budget: 64 << 20,
            keep_alive: Duration::from_secs(5),
            liveness: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// What to say first.
    #[must_use]
    pub fn hello(&self) -> Hello {
        Hello {
            version: VERSION,
            streams: self.streams,
            window: self.window,
        }
    }
}

impl Link {
    /// Begins when the peer has said hello.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] if the peer speaks another version.
    pub fn new(role: Role, config: Config, peer: Hello, now: Duration) -> Result<Self, Error> {
        if peer.version != VERSION {
            let message = format!("the peer speaks version {} and not {VERSION}", peer.version);
            return Err(Error::new(ErrorKind::Protocol, message));
        }
        Ok(Self {
            role,
            budget: Budget::new(&config),
            liveness: Liveness::new(&config, role, now),
            config,
            peer,
            state: State::Open,
            streams: HashMap::new(),
            waiting: VecDeque::new(),
            next_stream: 1,
            deadlines: BTreeSet::new(),
            placed: 0,
            offered: 0,
            events: VecDeque::new(),
            counts: Counts::default(),
        })
    }

    // === What the shell takes ===

    /// Returns the next thing to do.
    pub fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when to call [`on_timeout`](Self::on_timeout), if nothing happens before.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        if matches!(self.state, State::Closed { .. }) {
            return None;
        }
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let silence = self.liveness.timeout();
        Some(deadline.map_or(silence, |deadline| deadline.min(silence)))
    }

    /// Returns the state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns what has been counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns how many streams there are.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Returns how many bytes the peer may send before anything more is read.
    #[must_use]
    pub fn exposure(&self) -> u64 {
        self.streams.values().map(Stream::exposure).sum()
    }

    /// Returns the smoothed round trip of pings.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.liveness.round_trip()
    }

    /// Returns the number of the next ping, which is sent at once.
    pub fn ping(&mut self, now: Duration) -> u64 {
        let number = self.liveness.ping(now);
        self.events.push_back(Event::Send(Frame::Ping(number)));
        number
    }

    // === What the owners of streams do ===

    /// Wants a stream; [`Event::Begin`] follows when there is a place, or [`Event::Fail`].
    ///
    /// # Errors
    /// [`ErrorKind::Draining`] and [`ErrorKind::Closed`].
    pub fn open(&mut self, open: &Open, now: Duration) -> Result<StreamId, Error> {
        debug_assert_eq!(self.role, Role::Opener);
        match &self.state {
            State::Open => {}
            State::Draining => return Err(draining()),
            State::Closed { kind, reason } => return Err(Error::new(*kind, reason.clone())),
        }
        let id = self.next_stream;
        self.next_stream += 1;
        let deadline = now.saturating_add(open.deadline);
        let stream = Stream::asked(deadline, open.priority, self.peer.window, &self.config);
        self.streams.insert(id, stream);
        self.deadlines.insert((deadline, id));
        self.waiting.push_back(id);
        self.place();
        Ok(id)
    }

    /// Accepts a stream that was offered; `false` if it is gone.
    pub fn accept(&mut self, id: StreamId) -> bool {
        self.answered(id)
    }

    /// Returns how many bytes of the stream may be sent now.
    #[must_use]
    pub fn credit(&self, id: StreamId) -> u64 {
        self.streams.get(&id).map_or(0, Stream::credit)
    }

    /// Notes that the stream's owner has nothing left of its credit and more to send.
    pub fn stalled(&mut self) {
        self.counts.stalls += 1;
    }

    /// Notes that bytes were sent; returns the stream's priority if it has changed by this.
    pub fn sent(&mut self, id: StreamId, bytes: u64, now: Duration) -> Option<Priority> {
        self.counts.sent += bytes;
        let stream = self.streams.get_mut(&id)?;
        stream.sent(bytes);
        stream.meter(bytes, now)
    }

    /// Notes that the owner has read bytes: the peer gets credit for them.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] if the peer had no credit for them; the stream is over.
    pub fn received(
        &mut self,
        id: StreamId,
        bytes: u64,
        now: Duration,
    ) -> Result<Option<Priority>, Error> {
        self.liveness.heard(now);
        self.counts.received += bytes;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(None);
        };
        let round_trip = self.liveness.shortest();
        match stream.received(bytes, now, round_trip, &mut self.budget) {
            Ok(Some(limit)) => {
                let credit = Frame::Credit { stream: id, limit };
                self.events.push_back(Event::Send(credit));
            }
            Ok(None) => {}
            Err(error) => {
                self.remove(id, true);
                return Err(error);
            }
        }
        Ok(stream.meter(bytes, now))
    }

    /// Notes that the owner has ended its direction, after all bytes.
    pub fn finished(&mut self, id: StreamId) {
        self.half_ended(id, Stream::finished);
    }

    /// Notes that the owner has read the end of the peer's direction.
    pub fn ended(&mut self, id: StreamId) {
        self.half_ended(id, Stream::ended);
    }

    /// Forgets a stream that was cancelled, rejected, or reset by either end.
    pub fn forget(&mut self, id: StreamId) {
        self.remove(id, true);
    }

    /// Lets no more streams be opened, and tells the peer.
    pub fn drain(&mut self) {
        if self.state == State::Open {
            self.events.push_back(Event::Send(Frame::Drain));
            self.on_drain();
        }
    }

    /// Ends the session, and tells the peer.
    pub fn close(&mut self, reason: &str) {
        if !self.is_closed() {
            let (kind, reason) = (ErrorKind::Closed, reason.to_owned());
            self.events.push_back(Event::Send(Frame::Close {
                kind,
                reason: reason.clone(),
            }));
            self.end(kind, reason);
        }
    }

    // === What the peer does ===

    /// Takes a frame of the control pipe.
    pub fn on_frame(&mut self, frame: Frame, now: Duration) {
        if self.is_closed() {
            return;
        }
        self.liveness.heard(now);
        match frame {
            Frame::Hello(_) => self.fail(ErrorKind::Protocol, "the peer said hello twice"),
            Frame::Credit { stream, limit } => self.on_credit(stream, limit),
            Frame::Ping(number) => self.events.push_back(Event::Send(Frame::Pong(number))),
            Frame::Pong(number) => {
                if let Some(round_trip) = self.liveness.pong(number, now) {
                    self.events.push_back(Event::Pong(number, round_trip));
                }
            }
            Frame::Drain => self.on_drain(),
            Frame::Close { kind, reason } => {
                let kind = if kind == ErrorKind::Protocol {
                    kind
                } else {
                    ErrorKind::Closed
                };
                self.end(kind, reason);
            }
        }
    }

    /// Takes the head of a stream that the peer opens.
    pub fn on_head(&mut self, head: &Head) -> Verdict {
        let id = head.stream;
        if self.role == Role::Opener || self.streams.contains_key(&id) {
            return Verdict::Refuse(ErrorKind::Protocol, "a stream that is open already");
        }
        match self.state {
            State::Open => {}
            State::Draining => return Verdict::Refuse(ErrorKind::Draining, DRAINING),
            State::Closed { .. } => {
                return Verdict::Refuse(ErrorKind::Closed, "the session is over");
            }
        }
        if self.streams.len() as u64 >= self.config.streams || self.offered >= self.config.backlog {
            return Verdict::Refuse(ErrorKind::Overloaded, "too many streams wait here");
        }
        self.offered += 1;
        let stream = Stream::offered(head.open.priority, self.peer.window, &self.config);
        self.streams.insert(id, stream);
        Verdict::Offer
    }

    /// Takes the peer's acceptance; `false` if the stream is gone.
    pub fn on_accepted(&mut self, id: StreamId) -> bool {
        self.answered(id)
    }

    /// Takes the end of what carries the session.
    pub fn on_lost(&mut self, reason: &str) {
        self.end(ErrorKind::Closed, reason.to_owned());
    }

    /// Ends the session because the peer does not speak the protocol, and tells it.
    pub fn fail(&mut self, kind: ErrorKind, reason: &str) {
        if !self.is_closed() {
            let reason = reason.to_owned();
            self.events.push_back(Event::Send(Frame::Close {
                kind,
                reason: reason.clone(),
            }));
            self.end(kind, reason);
        }
    }

    /// Does what is due.
    pub fn on_timeout(&mut self, now: Duration) {
        if self.is_closed() {
            return;
        }
        self.expire(now);
        match self.liveness.on_timeout(now) {
            liveness::Due::Nothing => {}
            liveness::Due::Ping => {
                self.ping(now);
            }
            liveness::Due::Lost => {
                let silence = self.config.liveness.as_secs();
                self.end(
                    ErrorKind::Timeout,
                    format!("the peer was silent for {silence} s"),
                );
            }
        }
    }

    // === Inside ===

    fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Gives places to opens that wait, as far as the peer's limit goes.
    fn place(&mut self) {
        while self.placed < self.peer.streams {
            let Some(id) = self.waiting.pop_front() else {
                return;
            };
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.place();
                self.placed += 1;
                self.events.push_back(Event::Begin(id));
            }
        }
    }

    fn answered(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        if stream.phase() == Phase::Offered {
            self.offered -= 1;
        }
        if let Some(deadline) = stream.open() {
            self.deadlines.remove(&(deadline, id));
        }
        self.counts.opened += 1;
        true
    }

    fn half_ended(&mut self, id: StreamId, end: impl FnOnce(&mut Stream)) {
        if let Some(stream) = self.streams.get_mut(&id) {
            end(stream);
            if stream.is_over() {
                self.remove(id, false);
            }
        }
    }

    fn remove(&mut self, id: StreamId, early: bool) {
        let Some(stream) = self.streams.remove(&id) else {
            return;
        };
        if let Some(deadline) = stream.deadline() {
            self.deadlines.remove(&(deadline, id));
        }
        match stream.phase() {
            Phase::Waiting => self.waiting.retain(|waiting| *waiting != id),
            Phase::Asked => self.placed -= 1,
            Phase::Offered => self.offered -= 1,
            Phase::Open if self.role == Role::Opener => self.placed -= 1,
            Phase::Open => {}
        }
        if early && stream.phase() == Phase::Open {
            self.counts.reset += 1;
        }
        self.budget.give_back(stream.window());
        self.place();
    }

    fn expire(&mut self, now: Duration) {
        while let Some((deadline, id)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.remove(id, true);
            let message = "the peer did not answer in time".to_owned();
            self.events
                .push_back(Event::Fail(id, ErrorKind::Timeout, message));
        }
    }

    fn on_credit(&mut self, id: StreamId, limit: u64) {
        // A stream that is gone may still be told of: the two pipes are not ordered.
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.raise(limit)
        {
            self.events.push_back(Event::Credit(id));
        }
    }

    fn on_drain(&mut self) {
        if self.state != State::Open {
            return;
        }
        self.state = State::Draining;
        self.events.push_back(Event::State(State::Draining));
        while let Some(id) = self.waiting.front().copied() {
            self.remove(id, true);
            self.events
                .push_back(Event::Fail(id, ErrorKind::Draining, DRAINING.to_owned()));
        }
    }

    fn end(&mut self, kind: ErrorKind, reason: String) {
        if self.is_closed() {
            return;
        }
        let mut ids: Vec<_> = self.streams.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.events
                .push_back(Event::Fail(id, ErrorKind::Closed, reason.clone()));
        }
        self.counts.reset += self.streams.len() as u64;
        self.streams.clear();
        self.deadlines.clear();
        self.waiting.clear();
        self.placed = 0;
        self.offered = 0;
        self.state = State::Closed { kind, reason };
        self.events.push_back(Event::State(self.state.clone()));
    }
}

const DRAINING: &str = "the session takes no more streams";

fn draining() -> Error {
    Error::new(ErrorKind::Draining, DRAINING)
}
