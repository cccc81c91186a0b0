//! One word of the cloud: whether it allows an access, and how long that counts.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Access, Permit};
use crate::codec::Status;

/// How long a verdict is used without asking again while the cloud is there. As kube-apiserver's own webhooks
/// cache an allow for minutes and a deny for half of one, and we serve what can be secrets: shorter.
const ALLOWED_FOR: Duration = Duration::from_secs(60);
const DENIED_FOR: Duration = Duration::from_secs(10);

/// How long an allow is used while it is asked again beside the answer: as kube-apiserver caches a webhook's.
const USED_FOR: Duration = Duration::from_secs(300);

/// How long a verdict that was only learned for later is not asked for again.
const LEARNED_FOR: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) is_allowed: bool,
    /// None: remembered from before this process.
    pub(super) asked: Option<Instant>,
    /// When it was written, by the clock: at most a day after it was asked, or before.
    pub(super) written: Timestamp,
}

impl Verdict {
    /// Returns whether it is used without asking again.
    pub(super) fn is_fresh(&self) -> bool {
        let lasts = if self.is_allowed {
            ALLOWED_FOR
        } else {
            DENIED_FOR
        };
        self.asked.is_some_and(|asked| asked.elapsed() < lasts)
    }

    /// Returns whether an allow is used while it is asked again beside the answer.
    pub(super) fn is_recent(&self) -> bool {
        self.asked.is_some_and(|asked| asked.elapsed() < USED_FOR)
    }

    /// Returns whether it is good enough for when the cloud is away.
    pub(super) fn is_learned(&self) -> bool {
        self.asked
            .is_some_and(|asked| asked.elapsed() < LEARNED_FOR)
    }

    pub(super) fn text(self) -> String {
        let word = if self.is_allowed { "1" } else { "0" };
        format!("{word} {}", self.written.as_second())
    }

    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let (word, written) = std::str::from_utf8(value).ok()?.split_once(' ')?;
        Some(Self {
            is_allowed: word == "1",
            asked: None,
            written: Timestamp::from_second(written.parse().ok()?).ok()?,
        })
    }

    /// Permits the access, or refuses it.
    pub(super) fn permit(self, access: &Access) -> Result<Permit, Status> {
        if self.is_allowed {
            Ok(Permit::new())
        } else {
            Err(access.forbidden(""))
        }
    }
}
