//! One end of a session, lived through as a script of bytes says: what the peer sends, what the owners do, when.

use std::collections::BTreeSet;
use std::time::Duration;

use yurt_core::transport::{ErrorKind, Open, State, Target};

use crate::link::{Buffers, Config, Event, Link, Role, StreamId, Verdict};
use crate::wire::{Frame, Head, Hello, VERSION};

/// Streams that the owners of one life open.
const OPENS: usize = 64;

/// Bytes that are written or read at once.
const ONCE: u64 = 1 << 20;

/// Bytes that say what happens next; none are as zeros.
pub(super) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// A number of any size, by its order of magnitude first.
    fn number(&mut self) -> u64 {
        let magnitude = self.byte().unwrap_or(0) % 64;
        u64::from(self.byte().unwrap_or(0)) << magnitude
    }

    /// The type and the body of a message.
    fn message(&mut self) -> (u8, &'a [u8]) {
        let (kind, len) = (self.byte().unwrap_or(0), self.byte().unwrap_or(0));
        let (body, rest) = self.0.split_at(self.0.len().min(len.into()));
        self.0 = rest;
        (kind, body)
    }
}

/// One end, and what its shell knows.
pub(super) struct Life {
    link: Link,
    role: Role,
    config: Config,
    places: u64,
    now: Duration,
    opens: usize,
    /// Streams that the peer wants, or that the peer was asked for.
    unanswered: BTreeSet<StreamId>,
    /// Streams whose bytes flow.
    open: BTreeSet<StreamId>,
    is_closed: bool,
}

impl Life {
    /// Returns an end whose peer has said hello, unless it said nothing that can be.
    pub(super) fn begin(script: &mut Script<'_>) -> Option<Self> {
        let role = match script.byte()? % 2 {
            0 => Role::Opener,
            _ => Role::Acceptor,
        };
        // Small, so that scripts reach every bound.
        let config = Config {
            streams: 8,
            backlog: 4,
            window: 1_000,
            max_window: 4_000,
            buffers: Buffers::new(12_000),
            ..Config::default()
        };
        let (streams, window) = (script.number(), script.number());
        let hello = Hello {
            version: VERSION,
            streams,
            window,
            tells_ends: true,
            takes_credit_back: true,
        };
        let link = Link::new(role, config.clone(), hello, Duration::ZERO).ok()?;
        let link = link.telling_ends();
        Some(Self {
            link,
            role,
            config,
            places: streams,
            now: Duration::ZERO,
            opens: 0,
            unanswered: BTreeSet::new(),
            open: BTreeSet::new(),
            is_closed: false,
        })
    }

    /// Lives through one event of the script; `false` at its end.
    pub(super) fn step(&mut self, script: &mut Script<'_>) -> bool {
        let Some(event) = script.byte() else {
            return false;
        };
        let now = self.now;
        match event % 16 {
            0 | 1 => self.hear(script),
            2 => self.hear_head(script),
            3 => self.ask(script),
            4 => self.answer(script),
            5 => self.send(script),
            6 => self.read(script),
            7 => self.with_open(script, |link, id| link.finished(id, now)),
            8 => self.with_open(script, |link, id| link.ended(id, now)),
            9 => self.forget(script),
            10 => self.link.drain(),
            11 => self.link.close("its owner has closed it"),
            12 => self.link.on_lost("what carried it has ended"),
            13 => drop(self.link.ping(self.now)),
            _ => self.wait(script),
        }
        self.settle();
        true
    }

    /// Ends every stream, and sees that they have left their places and their share of the budget.
    pub(super) fn end(mut self) {
        for id in self.open.union(&self.unanswered) {
            self.link.forget(*id);
        }
        self.open.clear();
        self.unanswered.clear();
        self.settle();
        // Opens that waited have got those places; they are as good as new ones.
        let free = match self.role {
            Role::Opener => usize::try_from(self.places.min(4)).expect("it is small"),
            Role::Acceptor => self.config.backlog,
        };
        if *self.link.state() != State::Open || self.link.streams() > self.unanswered.len() {
            return;
        }
        for number in self.unanswered.len()..free {
            self.begin_one(number);
            self.settle();
        }
        assert!(self.unanswered.len() >= free, "a place is lost");
        let Some(id) = self.unanswered.pop_first() else {
            return;
        };
        let _accepted = match self.role {
            Role::Opener => self.link.on_accepted(id),
            Role::Acceptor => self.link.accept(id),
        };
        for _ in 0..8 {
            let half = self.link.exposure().div_ceil(2);
            let read = self.link.received(id, half, self.now);
            assert!(read.is_ok(), "it has credit");
        }
        assert_eq!(
            self.link.exposure(),
            self.config.max_window,
            "a share is lost"
        );
    }

    fn begin_one(&mut self, number: usize) {
        let open = Open::new(Target::Echo, Duration::MAX);
        match self.role {
            Role::Opener => drop(self.link.open(&open, self.now)),
            Role::Acceptor => {
                let stream = u64::MAX - number as u64;
                let verdict = self.link.on_head(&Head { stream, open }, self.now);
                assert_eq!(verdict, Verdict::Offer, "a place is lost");
                self.unanswered.insert(stream);
            }
        }
    }

