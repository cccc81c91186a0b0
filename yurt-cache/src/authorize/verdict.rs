//! One word of the cloud: whether it allows an access, and how long that counts.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Access, Permit};
use crate::codec::Status;

/// How long a verdict is used without asking again while the cloud is there. As kube-apiserver's own webhooks
/// cache an allow for minutes and a deny for half of one, and we serve what can be secrets: shorter.
const ALLOWED_FOR: Duration = Duration::from_secs(60);
pub(super) const DENIED_FOR: Duration = Duration::from_secs(10);

/// After how long an allow is asked for again beside the answer, so that whoever asks all the time need not wait.
const ASKED_BESIDE_AFTER: Duration = Duration::from_secs(30);

/// How long a verdict that was only learned for later is not asked for again.
const LEARNED_FOR: Duration = Duration::from_secs(600);

/// What the cloud said of an access.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) is_allowed: bool,
    /// When somebody here wanted to know; None: before this process.
    pub(super) asked: Option<Instant>,
    /// When the cloud said it last; None: before this process.
    pub(super) said: Option<Instant>,
    /// When it was asked in vain since.
    pub(super) tried: Option<Instant>,
    /// When it said so, by the clock.
    pub(super) said_at: Timestamp,
    /// For how long the cloud had been there in all when it said so.
    pub(super) contact: Duration,
    /// Which service account it was said of, by its uid; None: nobody's, or of an earlier hub.
    pub(super) account: Option<Arc<str>>,
    /// When it said what the store has.
    pub(super) written: Timestamp,
}

impl Verdict {
    /// Returns whether it is used without asking again.
    pub(super) fn is_fresh(&self) -> bool {
        self.is_younger_than(if self.is_allowed {
            ALLOWED_FOR
        } else {
            DENIED_FOR
        })
    }

    /// Returns whether it is to be asked for again beside the answer.
    pub(super) fn is_due(&self) -> bool {
        !self.is_younger_than(ASKED_BESIDE_AFTER)
    }

    /// Returns whether it is good enough for when the cloud is away.
    pub(super) fn is_learned(&self) -> bool {
        self.is_younger_than(LEARNED_FOR)
    }

    fn is_younger_than(&self, age: Duration) -> bool {
        self.said.is_some_and(|said| said.elapsed() < age)
    }

    /// Returns whether it was said of this service account, and not of one of the same name before it.
    pub(super) fn is_of(&self, account: Option<&str>) -> bool {
        match (self.account.as_deref(), account) {
            (Some(said_of), Some(account)) => said_of == account,
            (None, _) | (_, None) => true,
        }
    }

    pub(super) fn text(&self) -> String {
        let word = if self.is_allowed { "1" } else { "0" };
        let (at, contact) = (self.said_at.as_second(), self.contact.as_secs());
        let account = self.account.as_deref().unwrap_or_default();
        format!("{word} {at} {contact} {account}")
    }

    /// Reads one; of what an earlier hub wrote nobody knows how long the cloud had been there: `contact` is now.
    pub(super) fn parse(value: &[u8], contact: Duration) -> Option<Self> {
        let mut words = std::str::from_utf8(value).ok()?.split(' ');
        let is_allowed = words.next()? == "1";
        let said_at = Timestamp::from_second(words.next()?.parse().ok()?).ok()?;
        let then = match words.next() {
            None => contact,
            Some(seconds) => Duration::from_secs(seconds.parse().ok()?),
        };
        Some(Self {
            is_allowed,
            asked: None,
            said: None,
            tried: None,
            said_at,
            contact: then,
            account: words.next().filter(|uid| !uid.is_empty()).map(Arc::from),
            written: said_at,
        })
    }

    /// Permits the access, or refuses it.
    pub(super) fn permit(&self, access: &Access) -> Result<Permit, Status> {
        if self.is_allowed {
            Ok(Permit::new())
        } else {
            Err(access.forbidden(""))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_it_was_also_as_an_earlier_hub_wrote_it() {
        let now = Duration::from_secs(7);
        for (text, written) in [
            ("1 1800000000 60 u-1", "1 1800000000 60 u-1"),
            ("0 1800000000 60 ", "0 1800000000 60 "),
            ("1 1800000000", "1 1800000000 7 "),
        ] {
            let read = Verdict::parse(text.as_bytes(), now).unwrap();
            assert_eq!(read.text(), written);
        }
        for bad in [&b""[..], b"1", b"1 x", b"1 1800000000 x u", b"\xff"] {
            assert!(Verdict::parse(bad, now).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_verdict_of_an_account_is_not_that_of_another_of_its_name() {
        let of = |text: &str| Verdict::parse(text.as_bytes(), Duration::ZERO).unwrap();
        let first = of("1 1800000000 0 u-1");
        assert!(first.is_of(Some("u-1")));
        assert!(!first.is_of(Some("u-2")));
        assert!(first.is_of(None), "the hub's own tokens do not say it");
        assert!(of("1 1800000000").is_of(Some("u-1")));
    }
}
