//! How long a link may rest between two questions: as long as the NAT on the way keeps it, which is found out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often a server is asked whether it is there while the link has no stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepAlive {
    /// As seldom as the network allows, which the agent finds out: every 5 to 120 s.
    #[default]
    Adaptive,
    /// Each link this often.
    Fixed(Duration),
    /// Where each byte costs: the longest rests that the network allows, and only the link in use is kept warm.
    Metered,
}

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Dials come by it first.
    First,
    /// Dials come by it when the first is away.
    Spare,
}

/// The rests that are tried, one after the other. NATs forget UDP after 30 s and more, TCP after minutes; the last is
/// for the spare links of a metered node alone.
const RESTS: [u64; 10] = [5, 8, 12, 18, 27, 40, 60, 90, 120, 270];

/// The shortest, which every NAT allows.
pub(super) const SHORTEST: Duration = Duration::from_secs(RESTS[0]);

/// The longest rest but for spare links of a metered node.
const LONGEST: Duration = Duration::from_secs(120);

/// The longest rest of a first link over UDP. The answer to a question of ours does not show that the way back was
/// open before, so that more cannot be found out; most NATs keep UDP for 30 s (RFC 9000, 10.1.2).
const LONGEST_UDP: Duration = Duration::from_secs(30);

/// What ended a session may have been something else: longer rests are tried again after so much rest.
const TRY_AGAIN: Duration = Duration::from_secs(86_400);

/// What is known of a network's patience with links that rest. It is told what happened, and reads no clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Patience {
    /// Which of the rests is next.
    step: usize,
    /// The shortest of the rests after which a session was lost.
    too_long: Option<usize>,
    /// How long links have rested below that.
    #[serde(skip)]
    calm: Duration,
}

impl KeepAlive {
    /// Returns how long a link rests next.
    pub(super) fn rest(self, patience: &Patience, part: Part, is_udp: bool) -> Duration {
        let longest = match (self, part) {
            (Self::Fixed(rest), _) => return rest,
            (Self::Adaptive, Part::First) if is_udp => LONGEST_UDP,
            (Self::Adaptive, _) | (Self::Metered, Part::First) => LONGEST,
            (Self::Metered, Part::Spare) => Duration::MAX,
        };
        patience.rest().min(longest)
    }
}

impl Patience {
    fn rest(&self) -> Duration {
        // The file may say anything.
        let step = self.step.min(RESTS.len() - 1);
        Duration::from_secs(RESTS[step])
    }

    /// Notes that the peer has answered after the link had rested for so long.
    pub(super) fn answered(&mut self, rested: Duration) {
        if rested < self.rest() {
            return;
        }
        if self.too_long.is_some() {
            self.calm += rested;
            if self.calm >= TRY_AGAIN {
                self.too_long = None;
            }
        }
        let end = self.too_long.unwrap_or(RESTS.len()).min(RESTS.len());
        self.step = (self.step + 1).min(end.saturating_sub(1));
    }

    /// Notes that a session was lost while the link rested for so long, and that its server was there.
    pub(super) fn lost(&mut self, rested: Duration) {
        let is_short = |rest: &u64| Duration::from_secs(*rest) < rested;
        self.step = RESTS.iter().filter(|rest| is_short(rest)).count();
        // The shortest is safe, whatever has ended that session.
        self.step = self.step.saturating_sub(1);
        self.too_long = Some(self.step + 1);
        self.calm = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(86_400);

    /// Rests for some days behind a NAT that forgets after so long; returns the rests, and how many ended a session.
    fn live(patience: &mut Patience, keeps: Duration, days: u32) -> (Vec<Duration>, u32) {
        let (mut rests, mut lost, mut now) = (Vec::new(), 0, Duration::ZERO);
        while now < DAY * days {
            let rest = KeepAlive::Adaptive.rest(patience, Part::First, false);
            now += rest;
            if rest <= keeps {
                patience.answered(rest);
            } else {
                patience.lost(rest);
                lost += 1;
            }
            rests.push(rest);
        }
        (rests, lost)
    }

    #[test]
    fn rests_grow_while_they_are_answered_and_stay_below_what_was_lost() {
        for (keeps, settled) in [(4, 5), (5, 5), (29, 27), (60, 60), (75, 60), (600, 120)] {
            let mut patience = Patience::default();
            let (rests, _) = live(&mut patience, SECOND * keeps, 1);
            assert_eq!(rests[0], SECOND * 5, "it starts safe");
            let last = rests[rests.len() / 2];
            assert_eq!(last, SECOND * settled, "a NAT that keeps {keeps} s");
        }
    }

    #[test]
    fn whatever_the_nat_keeps_it_is_found_and_costs_a_session_a_day_at_most() {
        for seed in 0..500 {
            let mut rng = Rng::with_seed(seed);
            let keeps = SECOND * rng.u32(5..300);
            let mut patience = Patience::default();
            let (rests, lost) = live(&mut patience, keeps, 10);
            assert!(lost <= 10, "seed {seed}: {lost} sessions");
            assert!(
                rests
                    .iter()
                    .all(|rest| (SECOND * 5..=LONGEST).contains(rest))
            );
            let steps = rests.windows(2).filter(|two| two[1] > two[0] * 2);
            assert_eq!(steps.count(), 0, "seed {seed}: step by step");
            let long = rests.iter().filter(|rest| **rest * 2 >= keeps.min(LONGEST));
            assert!(
                long.count() * 10 >= rests.len() * 9,
                "seed {seed}: {keeps:?}"
            );
        }
    }

    #[test]
    fn a_rest_that_was_disturbed_shows_nothing() {
        let mut patience = Patience::default();
        patience.answered(SECOND * 4);
        assert_eq!(patience, Patience::default());
    }

    #[test]
    fn what_ended_one_session_is_forgotten_after_a_day() {
        let mut patience = Patience::default();
        live(&mut patience, DAY, 1);
        patience.lost(SECOND * 30);
        assert_eq!(patience.rest(), SECOND * 27);
        for _ in 0..3_000 {
            patience.answered(SECOND * 27);
            assert_eq!(patience.rest(), SECOND * 27, "not sooner");
        }
        live(&mut patience, DAY, 1);
        assert!(patience.rest() >= LONGEST);
    }

    #[test]
    fn what_the_operator_says_and_what_a_link_is_for_bound_its_rests() {
        let mut patience = Patience::default();
        for _ in 0..RESTS.len() {
            patience.answered(DAY);
        }
        let hour = SECOND * 3_600;
        for (keep_alive, part, is_udp, expected) in [
            (KeepAlive::Adaptive, Part::First, true, 30),
            (KeepAlive::Adaptive, Part::First, false, 120),
            (KeepAlive::Adaptive, Part::Spare, true, 120),
            (KeepAlive::Metered, Part::First, true, 120),
            (KeepAlive::Metered, Part::Spare, false, 270),
            (KeepAlive::Fixed(hour), Part::First, true, 3_600),
            (KeepAlive::Fixed(hour), Part::Spare, false, 3_600),
        ] {
            let rest = keep_alive.rest(&patience, part, is_udp);
            assert_eq!(rest, SECOND * expected, "{keep_alive:?} {part:?} {is_udp}");
        }
    }

    #[test]
    fn a_file_that_says_anything_is_lived_with() {
        let text = r#"{"step": 99, "too_long": 0}"#;
        let mut patience: Patience = serde_json::from_str(text).unwrap();
        for _ in 0..20 {
            patience.answered(DAY);
            patience.lost(patience.rest());
            assert!(patience.rest() <= SECOND * 270);
        }
    }
}