    // === What happens ===

    fn hear(&mut self, script: &mut Script<'_>) {
        let (kind, body) = script.message();
        match Frame::decode(kind, body) {
            Ok(Some(frame)) => self.link.on_frame(frame, self.now),
            Ok(None) => {}
            Err(malformed) => self.link.fail(ErrorKind::Protocol, malformed.0),
        }
    }

    fn hear_head(&mut self, script: &mut Script<'_>) {
        let (kind, body) = script.message();
        if let Ok(head) = Head::decode(kind, body)
            && self.link.on_head(&head, self.now) == Verdict::Offer
        {
            let is_new = self.unanswered.insert(head.stream);
            assert!(is_new && !self.open.contains(&head.stream), "one at a time");
        }
    }

    fn ask(&mut self, script: &mut Script<'_>) {
        if self.role == Role::Opener && self.opens < OPENS {
            self.opens += 1;
            let open = Open::new(Target::Echo, Duration::from_millis(script.number()));
            // It begins, or fails, when the link says so.
            drop(self.link.open(&open, self.now));
        }
    }

    fn answer(&mut self, script: &mut Script<'_>) {
        if let Some(id) = one_of(&self.unanswered, script) {
            self.unanswered.remove(&id);
            let is_there = match self.role {
                Role::Opener => self.link.on_accepted(id),
                Role::Acceptor => self.link.accept(id),
            };
            assert!(is_there, "it has not failed");
            self.open.insert(id);
        }
    }

    fn send(&mut self, script: &mut Script<'_>) {
        if let Some(id) = one_of(&self.open, script) {
            let bytes = script.number().min(ONCE).min(self.link.credit(id));
            self.link.sent(id, bytes, self.now);
        }
    }

    fn read(&mut self, script: &mut Script<'_>) {
        if let Some(id) = one_of(&self.open, script)
            && let bytes = script.number().min(ONCE)
            && self.link.received(id, bytes, self.now).is_err()
        {
            self.open.remove(&id);
        }
    }

    fn with_open(&mut self, script: &mut Script<'_>, act: impl FnOnce(&mut Link, StreamId)) {
        if let Some(id) = one_of(&self.open, script) {
            let before = self.link.streams();
            act(&mut self.link, id);
            if self.link.streams() < before {
                self.open.remove(&id);
            }
        }
    }

    fn forget(&mut self, script: &mut Script<'_>) {
        let known = self.open.union(&self.unanswered).copied().collect();
        if let Some(id) = one_of(&known, script) {
            self.link.forget(id);
            self.open.remove(&id);
            self.unanswered.remove(&id);
        }
    }

    fn wait(&mut self, script: &mut Script<'_>) {
        let passed = Duration::from_millis(script.number());
        self.now = self.now.saturating_add(passed);
        if self.link.timeout().is_some_and(|due| due <= self.now) {
            self.link.on_timeout(self.now);
        }
    }

    // === What must hold ===

    /// Does what the link wants, and sees that it keeps its bounds.
    fn settle(&mut self) {
        while let Some(event) = self.link.poll() {
            match event {
                Event::Send(frame) => {
                    let mut message = Vec::new();
                    frame.encode(&mut message);
                }
                Event::Begin(id) => {
                    assert_eq!(self.role, Role::Opener);
                    assert!(self.unanswered.insert(id), "it begins once");
                }
                Event::Fail(id, _, _) => {
                    self.open.remove(&id);
                    self.unanswered.remove(&id);
                }
                Event::Credit(id) => assert!(self.link.credit(id) > 0),
                Event::Pong(_, round_trip) => assert!(round_trip <= self.now),
                Event::State(State::Closed { .. }) => {
                    assert!(!self.is_closed, "it ends once");
                    self.is_closed = true;
                }
                Event::State(State::Open | State::Draining) => assert!(!self.is_closed),
            }
        }
        self.check();
    }

    fn check(&self) {
        let begun = self.open.len() + self.unanswered.len();
        match self.role {
            Role::Opener => assert!(begun as u64 <= self.places, "more than the peer takes"),
            Role::Acceptor => {
                assert!(begun as u64 <= self.config.streams, "more than it holds");
                assert!(self.unanswered.len() <= self.config.backlog);
                assert_eq!(self.link.streams(), begun);
            }
        }
        let windows = self.open.len() as u64 * self.config.window;
        let most = windows + self.config.buffers.used();
        assert!(self.link.exposure() <= most, "unread streams cost more");
        if self.is_closed {
            assert_eq!(
                (self.link.streams(), begun),
                (0, 0),
                "a closed one holds none"
            );
            assert_eq!(self.link.timeout(), None);
        }
    }
}

fn one_of(ids: &BTreeSet<StreamId>, script: &mut Script<'_>) -> Option<StreamId> {
    let number = usize::from(script.byte()?);
    ids.iter().nth(number % ids.len().max(1)).copied()
}
