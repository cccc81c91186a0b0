//! Whether a token counts while the cloud is away: a pure table of its times, the clock, and what the node
//! remembers of it.
//!
//! The rule: what had expired before the link was cut counts no more. What expired since counts on, up to a
//! limit, if it was seen here before it expired: its pod can get no other one, and the cloud would have
//! renewed it. The node's clock may be wrong after a reboot, so a time before the last contact with the cloud is
//! taken for that contact, and what was never seen gets some leeway.

use std::time::Duration;

use jiff::Timestamp;

use super::token::Validity;

/// How much later than its first second a token may seem to be: the last contact is noted every few minutes,
/// and the newest token may be younger than the note.
pub(super) const SLACK: Duration = Duration::from_secs(600);

/// How long a token that was never seen here is taken after it seems to have expired: the clock of a node
/// that has rebooted may be ahead, by a summer time for example.
const LEEWAY: Duration = Duration::from_secs(2 * 3_600);

/// What the node remembers of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenStatus {
    Unknown,
    /// The cloud recognised it, or it was good by the cluster's keys, while it was alive.
    Seen,
    /// The cloud refused it.
    Refused,
}

/// When a token is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JudgedAt {
    /// By the clock.
    pub(crate) now: Timestamp,
    /// When the cloud was there for the last time, as far as is known.
    pub(crate) contact: Option<Timestamp>,
    /// How long after that an identity counts which cannot be renewed.
    pub(crate) limit: Duration,
}

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("the cloud is not reachable and this node has not seen this token before")]
    Unknown,
    #[error("the cloud has refused this token")]
    Refused,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token had expired before the cloud went away")]
    ExpiredBefore,
    #[error("the token has expired and this node had not seen it before")]
    ExpiredSince,
    #[error("the cloud has been away for longer than what it said counts")]
    Limit,
}

/// Judges a token of these times; `is_vouched` if the cluster's keys say that it is genuine.
pub(crate) fn judge(
    validity: Option<Validity>,
    is_vouched: bool,
    standing: TokenStatus,
    moment: JudgedAt,
) -> Result<(), Denied> {
    match standing {
        TokenStatus::Refused => return Err(Denied::Refused),
        TokenStatus::Unknown if !is_vouched => return Err(Denied::Unknown),
        TokenStatus::Unknown | TokenStatus::Seen => {}
    }
    let now = moment.time();
    let Some(validity) = validity else {
        return moment.check_limit(now);
    };
    if validity
        .not_before
        .is_some_and(|first| first > later(now, SLACK))
    {
        return Err(Denied::NotYet);
    }
    if validity.expires >= now {
        return Ok(());
    }
    if moment
        .contact
        .is_some_and(|contact| validity.expires <= contact)
    {
        return Err(Denied::ExpiredBefore);
    }
    match standing {
        TokenStatus::Seen => moment.check_limit(now),
        TokenStatus::Unknown | TokenStatus::Refused => {
            if now <= later(validity.expires, LEEWAY) {
                Ok(())
            } else {
                Err(Denied::ExpiredSince)
            }
        }
    }
}

impl JudgedAt {
    /// Returns what time it is at least: a clock that was set back, or never set, does not go behind what is
    /// known to have been.
    pub(crate) fn time(&self) -> Timestamp {
        self.contact
            .map_or(self.now, |contact| contact.max(self.now))
    }

    fn check_limit(&self, now: Timestamp) -> Result<(), Denied> {
        let contact = self.contact.unwrap_or(self.now);
        if now <= later(contact, self.limit) {
            Ok(())
        } else {
            Err(Denied::Limit)
        }
    }
}

