//! What time it is at least, whatever the node's clock says: a clock that was set back, or never set, does not make what
//! is over count again.
//!
//! The floor starts at what the cloud said, or at a mark on the disk, and goes on by the machine's boot-time clock, which
//! nobody can set. A wall clock that is ahead of it counts for as long as it is, but raises the floor only when it has been
//! ahead for an hour, and never beyond the time until which the cloud's word counts at all: a clock that was set forward by
//! mistake and is put right again locks nobody out. What the cloud says puts the floor right in both directions.

use std::time::Duration;

use jiff::Timestamp;

use super::judge::later;

/// How long a wall clock has to be ahead before it is believed.
const BELIEVED_AFTER: Duration = Duration::from_secs(3_600);

/// How far the floor may be from the cloud's word, which knows whole seconds, before it is moved.
const SLIP: Duration = Duration::from_secs(5);

/// A time that is over, and how it goes on: pure, the clocks are arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimeFloor {
    /// The time at a reading of the boot-time clock.
    floor: Option<(Timestamp, Duration)>,
    /// Since which reading the wall clock has been ahead.
    ahead_since: Option<Duration>,
    /// The cloud has said the time since the machine's start.
    is_confirmed: bool,
}

/// What is known of the time at a start of the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeMark {
    /// What time it was at least.
    pub(crate) at: Timestamp,
    /// What the boot-time clock said then, if the machine has not been started again since.
    pub(crate) uptime: Option<Duration>,
}

impl TimeFloor {
    /// Returns the floor of a hub that starts with such marks.
    pub(crate) fn restored(marks: impl IntoIterator<Item = TimeMark>, uptime: Duration) -> Self {
        let now = |mark: TimeMark| {
            let since = mark.uptime.and_then(|then| uptime.checked_sub(then));
            later(mark.at, since.unwrap_or_default())
        };
        let latest = marks.into_iter().map(now).max();
        Self {
            floor: latest.map(|latest| (latest, uptime)),
            ..Self::default()
        }
    }

    /// Returns the floor now.
    pub(crate) fn at(&self, uptime: Duration) -> Option<Timestamp> {
        let (floor, since) = self.floor?;
        Some(later(floor, uptime.saturating_sub(since)))
    }

    /// Returns what time it is.
    pub(crate) fn now(&self, wall: Timestamp, uptime: Duration) -> Timestamp {
        self.at(uptime).map_or(wall, |floor| floor.max(wall))
    }

    /// Returns what time it is while the cloud is there: its own, if it has said it.
    pub(crate) fn at_contact(&self, wall: Timestamp, uptime: Duration) -> Timestamp {
        let confirmed = self.at(uptime).filter(|_| self.is_confirmed);
        confirmed.unwrap_or_else(|| self.now(wall, uptime))
    }

    /// Takes notice of the wall clock; to be called every few minutes. It is not believed beyond `limit`.
    pub(crate) fn look(&mut self, wall: Timestamp, uptime: Duration, limit: Option<Timestamp>) {
        let Some(floor) = self.at(uptime).filter(|floor| wall > *floor) else {
            self.ahead_since = None;
            return;
        };
        let since = *self.ahead_since.get_or_insert(uptime);
        if uptime.saturating_sub(since) >= BELIEVED_AFTER
            && let Some(limit) = limit
        {
            self.floor = Some((floor.max(wall.min(limit)), uptime));
        }
    }

