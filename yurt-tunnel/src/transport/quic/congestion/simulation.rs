//! Flows that share a bottleneck, in virtual time and packet by packet: ours beside CUBIC, Reno and itself.
//!
//! The queue is drop-tail. An answer comes a round trip after its packet has left the queue, and up to a packet's
//! time later: else it would be always the same flow that finds the queue full (phase effects).

mod flight;
mod ours;
mod tcp;
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use fastrand::Rng;

/// A bottleneck, and the way there and back.
#[derive(Clone, Copy, Debug)]
struct Link {
    bits: u64,
    queue: Duration,
    trip: Duration,
    jitter: Duration,
    loss: f64,
}

/// What sends as fast as it may, and learns what arrives.
trait Sender {
    /// Whether a packet may go now.
    fn may_send(&mut self, now: Duration) -> bool;
    /// A packet goes; returns its size.
    fn send(&mut self, now: Duration, number: u64) -> u64;
    fn acked(&mut self, now: Duration, number: u64);
    /// When to be woken if nothing happens before.
    fn timeout(&self) -> Option<Duration>;
    fn on_timeout(&mut self, now: Duration);
}

/// A sender, and what has come of it in the time that counts.
struct Flow {
    sender: Box<dyn Sender>,
    next: u64,
    wakes_at: Option<Duration>,
    last_answer: Duration,
    sent: u64,
    dropped: u64,
    arrived: u64,
    waits: Vec<Duration>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ack { flow: usize, number: u64 },
    Wake { flow: usize },
}

struct World {
    link: Link,
    rng: Rng,
    now: Duration,
    /// When the bottleneck has sent all that waits.
    free_at: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    count: u64,
    flows: Vec<Flow>,
    counts_since: Duration,
}

impl World {
    fn new(link: Link, seed: u64) -> Self {
        Self {
            link,
            rng: Rng::with_seed(seed),
            now: Duration::ZERO,
            free_at: Duration::ZERO,
            events: BinaryHeap::new(),
            count: 0,
            flows: Vec::new(),
            counts_since: Duration::ZERO,
        }
    }

    /// Lets a flow begin now.
    fn add(&mut self, sender: Box<dyn Sender>) {
        self.flows.push(Flow {
            sender,
            next: 0,
            wakes_at: None,
            last_answer: Duration::ZERO,
            sent: 0,
            dropped: 0,
            arrived: 0,
            waits: Vec::new(),
        });
        self.pump(self.flows.len() - 1);
    }

    /// Lives for some time; only the last that was lived counts.
    fn live(&mut self, time: Duration) {
        self.counts_since = self.now;
        for flow in &mut self.flows {
            (flow.sent, flow.dropped, flow.arrived) = (0, 0, 0);
            flow.waits.clear();
        }
        let until = self.now + time;
        while let Some(Reverse((at, ..))) = self.events.peek()
            && *at <= until
        {
            let Reverse((at, _, event)) = self.events.pop().unwrap();
            self.now = at;
            match event {
                Event::Ack { flow, number } => {
                    self.flows[flow].sender.acked(at, number);
                    self.pump(flow);
                }
                Event::Wake { flow } => {
                    if self.flows[flow].wakes_at == Some(at) {
                        self.flows[flow].wakes_at = None;
                    }
                    self.flows[flow].sender.on_timeout(at);
                    self.pump(flow);
                }
            }
        }
        self.now = until;
    }

    fn pump(&mut self, flow: usize) {
        while self.flows[flow].sender.may_send(self.now) {
            self.send(flow);
        }
        let Some(at) = self.flows[flow].sender.timeout() else {
            return;
        };
        let (at, wakes_at) = (at.max(self.now), &mut self.flows[flow].wakes_at);
        if wakes_at.is_none_or(|known| at < known) {
            *wakes_at = Some(at);
            self.schedule(at, Event::Wake { flow });
        }
    }

    fn send(&mut self, index: usize) {
        let (now, link) = (self.now, self.link);
        let flow = &mut self.flows[index];
        let number = flow.next;
        flow.next += 1;
        let bytes = flow.sender.send(now, number);
        flow.sent += bytes;
        let waits = self.free_at.saturating_sub(now);
        if waits > link.queue || self.rng.f64() < link.loss {
            flow.dropped += bytes;
            return;
        }
        flow.arrived += bytes;
        flow.waits.push(waits);
        let takes = Duration::from_nanos(bytes * 8_000_000_000 / link.bits);
        self.free_at = self.free_at.max(now) + takes;
        let late = (takes + link.jitter).mul_f64(self.rng.f64());
        let answer = (self.free_at + link.trip + late).max(flow.last_answer);
        flow.last_answer = answer;
        let flow = index;
        self.schedule(answer, Event::Ack { flow, number });
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.count += 1;
        self.events.push(Reverse((at, self.count, event)));
    }

    // === What has come of it ===

    /// Of what has arrived, what was a flow's, in percent.
    fn share(&self, flow: usize) -> f64 {
        let all: u64 = self.flows.iter().map(|flow| flow.arrived).sum();
        self.flows[flow].arrived as f64 * 100.0 / all as f64
    }

    /// What was dropped of what a flow has sent, in percent.
    fn loss(&self, flow: usize) -> f64 {
        self.flows[flow].dropped as f64 * 100.0 / self.flows[flow].sent as f64
    }

    /// Of what the bottleneck could deliver, what it has, in percent.
    fn used(&self) -> f64 {
        let all: u64 = self.flows.iter().map(|flow| flow.arrived).sum();
        let time = (self.now - self.counts_since).as_secs_f64();
        all as f64 * 800.0 / (self.link.bits as f64 * time)
    }

    /// The waiting in the queue that one packet in a hundred exceeded.
    fn waited(&mut self, flow: usize) -> Duration {
        let waits = &mut self.flows[flow].waits;
        waits.sort();
        waits[waits.len() * 99 / 100]
    }
}