/// Returns a time and a while, or the end of time.
pub(crate) fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600;
    const DAY: i64 = 24 * HOUR;

    /// When the link was cut.
    const CUT: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn moment(now: i64) -> JudgedAt {
        JudgedAt {
            now: at(now),
            contact: Some(at(CUT)),
            limit: Duration::from_secs(30 * 86_400),
        }
    }

    /// A token that was made an hour before `expires`.
    fn until(expires: i64) -> Option<Validity> {
        Some(Validity {
            not_before: Some(at(expires - HOUR)),
            expires: at(expires),
        })
    }

    #[test]
    fn the_times_of_a_token_decide_while_the_cloud_is_away() {
        use TokenStatus::{Refused, Seen, Unknown};
        let alive = until(CUT + HOUR);
        let table = [
            // Alive.
            (CUT + 60, alive, true, Unknown, Ok(())),
            (CUT + 60, alive, true, Seen, Ok(())),
            (CUT + 60, alive, false, Seen, Ok(())),
            (CUT + 60, alive, false, Unknown, Err(Denied::Unknown)),
            (CUT + 60, alive, true, Refused, Err(Denied::Refused)),
            // Expired since the cut.
            (CUT + DAY, alive, true, Seen, Ok(())),
            (CUT + 29 * DAY, alive, false, Seen, Ok(())),
            (CUT + 31 * DAY, alive, true, Seen, Err(Denied::Limit)),
            (CUT + 2 * HOUR, alive, true, Unknown, Ok(())),
            (CUT + DAY, alive, true, Unknown, Err(Denied::ExpiredSince)),
            // Expired before the cut.
            (
                CUT + 1,
                until(CUT - 1),
                true,
                Seen,
                Err(Denied::ExpiredBefore),
            ),
            (
                CUT + 1,
                until(CUT - 1),
                true,
                Unknown,
                Err(Denied::ExpiredBefore),
            ),
            (
                CUT + 1,
                until(CUT - DAY),
                false,
                Seen,
                Err(Denied::ExpiredBefore),
            ),
            // Not valid yet.
            (
                CUT + 1,
                until(CUT + 3 * HOUR),
                true,
                Seen,
                Err(Denied::NotYet),
            ),
            // Opaque, of another issuer.
            (CUT + 29 * DAY, None, false, Seen, Ok(())),
            (CUT + 31 * DAY, None, false, Seen, Err(Denied::Limit)),
            (CUT + 1, None, false, Unknown, Err(Denied::Unknown)),
        ];
        for (now, validity, is_vouched, standing, expected) in table {
            let judged = judge(validity, is_vouched, standing, moment(now));
            assert_eq!(
                judged,
                expected,
                "{standing:?} {validity:?} at {}",
                now - CUT
            );
        }
    }

    #[test]
    fn a_clock_that_is_an_hour_off_after_a_reboot_locks_nobody_out() {
        // Made just before the cut, for an hour, as the kubelet has them made.
        let fresh = until(CUT + HOUR - 5);
        for (skew, word) in [
            (-HOUR, "behind"),
            (HOUR, "ahead"),
            (2 * HOUR, "two ahead"),
            (-CUT, "1970"),
        ] {
            for standing in [TokenStatus::Seen, TokenStatus::Unknown] {
                let judged = judge(fresh, true, standing, moment(CUT + 60 + skew));
                assert_eq!(judged, Ok(()), "{standing:?} {word}");
            }
        }
        // What had expired stays expired, whatever the clock says.
        for skew in [-HOUR, -CUT, HOUR] {
            let judged = judge(until(CUT - 1), true, TokenStatus::Seen, moment(CUT + skew));
            assert_eq!(judged, Err(Denied::ExpiredBefore));
        }
    }

    #[test]
    fn a_node_that_has_never_met_the_cloud_goes_by_its_clock() {
        let moment = JudgedAt {
            contact: None,
            ..moment(CUT)
        };
        assert_eq!(
            judge(until(CUT + 1), true, TokenStatus::Unknown, moment),
            Ok(())
        );
        assert_eq!(
            judge(None, false, TokenStatus::Unknown, moment),
            Err(Denied::Unknown)
        );
    }

    #[test]
    fn the_end_of_time_is_no_overflow() {
        assert_eq!(later(Timestamp::MAX, LEEWAY), Timestamp::MAX);
    }
}