    /// Takes over what the cloud says.
    pub(crate) fn hear(&mut self, cloud: Timestamp, uptime: Duration) {
        self.is_confirmed = true;
        self.ahead_since = None;
        let is_near = |floor: Timestamp| floor.duration_since(cloud).unsigned_abs() <= SLIP;
        if !self.at(uptime).is_some_and(is_near) {
            self.floor = Some((cloud, uptime));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: i64 = 1_800_000_000;
    const HOUR: u64 = 3_600;
    const DAY: u64 = 24 * HOUR;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The floor of a hub whose machine started 100 s ago, when the cloud has just said the time.
    fn told() -> TimeFloor {
        let mut floor = TimeFloor::default();
        floor.hear(at(START), seconds(100));
        floor
    }

    #[test]
    fn without_a_floor_the_clock_says_the_time() {
        let floor = TimeFloor::default();
        assert_eq!(floor.now(at(7), seconds(1)), at(7));
        assert_eq!(TimeFloor::restored([], seconds(1)), floor);
    }

    #[test]
    fn time_goes_on_while_the_clock_is_set_back() {
        let floor = told();
        for wall in [START - 2 * 86_400, 946_684_800, 0] {
            assert_eq!(floor.now(at(wall), seconds(100)), at(START));
            assert_eq!(floor.now(at(wall), seconds(820)), at(START + 720));
        }
    }

    #[test]
    fn time_goes_on_over_a_restart_and_does_not_go_back_over_a_reboot() {
        let mark = |uptime| TimeMark {
            at: at(START),
            uptime,
        };
        let restarted = TimeFloor::restored([mark(Some(seconds(100)))], seconds(700));
        assert_eq!(restarted.now(at(0), seconds(700)), at(START + 600));
        let rebooted = TimeFloor::restored([mark(None)], seconds(20));
        assert_eq!(rebooted.now(at(0), seconds(30)), at(START + 10));
        // A boot-time clock that is behind its own mark is another start's.
        let odd = TimeFloor::restored([mark(Some(seconds(100)))], seconds(20));
        assert_eq!(odd.now(at(0), seconds(20)), at(START));
    }

    #[test]
    fn a_clock_that_was_set_forward_and_put_right_again_locks_nobody_out() {
        let mut floor = told();
        let wrong = at(START + 400 * 86_400);
        for minute in 0..59 {
            let uptime = seconds(100 + 60 * minute);
            floor.look(wrong, uptime, Some(at(START + 30 * 86_400)));
            assert_eq!(
                floor.now(wrong, uptime),
                wrong,
                "it counts while it is there"
            );
        }
        let uptime = seconds(100 + 60 * 59);
        assert_eq!(floor.now(at(START), uptime), at(START + 60 * 59));
    }

    #[test]
    fn a_clock_that_stays_ahead_is_believed_up_to_the_limit() {
        let limit = at(START + 30 * 86_400);
        for (ahead, believed) in [(DAY, DAY), (400 * DAY, 30 * DAY)] {
            let mut floor = told();
            let ahead = i64::try_from(ahead).unwrap();
            for hours in [0, HOUR] {
                floor.look(at(START + ahead), seconds(100 + hours), Some(limit));
            }
            let now = floor.now(at(0), seconds(100 + HOUR));
            assert_eq!(now, at(START + i64::try_from(believed).unwrap()));
        }
        let mut floor = told();
        floor.look(at(START + 500), seconds(100), Some(limit));
        floor.look(at(START), seconds(100 + HOUR), Some(limit));
        floor.look(at(START + 2 * 86_400), seconds(101 + HOUR), Some(limit));
        assert_eq!(
            floor.at(seconds(101 + HOUR)),
            Some(at(START + 3_601)),
            "not for an hour on end"
        );
    }

    #[test]
    fn the_cloud_puts_the_floor_right_in_both_directions() {
        for wrong in [-400 * 86_400, 400 * 86_400] {
            let mark = TimeMark {
                at: at(START + wrong),
                uptime: None,
            };
            let mut floor = TimeFloor::restored([mark], seconds(10));
            floor.hear(at(START), seconds(20));
            assert_eq!(floor.now(at(0), seconds(30)), at(START + 10));
            assert_eq!(
                floor.at_contact(at(START + wrong), seconds(30)),
                at(START + 10)
            );
        }
    }

    #[test]
    fn what_the_cloud_says_within_a_few_seconds_does_not_move_time_back() {
        let mut floor = told();
        floor.hear(at(START - 1), seconds(100));
        assert_eq!(floor.at(seconds(100)), Some(at(START)));
    }

    /// What happens to a node while the cloud is away.
    #[derive(Clone, Debug)]
    enum Step {
        Passes(u64),
        /// The wall clock is set, to so much off the truth.
        Set(i64),
        Look,
        /// The hub starts again, `true` with the machine, which was off for so long.
        Restart(bool, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let off = prop_oneof![
            Just(0),
            Just(-2 * 86_400),
            Just(946_684_800 - START),
            -100_000_i64..100_000_000
        ];
        prop_oneof![
            (0..2 * HOUR).prop_map(Step::Passes),
            off.prop_map(Step::Set),
            Just(Step::Look),
            (any::<bool>(), 0..3 * DAY).prop_map(|(is_boot, off)| Step::Restart(is_boot, off)),
        ]
    }

    proptest! {
        #[test]
        fn the_floor_never_goes_back_nor_slower_than_time_nor_beyond_clock_and_limit(
            steps in proptest::collection::vec(step(), 1..60),
        ) {
            let limit = at(START + 30 * 86_400);
            let (mut truth, mut uptime, mut off) = (START, 100, 0_i64);
            let mut floor = told();
            let mut before = floor.at(seconds(uptime)).unwrap();
            let mut highest = at(START);
            for step in steps {
                let mut passed = 0;
                match step {
                    Step::Passes(time) => {
                        passed = time;
                        uptime += time;
                        truth += i64::try_from(time).unwrap();
                    }
                    Step::Set(to) => off = to,
                    Step::Look => floor.look(at(truth + off), seconds(uptime), Some(limit)),
                    Step::Restart(is_boot, away) => {
                        let mark = TimeMark {
                            at: floor.at(seconds(uptime)).unwrap(),
                            uptime: (!is_boot).then(|| seconds(uptime)),
                        };
                        if is_boot {
                            truth += i64::try_from(away).unwrap();
                            uptime = 1;
                        }
                        floor = TimeFloor::restored([mark], seconds(uptime));
                    }
                }
                let wall = at(truth + off);
                highest = later(highest, seconds(passed)).max(wall);
                let now = floor.at(seconds(uptime)).unwrap();
                prop_assert!(now >= later(before, seconds(passed)), "{now} after {before} + {passed}");
                prop_assert!(now <= highest, "no clock has said {now}");
                prop_assert_eq!(floor.now(wall, seconds(uptime)), now.max(wall));
                before = now;
            }
        }
    }
}
