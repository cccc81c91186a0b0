//! Pipes over a network of packets: each pipe is ordered and complete by itself, and none waits for another.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use fastrand::Rng;

use crate::link::StreamId;

/// Which pipe, in which direction. Resets travel outside of a stream's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Pipe {
    Control,
    Stream(StreamId),
    Reset(StreamId),
}

/// One direction of one pipe: who sends, and what it is.
pub(super) type Direction = (usize, Pipe);

/// What a pipe carries.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    /// A message of the wire.
    Message(Vec<u8>),
    /// A stream's bytes: the first one's number, and how many.
    Bytes(u64, u64),
    /// The end of a direction.
    End,
    /// Both directions are over.
    Reset,
}

/// A packet on its way, or the word that one has arrived.
#[derive(Clone, Debug)]
pub(super) enum Packet {
    Segment(Direction, u64, Payload),
    Arrived(Direction, u64),
}

/// How bad the network is.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    pub(super) loss: f64,
    pub(super) duplicate: f64,
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    /// Nothing gets through from the first time to the second.
    pub(super) cut: Option<(Duration, Duration)>,
}

/// A pipe's memory of what was sent and what has arrived.
#[derive(Default)]
struct Order {
    next: u64,
    unconfirmed: BTreeMap<u64, Payload>,
    expected: u64,
    early: BTreeMap<u64, Payload>,
}

/// All pipes between two ends.
pub(super) struct Network {
    weather: Weather,
    rng: Rng,
    orders: HashMap<Direction, Order>,
}

impl Network {
    pub(super) fn new(weather: Weather, rng: Rng) -> Self {
        Self {
            weather,
            rng,
            orders: HashMap::new(),
        }
    }

    /// Numbers a payload; it is to be transmitted until it is confirmed.
    pub(super) fn number(&mut self, direction: Direction, payload: Payload) -> u64 {
        let order = self.orders.entry(direction).or_default();
        let number = order.next;
        order.next += 1;
        order.unconfirmed.insert(number, payload);
        number
    }

    /// The packet for a payload, if it is still to be sent.
    pub(super) fn segment(&self, direction: Direction, number: u64) -> Option<Packet> {
        let payload = self.orders.get(&direction)?.unconfirmed.get(&number)?;
        Some(Packet::Segment(direction, number, payload.clone()))
    }

    /// When copies of a packet that is sent now arrive: none, one, or two.
    pub(super) fn flights(&mut self, now: Duration) -> Vec<Duration> {
        let is_cut = |(from, to)| now >= from && now < to;
        if self.weather.cut.is_some_and(is_cut) {
            return Vec::new();
        }
        let copies = match self.rng.f64() < self.weather.duplicate {
            true => 2,
            false => 1,
        };
        let mut flights = Vec::new();
        for _ in 0..copies {
            let jitter = self.weather.jitter.mul_f64(self.rng.f64());
            if self.rng.f64() >= self.weather.loss {
                flights.push(now + self.weather.delay + jitter);
            }
        }
        flights
    }

    /// How long to wait for the word that a packet has arrived.
    pub(super) fn patience(&self) -> Duration {
        (self.weather.delay + self.weather.jitter) * 2 + Duration::from_millis(5)
    }

    pub(super) fn confirm(&mut self, direction: Direction, number: u64) {
        if let Some(order) = self.orders.get_mut(&direction) {
            order.unconfirmed.remove(&number);
        }
    }

    /// What can be delivered in order now that a packet has come.
    pub(super) fn arrive(
        &mut self,
        direction: Direction,
        number: u64,
        payload: Payload,
    ) -> Vec<Payload> {
        let order = self.orders.entry(direction).or_default();
        if number >= order.expected {
            order.early.insert(number, payload);
        }
        let mut due = Vec::new();
        while let Some(payload) = order.early.remove(&order.expected) {
            order.expected += 1;
            due.push(payload);
        }
        due
    }
}
