//! One direction of the network: what happens to a packet, and when it leaves. Pure, with `now` as an argument.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use fastrand::Rng;

use super::Shape;

/// A link of no rate and a long delay would hold without end what is sent into it.
const IN_FLIGHT: usize = 64 << 20;

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets that arrived, copies too.
    pub packets: u64,
    /// The bytes of those, with their IP headers.
    pub bytes: u64,
    /// Packets that were lost by chance.
    pub lost: u64,
    /// Packets for which the queue had no room.
    pub overflowed: u64,
    /// Packets that are larger than what the path carries.
    pub oversized: u64,
    /// Packets that arrived twice.
    pub duplicated: u64,
    /// Packets that were held back so that others overtake them.
    pub reordered: u64,
    /// Packets that a black hole has taken.
    pub swallowed: u64,
    /// Packets that the router does not let through.
    pub refused: u64,
}

#[derive(Debug)]
pub(super) struct Lane {
    shape: Shape,
    random: Rng,
    /// When the last packet of the queue is on the line.
    busy_until: Duration,
    /// When the last packet that keeps the order arrives.
    last_arrival: Duration,
    in_flight: BinaryHeap<Reverse<Flying>>,
    bytes_in_flight: usize,
    sent: u64,
    pub(super) traffic: Traffic,
}

/// Ordered by when it arrives, and what arrives at once by when it was sent.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    arrives: Duration,
    number: u64,
    packet: Vec<u8>,
}

impl Lane {
    pub(super) fn new(shape: Shape, seed: u64) -> Self {
        Self {
            shape,
            random: Rng::with_seed(seed),
            busy_until: Duration::ZERO,
            last_arrival: Duration::ZERO,
            in_flight: BinaryHeap::new(),
            bytes_in_flight: 0,
            sent: 0,
            traffic: Traffic::default(),
        }
    }

    /// Changes what becomes of packets that are sent from now on.
    pub(super) fn shape(&mut self, shape: Shape) {
        self.shape = shape;
    }

    /// Sends a packet.
    pub(super) fn send(&mut self, now: Duration, packet: Vec<u8>) {
        let Shape {
            delay, jitter, mtu, ..
        } = self.shape;
        // Always as many as there may be needed: the fate of a packet depends on the seed and its number alone.
        let [lost, twice, late, jittered] = [(); 4].map(|()| self.random.f64());
        if mtu.is_some_and(|mtu| packet.len() > usize::from(mtu)) {
            self.traffic.oversized += 1;
            return;
        }
        let Some(on_the_line) = self.transmit(now, packet.len()) else {
            self.traffic.overflowed += 1;
            return;
        };
        if lost < self.shape.loss {
            self.traffic.lost += 1;
            return;
        }
        let mut arrives = on_the_line + delay + jitter.mul_f64(jittered);
        arrives = arrives.max(self.last_arrival);
        if late < self.shape.reorder {
            self.traffic.reordered += 1;
            arrives += self.shape.reorder_by;
        } else {
            self.last_arrival = arrives;
        }
        if twice < self.shape.duplicate {
            self.traffic.duplicated += 1;
            self.fly(arrives, packet.clone());
        }
        self.fly(arrives, packet);
    }

    /// Returns the next packet that has arrived by now.
    pub(super) fn arrived(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.next_arrival()? > now {
            return None;
        }
        let Reverse(flying) = self.in_flight.pop()?;
        self.bytes_in_flight -= flying.packet.len();
        Some(flying.packet)
    }

    /// Returns when the next packet arrives.
    pub(super) fn next_arrival(&self) -> Option<Duration> {
        self.in_flight.peek().map(|Reverse(flying)| flying.arrives)
    }

    /// Returns when a packet has left the queue; `None` when there is no room for it.
    fn transmit(&mut self, now: Duration, length: usize) -> Option<Duration> {
        if self.bytes_in_flight + length > IN_FLIGHT {
            return None;
        }
        let Some(rate) = self.shape.rate else {
            return Some(now);
        };
        let start = self.busy_until.max(now);
        let room = time_of(self.shape.queue, rate);
        let end = start + time_of(length, rate);
        if end - now > room {
            return None;
        }
        self.busy_until = end;
        Some(end)
    }

    fn fly(&mut self, arrives: Duration, packet: Vec<u8>) {
        self.sent += 1;
        self.bytes_in_flight += packet.len();
        self.in_flight.push(Reverse(Flying {
            arrives,
            number: self.sent,
            packet,
        }));
    }
}

/// How long a number of bytes takes at a rate in bits per second.
fn time_of(bytes: usize, rate: u64) -> Duration {
    let bits = u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(8);
    let nanoseconds = bits.saturating_mul(1_000_000_000) / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
