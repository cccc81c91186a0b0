//! The decisions: how many bytes may be on their way.

use std::time::Duration;

use super::ceiling::Ceiling;
use super::rate::Rate;

/// What may be on its way before anything is known (RFC 6928).
const INITIAL_PACKETS: u64 = 10;

/// What may always be on its way.
pub(super) const MIN_PACKETS: u64 = 4;

/// Queueing that is allowed beyond the share of the round trip: timers and busy processors take as long.
const SLACK: Duration = Duration::from_millis(2);

/// Rounds of one cycle, in percent of what a round trip delivers: one asks for more, the next lets the queue go.
const CYCLE: [u64; 8] = [150, DRAINED, 125, 125, 125, 125, 125, 125];

/// The step of the cycle that lets the queue go, and what it holds.
const DRAIN: usize = 1;
const DRAINED: u64 = 80;

/// The startup is over when the rate has not grown by a quarter for this many rounds.
const FLAT_ROUNDS: u32 = 3;

/// So many packets lost in a round, and this share of it in percent, end the startup (draft-ietf-ccwg-bbr, 5.3.1.3).
const STARTUP_LOSSES: u64 = 6;
const STARTUP_LOSS: u64 = 2;

/// This share of a round lost, in percent, is an overflow whatever the queue seems to be.
const HEAVY_LOSS: u64 = 10;

/// Rounds of which the rate counts while there is a queue that the model does not explain.
const NARROW_ROUNDS: usize = 2;

/// A flow that competes looks whether it still has to after the first cut beyond this time ...
const COMPETE: Duration = Duration::from_secs(4);
/// ... or after this time, if there is none.
const COMPETE_AT_MOST: Duration = Duration::from_secs(16);

/// Rounds in which a queue of our own goes, and we hear of it.
const PROBE_ROUNDS: u32 = 2;

/// The model of a path.
#[derive(Clone, Debug)]
pub(super) struct Model {
    packet: u64,
    window: u64,
    /// What the phase wants; the window follows it, and the ceiling bounds it.
    goal: u64,
    ceiling: Option<Ceiling>,
    rate: Rate,
    phase: Phase,
    round: Round,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Twice as much each round, until it brings no more.
    Startup { best: u64, flat: u32 },
    /// As the model says.
    Steady { step: usize },
    /// Others keep a queue: as the ceiling says.
    Competing { since: Duration },
    /// As little as drains a queue of our own, until it is gone or for so many rounds.
    ProbeRtt { left: u32 },
}

