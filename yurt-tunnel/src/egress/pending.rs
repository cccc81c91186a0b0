//! Connections that have not sent their request yet: a bounded number, and no source can keep the others out.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use yurt_core::admission::{Admission, Ticket};

/// The limit of pending connections, of all doors together.
#[derive(Debug)]
pub(super) struct PendingLimiter {
    waiting: Mutex<Admission<Source, CancellationToken>>,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Socket,
    Address(IpAddr),
}

/// A pending connection; it stops counting when this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    limiter: Arc<PendingLimiter>,
    ticket: Ticket,
}

/// Whether another connection had to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    Freely,
    Evicting,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket => f.write_str("the socket"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl PendingLimiter {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::new(Admission::new(limit)),
        })
    }

    /// Admits a connection. Beyond the limit, the oldest of the source that has most is cancelled by its `end`.
    pub(super) fn admit(
        self: &Arc<Self>,
        source: Source,
        end: CancellationToken,
    ) -> (Permit, Admitted) {
        let (ticket, evicted) = self.waiting.lock().enter(source, end);
        let permit = Permit {
            limiter: self.clone(),
            ticket,
        };
        let Some(oldest) = evicted else {
            return (permit, Admitted::Freely);
        };
        oldest.cancel();
        (permit, Admitted::Evicting)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.waiting.lock().leave(self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> Source {
        Source::Address([192, 0, 2, last].into())
    }

    #[test]
    fn beyond_the_limit_the_oldest_of_the_source_that_has_most_goes() {
        let limiter = PendingLimiter::new(4);
        let admit = |source| {
            let end = CancellationToken::new();
            let (permit, admitted) = limiter.admit(source, end.clone());
            (permit, admitted, end)
        };
        let socket = admit(Source::Socket);
        let one = admit(source(1));
        let flood = [admit(source(2)), admit(source(2))];
        assert!(
            [&socket, &one, &flood[0], &flood[1]]
                .iter()
                .all(|it| it.1 == Admitted::Freely)
        );
        let late = admit(source(2));
        assert_eq!(late.1, Admitted::Evicting);
        let gone = |(_, _, end): &(Permit, Admitted, CancellationToken)| end.is_cancelled();
        assert_eq!(
            [&socket, &one, &flood[0], &flood[1], &late].map(gone),
            [false, false, true, false, false]
        );
        drop(flood);
        assert_eq!(limiter.waiting.lock().len(), 3);
        assert_eq!(admit(source(3)).1, Admitted::Freely);
    }
}
