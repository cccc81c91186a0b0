//! Whether a session's path loses so much of what is sent that another transport may do better.
//!
//! Some networks let a few packets of UDP pass and throw away what goes beyond: handshakes and pings do well, copies do
//! not. QUIC goes on there with next to nothing, while TCP would have the whole line.

use std::time::Duration;

use tokio::time::Instant;
use yurt_core::transport::Stats;

/// How long is watched at a time.
const SPAN: Duration = Duration::from_secs(4);

/// So many packets lost in that time are more than a bad moment ...
const LOST: u64 = 30;
/// ... if they are more than this share of what was sent, in percent: a path that loses a few is QUIC's own field.
const SHARE: u64 = 30;

/// What fits in a packet, about.
const PACKET: u64 = 1_200;

/// What a session has sent and lost when it was looked at last.
#[derive(Debug)]
pub(super) struct Quality {
    since: Instant,
    sent: u64,
    lost: u64,
}

impl Quality {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            sent: 0,
            lost: 0,
        }
    }

    /// Looks at what a session has counted so far; returns whether what came since the last look is poor.
    pub(super) fn is_poor(&mut self, stats: &Stats, now: Instant) -> bool {
        if now < self.since {
            // What comes during a rest is not judged after it.
            (self.sent, self.lost) = (stats.sent, stats.lost);
            return false;
        }
        if now.duration_since(self.since) < SPAN {
            return false;
        }
        let sent = stats.sent.saturating_sub(self.sent) / PACKET;
        let lost = stats.lost.saturating_sub(self.lost);
        *self = Self {
            since: now,
            sent: stats.sent,
            lost: stats.lost,
        };
        // What streams have written is sent once; what was lost is sent besides.
        lost >= LOST && lost.saturating_mul(100) > (sent + lost).saturating_mul(SHARE)
    }

    /// Looks again only after a time.
    pub(super) fn rest_until(&mut self, at: Instant) {
        self.since = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(sent: u64, lost: u64) -> Stats {
        let mut stats = Stats::default();
        (stats.sent, stats.lost) = (sent * PACKET, lost);
        stats
    }

    #[test]
    fn a_path_is_poor_when_it_loses_a_third_of_much() {
        for (sent, lost, poor) in [
            (0, 0, false),
            // Idle, a shell, a blackout that took a few.
            (5, 10, false),
            (1_000, 0, false),
            // A bad radio, a policer that takes a tenth.
            (1_000, 100, false),
            (1_000, 300, false),
            // A line that lets next to nothing pass.
            (20, 60, true),
            (1_000, 600, true),
        ] {
            let began = Instant::now();
            let mut quality = Quality::new(began);
            let soon = began + SPAN / 2;
            assert!(
                !quality.is_poor(&stats(sent, lost), soon),
                "too soon to tell"
            );
            let is_poor = quality.is_poor(&stats(sent, lost), began + SPAN);
            assert_eq!(is_poor, poor, "{lost} lost beside {sent}");
            let later = began + SPAN * 2;
            let is_poor = quality.is_poor(&stats(sent + 1_000, lost), later);
            assert!(!is_poor, "what was before does not count");
        }
    }
}
