//! The two ends, and the owners of their streams.

mod shell;
mod truth;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use fastrand::Rng;
use yurt_core::transport::{ErrorKind, Open, Priority, State, Target};

use super::network::{Direction, Network, Packet, Payload, Pipe, Weather};
use crate::link::{Buffers, Config, Link, Role, StreamId};
use crate::wire::Answer;

/// The two ends.
const CLOUD: usize = 0;
const EDGE: usize = 1;

/// Long after everything has to be over.
const END: Duration = Duration::from_secs(3600);

/// What happens to a life beside its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Bad,
    ShortCut,
    LongCut,
    Drain,
    Close,
}

/// What is to happen at a time.
#[derive(Debug)]
enum Due {
    Packet(Packet),
    Retry(Direction, u64),
    Timer(usize),
    Open,
    Answer(StreamId),
    Write(usize, StreamId),
    Read(usize, StreamId),
    Abandon(usize, StreamId),
    Fate,
}

/// One end's owner of a stream.
#[derive(Debug, Default)]
struct Owner {
    to_write: u64,
    written: u64,
    is_shut: bool,
    arrived: u64,
    read: u64,
    end_arrived: bool,
    is_ended: bool,
    is_open: bool,
    failure: Option<ErrorKind>,
}

/// What became of an attempt to open.
#[derive(Debug)]
struct Attempt {
    open: Open,
    asked: Duration,
    outcome: Option<Result<(), ErrorKind>>,
}

pub(super) struct World {
    fate: Fate,
    now: Duration,
    rng: Rng,
    config: Config,
    links: [Link; 2],
    network: Network,
    due: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    todo: Vec<Option<Due>>,
    owners: [BTreeMap<StreamId, Owner>; 2],
    attempts: BTreeMap<StreamId, Attempt>,
    /// Streams whose reset has arrived: what else comes of them is not delivered.
    dead: BTreeSet<(usize, StreamId)>,
    states: [State; 2],
    cut: Option<(Duration, Duration)>,
    to_open: u64,
    timers: [Option<Duration>; 2],
    trace: u64,
}

impl World {
    pub(super) fn new(seed: u64, fate: Fate) -> Self {
        let mut rng = Rng::with_seed(seed);
        let config = Config {
            streams: rng.u64(1..12),
            backlog: rng.usize(1..6),
            window: rng.u64(100..4000),
            max_window: rng.u64(1..64_000),
            buffers: Buffers::new(rng.u64(0..64_000)),
            ..Config::default()
        };
        let cut_from = Duration::from_millis(rng.u64(0..20_000));
        let cut = match fate {
            Fate::ShortCut => Some((
                cut_from,
                cut_from + Duration::from_millis(rng.u64(1..20_000)),
            )),
            Fate::LongCut => Some((cut_from, Duration::MAX)),
            Fate::Bad | Fate::Drain | Fate::Close => None,
        };
        let weather = Weather {
            loss: rng.f64() * 0.2,
            duplicate: rng.f64() * 0.2,
            delay: Duration::from_micros(rng.u64(10..100_000)),
            jitter: Duration::from_micros(rng.u64(0..100_000)),
            cut,
        };
        let tells_ends = rng.bool();
        let link = |role| {
            let link = Link::new(role, config.clone(), config.hello(), Duration::ZERO).unwrap();
            match tells_ends {
                true => link.telling_ends(),
                false => link,
            }
        };
        let mut world = Self {
            fate,
            now: Duration::ZERO,
            links: [link(Role::Opener), link(Role::Acceptor)],
            network: Network::new(weather, rng.fork()),
            due: BinaryHeap::new(),
            todo: Vec::new(),
            owners: Default::default(),
            attempts: BTreeMap::new(),
            dead: BTreeSet::new(),
            states: [State::Open, State::Open],
            cut,
            to_open: 0,
            timers: [None, None],
            trace: 0,
            config,
            rng,
        };
        world.to_open = world.rng.u64(1..20);
        for _ in 0..world.to_open {
            let at = Duration::from_millis(world.rng.u64(0..30_000));
            world.at(at, Due::Open);
        }
        if matches!(fate, Fate::Drain | Fate::Close) {
            let at = Duration::from_millis(world.rng.u64(0..30_000));
            world.at(at, Due::Fate);
        }
        world.settle(CLOUD);
        world.settle(EDGE);
        world
    }

    /// Lives to the end and returns a digest of all that has happened.
    pub(super) fn live(mut self) -> u64 {
        while let Some(Reverse((at, _, todo))) = self.due.pop()
            && at <= END
        {
            self.now = at;
            let due = self.todo[todo].take().unwrap();
            self.happen(due);
            self.check_always();
            if self.is_done() {
                break;
            }
        }
        self.check_at_the_end();
        self.trace
    }

    // === What happens ===

    fn at(&mut self, at: Duration, due: Due) {
        self.todo.push(Some(due));
        let order = self.todo.len();
        self.due
            .push(Reverse((at.max(self.now), order as u64, order - 1)));
    }

