//! What the link to one server needs next.

use tokio::time::Instant;

/// Why a session is wanted that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reason {
    /// There is none.
    Missing,
    /// The one that is there does not answer.
    Silent,
    /// The one that is there loses most of what is sent.
    Poor,
    /// The one that is there stands on a certificate that has been replaced, or soon expires.
    Renewal,
    /// The one that is there does not go the preferred way.
    Preferred,
}

/// What is known of the link.
#[derive(Clone, Debug)]
pub(super) struct Situation {
    pub(super) current: Option<Current>,
    /// Nothing is tried before, but the preferred way.
    pub(super) retry_at: Instant,
    /// The number of our certificate.
    pub(super) certificate: u64,
}

/// The session that takes new streams.
#[derive(Clone, Debug)]
pub(super) struct Current {
    /// The number of the certificate that it stands on.
    pub(super) certificate: u64,
    pub(super) is_silent: bool,
    pub(super) is_poor: bool,
    /// When the server's certificate is too near to its end.
    pub(super) renew_at: Option<Instant>,
    /// When the preferred way is tried again, if it is another one.
    pub(super) probe_at: Option<Instant>,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Connect, for this reason.
    Connect(Reason),
    /// Nothing until something happens, or until then.
    Wait(Option<Instant>),
}

/// Returns what to do now.
pub(super) fn want(situation: &Situation, now: Instant) -> Want {
    let retry_at = situation.retry_at;
    let due = match &situation.current {
        None => vec![(retry_at, Reason::Missing)],
        Some(current) => {
            let is_old = current.certificate != situation.certificate;
            let renewal = current.renew_at.map(|at| at.max(retry_at));
            let reasons = [
                (current.is_silent.then_some(retry_at), Reason::Silent),
                (current.is_poor.then_some(retry_at), Reason::Poor),
                (is_old.then_some(retry_at), Reason::Renewal),
                (renewal, Reason::Renewal),
                (current.probe_at, Reason::Preferred),
            ];
            let due = |(at, reason): (Option<Instant>, _)| Some((at?, reason));
            reasons.into_iter().filter_map(due).collect()
        }
    };
    // What presses most, of what is due; else what is due first.
    let pressing = due
        .iter()
        .filter(|(at, _)| *at <= now)
        .map(|(_, reason)| *reason)
        .min();
    match pressing {
        Some(reason) => Want::Connect(reason),
        None => Want::Wait(due.iter().map(|(at, _)| *at).min()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_presses_most_is_done_first() {
        let now = Instant::now();
        let soon = now + Duration::from_secs(1);
        let later = now + Duration::from_secs(2);
        let good = Current {
            certificate: 1,
            is_silent: false,
            is_poor: false,
            renew_at: None,
            probe_at: None,
        };
        let silent = Current {
            is_silent: true,
            ..good.clone()
        };
        let poor = Current {
            is_poor: true,
            ..good.clone()
        };
        let old = Current {
            certificate: 0,
            ..good.clone()
        };
        let probing = |at| Current {
            probe_at: Some(at),
            ..good.clone()
        };
        let expiring = |at| Current {
            renew_at: Some(at),
            ..good.clone()
        };
        let both = Current {
            renew_at: Some(later),
            probe_at: Some(soon),
            ..good.clone()
        };
        let worst = Current {
            is_silent: true,
            certificate: 0,
            probe_at: Some(now),
            ..good.clone()
        };
        for (current, retry_at, expected) in [
            (None, now, Want::Connect(Reason::Missing)),
            (None, soon, Want::Wait(Some(soon))),
            (Some(good.clone()), now, Want::Wait(None)),
            (Some(silent.clone()), now, Want::Connect(Reason::Silent)),
            (Some(silent), soon, Want::Wait(Some(soon))),
            (Some(poor.clone()), now, Want::Connect(Reason::Poor)),
            (Some(poor), soon, Want::Wait(Some(soon))),
            (Some(old), now, Want::Connect(Reason::Renewal)),
            (Some(expiring(now)), now, Want::Connect(Reason::Renewal)),
            (Some(expiring(now)), soon, Want::Wait(Some(soon))),
            (Some(probing(now)), later, Want::Connect(Reason::Preferred)),
            (Some(probing(soon)), now, Want::Wait(Some(soon))),
            (Some(both), now, Want::Wait(Some(soon))),
            (Some(worst.clone()), now, Want::Connect(Reason::Silent)),
            (Some(worst), soon, Want::Connect(Reason::Preferred)),
        ] {
            let situation = Situation {
                current,
                retry_at,
                certificate: 1,
            };
            assert_eq!(want(&situation, now), expected, "{situation:?}");
        }
    }
}
