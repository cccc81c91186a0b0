//! When a certificate is asked for: a pure function of the time, the certificate and the last attempt.

use std::time::Duration;

use jiff::Timestamp;

use crate::identity::later;
use crate::identity::subject::Validity;

/// The part of its life after which a certificate is renewed, and how much of it chance adds: as the kubelet,
/// so that a site that was installed in one night does not renew in one night.
const RENEWED_AFTER_PERCENT: u64 = 70;
const SPREAD_PERCENT: u64 = 20;

/// The pause after the first failure, doubled at each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1_800);

/// How often the clock is looked at: it may have been set meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// An attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) at: Timestamp,
    /// With it, how many in a row.
    pub(crate) failures: u32,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Request,
    Wait(Duration),
}

/// Decides. `chance` is the same for one certificate at each call.
pub(crate) fn next(
    now: Timestamp,
    certificate: Option<Validity>,
    chance: u8,
    last: Option<Attempt>,
) -> Step {
    let due = certificate.map_or(now, |valid| renewed_at(valid, chance));
    if due > now {
        return wait(now, due);
    }
    match last {
        // A clock that was set back says nothing of how long ago it was.
        Some(attempt) if attempt.at <= now => {
            let again = later(attempt.at, attempt.pause());
            if again > now {
                wait(now, again)
            } else {
                Step::Request
            }
        }
        Some(_) | None => Step::Request,
    }
}

/// Returns when a certificate is to be renewed.
pub(crate) fn renewed_at(valid: Validity, chance: u8) -> Timestamp {
    let life = valid.not_after.duration_since(valid.not_before);
    let hundredth = Duration::try_from(life).unwrap_or_default().as_secs() / 100;
    let percent = u64::from(chance) * SPREAD_PERCENT / u64::from(u8::MAX) + RENEWED_AFTER_PERCENT;
    later(valid.not_before, Duration::from_secs(hundredth * percent))
}

fn wait(now: Timestamp, until: Timestamp) -> Step {
    let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
    Step::Wait(left.min(LOOK_EVERY))
}

impl Attempt {
    fn pause(self) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        doubled.min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;
    const BEGIN: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(BEGIN + second).unwrap()
    }

    #[test]
    fn a_certificate_is_asked_for_in_time_and_not_too_often() {
        let valid = Some(Validity {
            not_before: at(0),
            not_after: at(100 * DAY),
        });
        let failed = |ago: i64, failures| Attempt {
            at: at(80 * DAY - ago),
            failures,
        };
        let look = Step::Wait(LOOK_EVERY);
        let seconds = |seconds| Step::Wait(Duration::from_secs(seconds));
        for (now, certificate, chance, last, expected) in [
            // None yet.
            (0, None, 127, None, Step::Request),
            // Young, and old enough by chance.
            (69 * DAY, valid, 0, None, look),
            (70 * DAY - 60, valid, 0, None, seconds(60)),
            (70 * DAY, valid, 0, None, Step::Request),
            (89 * DAY, valid, 255, None, look),
            (90 * DAY, valid, 255, None, Step::Request),
            // Expired, also by far.
            (101 * DAY, valid, 127, None, Step::Request),
            (9_000 * DAY, valid, 127, None, Step::Request),
            // The clock is behind: before it was made, and before its first second.
            (-DAY, valid, 127, None, look),
            // After failures.
            (80 * DAY, valid, 0, Some(failed(3, 1)), seconds(2)),
            (80 * DAY, valid, 0, Some(failed(10, 1)), Step::Request),
            (80 * DAY, valid, 0, Some(failed(4, 2)), seconds(6)),
            (80 * DAY, valid, 0, Some(failed(1_700, 30)), seconds(100)),
            (
                80 * DAY,
                valid,
                0,
                Some(failed(1_800, u32::MAX)),
                Step::Request,
            ),
            (80 * DAY, None, 0, Some(failed(3, 1)), seconds(2)),
            // The clock was set back since the attempt.
            (80 * DAY, valid, 0, Some(failed(-DAY, 9)), Step::Request),
        ] {
            let step = next(at(now), certificate, chance, last);
            assert_eq!(step, expected, "{now} {chance} {last:?}");
        }
    }

    #[test]
    fn odd_validities_are_no_panic() {
        let backwards = Validity {
            not_before: at(DAY),
            not_after: at(0),
        };
        assert_eq!(next(at(DAY), Some(backwards), 127, None), Step::Request);
        let endless = Validity {
            not_before: Timestamp::MIN,
            not_after: Timestamp::MAX,
        };
        assert!(matches!(
            next(at(0), Some(endless), 255, None),
            Step::Wait(_) | Step::Request
        ));
    }
}
