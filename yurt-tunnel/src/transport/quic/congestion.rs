//! How much may be on its way: what the path delivers in a round trip, and a little more.
//!
//! CUBIC takes each lost packet for a full queue: one in a hundred on a way of 40 ms leaves it 3 Mbit/s. BBR as
//! quinn has it fills a slow bottleneck's queue with a second of bulk, behind which `kubectl exec` waits. This
//! controller measures what is delivered and the shortest round trip, as BBR does (draft-ietf-ccwg-bbr), and holds
//! what is on its way to the product of the two, a quarter of it, and two milliseconds. Loss alone slows it only
//! when it is more than a bad radio causes.

mod rate;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

use self::rate::Rate;

/// What may be on its way before anything is known (RFC 6928).
const INITIAL_PACKETS: u64 = 10;

/// What may always be on its way.
const MIN_PACKETS: u64 = 4;

/// Queueing that is allowed beyond the share of the round trip: timers and busy processors take as long.
const SLACK: Duration = Duration::from_millis(2);

/// Rounds of one cycle, in percent of what a round trip delivers: one asks for more, the next lets the queue go.
const CYCLE: [u64; 8] = [150, 100, 125, 125, 125, 125, 125, 125];

/// More than this share of a round's bytes lost, in percent, is a queue that overflows.
const HEAVY_LOSS: u64 = 20;

/// The growth stops when the rate has not grown by a quarter for this many rounds.
const FLAT_ROUNDS: u32 = 3;

/// Rounds of which the rate counts while there is a queue that the model does not explain.
const NARROW_ROUNDS: usize = 2;

/// The model of a path.
#[derive(Clone, Debug)]
pub(super) struct Model {
    packet: u64,
    window: u64,
    rate: Rate,
    phase: Phase,
    round: Round,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Twice as much each round, until it brings no more.
    Growing { best: u64, flat: u32 },
    /// As the model says.
    Steady { step: usize },
}

/// From the sending of a packet until its arrival is known.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    began: Duration,
    acked: u64,
    lost: u64,
    shortest: Option<Duration>,
    is_app_limited: bool,
}

impl Model {
    pub(super) fn new(packet: u64) -> Self {
        Self {
            packet,
            window: INITIAL_PACKETS * packet,
            rate: Rate::default(),
            phase: Phase::Growing { best: 0, flat: 0 },
            round: Round::default(),
        }
    }

    /// The bytes that may be on their way.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// Takes the word that bytes have arrived.
    pub(super) fn acked(
        &mut self,
        now: Duration,
        sent: Duration,
        bytes: u64,
        is_app_limited: bool,
    ) {
        let trip = now.saturating_sub(sent);
        self.rate.round_trip(now, trip);
        self.round.acked += bytes;
        self.round.is_app_limited |= is_app_limited;
        self.round.shortest = Some(
            self.round
                .shortest
                .map_or(trip, |shortest| shortest.min(trip)),
        );
        if matches!(self.phase, Phase::Growing { .. }) && !is_app_limited {
            self.window += bytes;
        }
        if sent >= self.round.began {
            self.end_round(now);
        }
    }

    /// Takes the word that bytes were lost.
    pub(super) fn lost(&mut self, bytes: u64, is_persistent: bool) {
        self.round.lost += bytes;
        if is_persistent {
            let packet = self.packet;
            *self = Self {
                round: self.round,
                ..Self::new(packet)
            };
            self.window = MIN_PACKETS * packet;
        }
    }

    pub(super) fn set_packet(&mut self, packet: u64) {
        self.packet = packet;
        self.window = self.window.max(MIN_PACKETS * packet);
    }

    fn end_round(&mut self, now: Duration) {
        let round = std::mem::take(&mut self.round);
        self.round.began = now;
        let took = now.saturating_sub(round.began);
        self.rate.round(round.acked, took, round.is_app_limited);
        let is_heavy = round.lost * 100 > (round.acked + round.lost) * HEAVY_LOSS;
        if is_heavy {
            self.rate.fall();
        }
        let has_queue = self.has_queue(round);
        if has_queue && matches!(self.phase, Phase::Steady { .. }) {
            // What it delivered before it became narrow no longer counts.
            self.rate.forget_all_but(NARROW_ROUNDS);
        }
        self.phase = match self.phase {
            Phase::Growing { best, flat } if !has_queue => self.grow(round, best, flat, is_heavy),
            // The queue that growth has left goes in the round that holds least.
            Phase::Growing { .. } => Phase::Steady { step: 1 },
            Phase::Steady { step } => Phase::Steady {
                step: (step + 1) % CYCLE.len(),
            },
        };
        if let Phase::Steady { step } = self.phase {
            self.window = self.delivered(CYCLE[step]).max(MIN_PACKETS * self.packet);
        }
    }

    /// Decides whether growth still brings anything.
    fn grow(&self, round: Round, best: u64, flat: u32, is_heavy: bool) -> Phase {
        let rate = self.rate.best();
        let (best, flat) = match rate * 4 >= best * 5 {
            true => (rate, 0),
            false if round.is_app_limited => (best, flat),
            false => (best, flat + 1),
        };
        if is_heavy || flat >= FLAT_ROUNDS {
            return Phase::Steady { step: 1 };
        }
        Phase::Growing { best, flat }
    }

    /// Whether no packet of a round was as quick as the path allows.
    fn has_queue(&self, round: Round) -> bool {
        match (round.shortest, self.rate.shortest()) {
            (Some(of_round), Some(ever)) => of_round > ever + ever / 2 + SLACK,
            _ => false,
        }
    }

    /// What the path delivers in its shortest round trip, in percent, and in the slack.
    fn delivered(&self, percent: u64) -> u64 {
        let shortest = self.rate.shortest().unwrap_or_default();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let time = (micros(shortest).saturating_mul(percent) / 100).saturating_add(micros(SLACK));
        let bytes = u128::from(self.rate.best()) * u128::from(time) / 1_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// The model, as quinn wants it.
#[derive(Clone, Debug)]
struct Steady {
    began: Instant,
    model: Model,
}

/// Makes a controller for each path.
#[derive(Debug)]
pub(super) struct SteadyFactory;

impl ControllerFactory for SteadyFactory {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Steady {
            began: now,
            model: Model::new(mtu.into()),
        })
    }
}

impl Controller for Steady {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, limited: bool, _: &RttEstimator) {
        let since = |at: Instant| at.saturating_duration_since(self.began);
        self.model.acked(since(now), since(sent), bytes, limited);
    }

    fn on_congestion_event(&mut self, _: Instant, _: Instant, is_persistent: bool, lost: u64) {
        self.model.lost(lost, is_persistent);
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.model.set_packet(mtu.into());
    }

    fn window(&self) -> u64 {
        self.model.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.model.packet
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
