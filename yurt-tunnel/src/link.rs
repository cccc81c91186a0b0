//! One end of a session without I/O: which streams there are, who may send how much, and whether the peer lives.
//!
//! The shell round it moves bytes: it tells what the peer said and what the streams' owners did, each with the
//! time since the session began, takes the [`Event`]s that follow, and comes back at [`Link::timeout`]. Nothing
//! here reads a clock, so that a whole session can be lived through in virtual time.

mod buffers;
mod config;
mod credit;
mod liveness;
mod meter;
mod owner;
mod pace;
mod peer;
mod stream;
mod unread;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use yurt_core::transport::{Error, ErrorKind, State};

pub use self::buffers::{Buffers, InvalidBuffers};
pub use self::config::Config;
use self::credit::Budget;
use self::liveness::{Liveness, Use};
use self::pace::Pace;
use self::stream::{Phase, Stream};
use self::unread::UnreadEnds;
use crate::wire::{Frame, Hello, VERSION};

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
    /// Streams that have ended, and whose last bytes are on their way.
    tails: u64,
    /// Whether the ends tell each other that they have read an end, as nothing else shows what has arrived.
    tells_ends: bool,
    /// The streams that have ended here, and whose end the peer has not read.
    unread_ends: UnreadEnds,
    budget: Budget,
    /// When to look for credit that was not used, if there is any to give back.
    release_at: Option<Duration>,
    pace: Pace,
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
        let most_unread_ends = config.streams.min(peer.streams);
        Ok(Self {
            role,
            budget: Budget::new(&config),
            release_at: None,
            pace: Pace::default(),
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
            tails: 0,
            tells_ends: false,
            unread_ends: UnreadEnds::new(most_unread_ends),
            events: VecDeque::new(),
            counts: Counts::default(),
        })
    }

    /// Tells the peer of each end that is read, and waits for it to do so: for what does not know what has arrived.
    /// With a peer that does not speak of ends, nothing changes.
    #[must_use]
    pub fn telling_ends(self) -> Self {
        Self {
            tells_ends: self.peer.tells_ends,
            ..self
        }
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
        let unread = self.unread_ends.timeout();
        let silence = Some(self.liveness.timeout(self.used()));
        [deadline, self.release_at, unread, silence]
            .into_iter()
            .flatten()
            .min()
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

    /// Returns how many streams have ended whose last bytes are on their way.
    #[must_use]
    pub fn tails(&self) -> u64 {
        self.tails + self.unread_ends.count()
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

    // === Inside ===

    fn used(&self) -> Use {
        match self.streams.is_empty() && self.tails() == 0 {
            true => Use::Idle,
            false => Use::Busy,
        }
    }

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
        if let Some(code) = stream.take_reset() {
            self.fail_reset(id, code);
        }
        true
    }

    fn fail_reset(&mut self, id: StreamId, code: u16) {
        self.remove(id, true);
        let message = format!("the peer has reset the stream with code {code}");
        self.events
            .push_back(Event::Fail(id, ErrorKind::Reset(code), message));
    }

    fn half_ended(&mut self, id: StreamId, now: Duration) {
        let Some(stream) = self.streams.get(&id).filter(|stream| stream.is_over()) else {
            return;
        };
        if self.tells_ends && !stream.is_end_read() {
            self.unread_ends.insert(id, now);
        }
        self.remove(id, false);
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
            let phase = self.streams.get(&id).map(Stream::phase);
            self.remove(id, true);
            let (kind, message) = match phase {
                Some(Phase::Waiting) => {
                    let streams = self.peer.streams;
                    let message = format!("{streams} streams are open, as many as the peer takes");
                    (ErrorKind::Overloaded, message)
                }
                _ => {
                    let message = "the peer did not answer in time".to_owned();
                    (ErrorKind::Timeout, message)
                }
            };
            self.events.push_back(Event::Fail(id, kind, message));
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
        for (_, stream) in self.streams.drain() {
            self.budget.give_back(stream.window());
        }
        self.unread_ends.clear();
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