/// From the sending of a packet until its arrival is known: it tells of what was sent in the round before.
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
            goal: INITIAL_PACKETS * packet,
            ceiling: None,
            rate: Rate::default(),
            phase: Phase::Startup { best: 0, flat: 0 },
            round: Round::default(),
        }
    }

    /// The bytes that may be on their way.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// The bytes that may be on their way before anything is known.
    pub(super) fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.packet
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
        let shortest = self.round.shortest.map_or(trip, |known| known.min(trip));
        self.round.shortest = Some(shortest);
        if !is_app_limited {
            self.grow(now, sent, bytes);
        }
        if sent >= self.round.began {
            self.end_round(now);
        }
        // Not all at once: a burst overflows a short queue.
        self.follow(bytes);
    }

    /// Takes the word that bytes were lost; none, if a queue has marked a packet instead (ECN).
    pub(super) fn lost(&mut self, now: Duration, sent: Duration, bytes: u64, is_persistent: bool) {
        self.round.lost = self.round.lost.saturating_add(bytes);
        if is_persistent {
            let round = self.round;
            *self = Self::new(self.packet);
            self.round = round;
            self.window = MIN_PACKETS * self.packet;
            return;
        }
        let is_marked = bytes == 0;
        match self.phase {
            Phase::Startup { .. } if is_marked || self.has_lost(STARTUP_LOSS) => {
                self.end_startup(now);
            }
            Phase::Startup { .. } => {}
            _ if self.ceiling.as_ref().is_some_and(|it| it.covers(sent)) => {}
            _ if is_marked || self.rate.is_queue_full() || self.has_lost(HEAVY_LOSS) => {
                self.cut(now);
            }
            // A queue that is not full loses nothing: it was the path.
            _ => {}
        }
    }

    pub(super) fn set_packet(&mut self, packet: u64) {
        self.packet = packet;
        self.window = self.window.max(MIN_PACKETS * packet);
    }

    // === Inside ===

    fn grow(&mut self, now: Duration, sent: Duration, bytes: u64) {
        if matches!(self.phase, Phase::Startup { .. }) {
            self.goal = self.goal.saturating_add(bytes);
        } else if let Some(ceiling) = &mut self.ceiling
            && self.window >= ceiling.window()
        {
            ceiling.acked(now, sent, bytes, self.packet);
        }
    }

    fn follow(&mut self, bytes: u64) {
        let ceiling = self.ceiling.as_ref().map_or(u64::MAX, Ceiling::window);
        self.window = self
            .goal
            .min(ceiling)
            .min(self.window.saturating_add(bytes))
            .max(MIN_PACKETS * self.packet);
    }

    /// Whether a round has lost more than a few packets and a share of it, in percent.
    fn has_lost(&self, percent: u64) -> bool {
        let of = self.window.max(self.round.acked + self.round.lost);
        let lost = self.round.lost;
        lost >= STARTUP_LOSSES * self.packet && lost.saturating_mul(100) > of * percent
    }

    fn end_startup(&mut self, now: Duration) {
        // Of a window that was twice too large, what has arrived counts.
        let window = self.window.min(self.delivered(100));
        self.ceiling = Some(Ceiling::cut(window, None, now));
        self.enter(Phase::Steady { step: DRAIN });
        self.follow(0);
    }

    fn cut(&mut self, now: Duration) {
        let window = match (self.phase, &self.ceiling) {
            // Lost was what was sent before it.
            (Phase::ProbeRtt { .. }, Some(ceiling)) => ceiling.window(),
            _ => self.window,
        };
        self.ceiling = Some(Ceiling::cut(window, self.ceiling.as_ref(), now));
        if let Phase::Competing { since } = self.phase
            && now.saturating_sub(since) > COMPETE
        {
            // The others have cut theirs too, so that the queue is as short as it gets.
            self.enter(Phase::ProbeRtt { left: PROBE_ROUNDS });
        }
        self.follow(0);
    }

    fn end_round(&mut self, now: Duration) {
        let round = std::mem::take(&mut self.round);
        self.round.began = now;
        let took = now.saturating_sub(round.began);
        self.rate.round(round.acked, took, round.is_app_limited);
        let has_queue = self.has_queue(round);
        if has_queue && matches!(self.phase, Phase::Steady { .. } | Phase::ProbeRtt { .. }) {
            // What it delivered before it became narrow no longer counts.
            self.rate.forget_all_but(NARROW_ROUNDS);
        }
        let next = self.next(now, round, has_queue);
        self.enter(next);
    }

    fn next(&mut self, now: Duration, round: Round, has_queue: bool) -> Phase {
        match self.phase {
            Phase::Startup { best, flat } if !has_queue => self.speed_up(round, best, flat),
            // The queue that the startup has left goes in the round that holds least.
            Phase::Startup { .. } => Phase::Steady { step: DRAIN },
            // This round tells of the one that held least.
            Phase::Steady { step } if step == DRAIN + 1 && has_queue && !round.is_app_limited => {
                let window = self.window;
                self.ceiling.get_or_insert_with(|| Ceiling::at(window, now));
                Phase::ProbeRtt { left: PROBE_ROUNDS }
            }
            // The ceiling is below what the cycle is about: no queue of ours to let go, no more to ask for.
            Phase::Steady { .. } if self.is_bounded() => Phase::Steady { step: DRAIN + 2 },
            Phase::Steady { step } => Phase::Steady {
                step: (step + 1) % CYCLE.len(),
            },
            Phase::Competing { since } if now.saturating_sub(since) > COMPETE_AT_MOST => {
                Phase::ProbeRtt { left: PROBE_ROUNDS }
            }
            Phase::Competing { since } => Phase::Competing { since },
            Phase::ProbeRtt { .. } if !has_queue => Phase::Steady { step: DRAIN + 1 },
            Phase::ProbeRtt { left: 0 | 1 } => Phase::Competing { since: now },
            Phase::ProbeRtt { left } => Phase::ProbeRtt { left: left - 1 },
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.goal = match phase {
            Phase::Startup { .. } => self.goal,
            Phase::Steady { step } => self.delivered(CYCLE[step]),
            Phase::Competing { .. } => u64::MAX,
            Phase::ProbeRtt { .. } => self.delivered(DRAINED),
        };
        if matches!(phase, Phase::Steady { .. })
            && let Some(ceiling) = &self.ceiling
            && ceiling.window() / 2 > self.delivered(CYCLE[0])
        {
            self.ceiling = None; // long ago
        }
    }

    /// Decides whether the startup still brings anything.
    fn speed_up(&self, round: Round, best: u64, flat: u32) -> Phase {
        let rate = self.rate.best();
        let (best, flat) = match rate.saturating_mul(4) >= best.saturating_mul(5) {
            true => (rate, 0),
            false if round.is_app_limited => (best, flat),
            false => (best, flat + 1),
        };
        if flat >= FLAT_ROUNDS {
            return Phase::Steady { step: DRAIN };
        }
        Phase::Startup { best, flat }
    }

    fn is_bounded(&self) -> bool {
        let most = self.delivered(CYCLE[DRAIN + 1]);
        self.ceiling.as_ref().is_some_and(|it| it.window() < most)
    }

    /// Whether no packet of a round was about as quick as the path allows.
    fn has_queue(&self, round: Round) -> bool {
        match (round.shortest, self.rate.shortest()) {
            (Some(of_round), Some(ever)) => of_round > ever + ever / 8 + SLACK,
            _ => false,
        }
    }

    /// What the path delivers in its shortest round trip, in percent; beyond all of it, in the slack too.
    fn delivered(&self, percent: u64) -> u64 {
        let shortest = self.rate.shortest().unwrap_or_default();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let slack = if percent > 100 { SLACK } else { Duration::ZERO };
        let time = (micros(shortest).saturating_mul(percent) / 100).saturating_add(micros(slack));
        let bytes = u128::from(self.rate.best()) * u128::from(time) / 1_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}