    fn soon(&mut self, due: Due) {
        let at = self.now + Duration::from_micros(self.rng.u64(0..50_000));
        self.at(at, due);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Packet(Packet::Arrived(direction, number)) => {
                self.network.confirm(direction, number)
            }
            Due::Packet(Packet::Segment(direction, number, payload)) => {
                self.transmit(Packet::Arrived(direction, number));
                for payload in self.network.arrive(direction, number, payload) {
                    self.deliver(1 - direction.0, direction.1, payload);
                }
            }
            Due::Retry(direction, number) => self.retry(direction, number),
            Due::Timer(end) => {
                if self.links[end].timeout().is_some_and(|at| at <= self.now) {
                    self.links[end].on_timeout(self.now);
                }
                self.settle(end);
            }
            Due::Open => self.open(),
            Due::Answer(id) => self.answer(id),
            Due::Write(end, id) => self.write(end, id),
            Due::Read(end, id) => self.read(end, id),
            Due::Abandon(end, id) => self.abandon(end, id),
            Due::Fate => self.fate_strikes(),
        }
    }

    fn fate_strikes(&mut self) {
        let end = self.rng.usize(0..2);
        match self.fate {
            Fate::Drain => self.links[end].drain(),
            _ => self.links[end].close("fate"),
        }
        self.settle(end);
    }

    fn open(&mut self) {
        self.to_open -= 1;
        let mut open = Open::new(Target::Echo, Duration::from_millis(self.rng.u64(100..8000)));
        if self.rng.bool() {
            open.priority = Priority::Bulk;
        }
        let Ok(id) = self.links[CLOUD].open(&open, self.now) else {
            assert!(self.states[CLOUD] != State::Open, "an open session opens");
            return;
        };
        assert!(
            self.states[CLOUD] == State::Open,
            "a session that is not open opens nothing"
        );
        let attempt = Attempt {
            open,
            asked: self.now,
            outcome: None,
        };
        assert!(
            self.attempts.insert(id, attempt).is_none(),
            "no number comes twice"
        );
        self.settle(CLOUD);
    }

    /// The edge's owner makes up its mind about an offer.
    fn answer(&mut self, id: StreamId) {
        if self.owners[EDGE]
            .get(&id)
            .is_none_or(|owner| owner.failure.is_some())
        {
            return;
        }
        let mut bytes = Vec::new();
        match self.rng.u8(0..10) {
            0 => {
                Answer::Rejected {
                    kind: ErrorKind::Refused,
                    message: "no".to_owned(),
                }
                .encode(&mut bytes);
                self.links[EDGE].forget(id);
                self.owners[EDGE].remove(&id);
            }
            1 => return, // it never answers
            _ => {
                if !self.links[EDGE].accept(id) {
                    return;
                }
                Answer::Accepted.encode(&mut bytes);
                self.begin_owner(EDGE, id);
            }
        }
        self.send((EDGE, Pipe::Stream(id)), Payload::Message(bytes));
        self.settle(EDGE);
    }

    fn begin_owner(&mut self, end: usize, id: StreamId) {
        let to_write = match self.rng.u8(0..4) {
            0 => 0,
            1 => self.rng.u64(0..100),
            _ => self.rng.u64(0..60_000),
        };
        let owner = self.owners[end].entry(id).or_default();
        owner.to_write = to_write;
        owner.is_open = true;
        self.soon(Due::Write(end, id));
        self.soon(Due::Read(end, id));
        if self.rng.u8(0..12) == 0 {
            let later = self.now + Duration::from_millis(self.rng.u64(0..5000));
            self.at(later, Due::Abandon(end, id));
        }
    }

    fn write(&mut self, end: usize, id: StreamId) {
        let Some(owner) = self.owners[end]
            .get_mut(&id)
            .filter(|owner| owner.failure.is_none())
        else {
            return;
        };
        if owner.is_shut {
            return;
        }
        let left = owner.to_write - owner.written;
        if left == 0 {
            owner.is_shut = true;
            self.links[end].finished(id, self.now);
            self.send((end, Pipe::Stream(id)), Payload::End);
            return self.settle(end);
        }
        let piece = self.rng.u64(1..=left).min(self.links[end].credit(id));
        if piece == 0 {
            return; // credit brings it back
        }
        let from = owner.written;
        owner.written += piece;
        let _ = self.links[end].sent(id, piece, self.now);
        self.send((end, Pipe::Stream(id)), Payload::Bytes(from, piece));
        // Some writers sleep for longer than credit is kept for them.
        let pause = match self.rng.u8(0..20) {
            0 => self.rng.u64(0..30_000),
            _ => self.rng.u64(0..50),
        };
        self.at(self.now + Duration::from_millis(pause), Due::Write(end, id));
        self.settle(end);
    }

    fn read(&mut self, end: usize, id: StreamId) {
        let Some(owner) = self.owners[end]
            .get_mut(&id)
            .filter(|owner| owner.failure.is_none())
        else {
            return;
        };
        let unread = owner.arrived - owner.read;
        if unread > 0 {
            let piece = self.rng.u64(1..=unread);
            owner.read += piece;
            let received = self.links[end].received(id, piece, self.now);
            received.expect("an honest peer keeps to its credit");
        } else if owner.end_arrived && !owner.is_ended {
            owner.is_ended = true;
            self.links[end].ended(id, self.now);
        }
        if !owner.is_ended {
            // Some readers are slow, and some sleep.
            let pause = match self.rng.u8(0..20) {
                0 => self.rng.u64(0..20_000),
                _ => self.rng.u64(0..50),
            };
            self.at(self.now + Duration::from_millis(pause), Due::Read(end, id));
        }
        self.settle(end);
    }

    /// The owner drops its stream.
    fn abandon(&mut self, end: usize, id: StreamId) {
        let Some(owner) = self.owners[end].get_mut(&id) else {
            return;
        };
        if owner.failure.is_none() && !(owner.is_shut && owner.is_ended) {
            owner.failure = Some(ErrorKind::Other);
            self.links[end].reset(id, 7);
            // An end that does not read the pipe learns it by the link alone.
            if self.rng.bool() {
                self.send((end, Pipe::Reset(id)), Payload::Reset);
            }
            self.settle(end);
        }
    }
}
