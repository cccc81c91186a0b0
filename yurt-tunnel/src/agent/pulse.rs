//! Whether a session's peer answers: asked again and again, so that a silence is noticed long before the session
//! ends by it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use yurt_core::transport::{Acceptor, Error};

/// A session that is over is not asked any more while its owner still has it.
const OVER: Duration = Duration::from_secs(86_400);

type Asking = Pin<Box<dyn Future<Output = Result<Duration, Error>> + Send>>;

/// The questions to one peer.
pub(super) struct Pulse {
    session: Arc<dyn Acceptor>,
    patience: Duration,
    next: Instant,
    /// How long the link rests between an answer and the next question.
    rest: Duration,
    /// How long it has rested before the question, if nothing disturbed it.
    rested: Option<Duration>,
    asking: Option<(Asking, Instant)>,
    is_silent: bool,
    is_over: bool,
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// The peer has answered, after the link had rested for so long.
    Answered(Option<Duration>),
    /// The peer should have answered by now.
    Silent,
}

impl Pulse {
    /// Asks for the first time at once.
    pub(super) fn new(session: Arc<dyn Acceptor>, patience: Duration, now: Instant) -> Self {
        Self {
            session,
            patience,
            next: now,
            rest: Duration::ZERO,
            rested: None,
            asking: None,
            is_silent: false,
            is_over: false,
        }
    }

    pub(super) fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Returns how long the link has rested before the question that is open, if nothing disturbed it.
    pub(super) fn doubted(&self) -> Option<Duration> {
        let is_open = self.asking.is_some() || self.is_over;
        self.rested.filter(|_| is_open)
    }

    /// Rests for so long before the next question. A rest of another length begins with a part of it, so that agents
    /// who were connected at once do not ask at once for ever, and do not all find out at once that their server was
    /// started anew.
    pub(super) fn rest(&mut self, rest: Duration, now: Instant) {
        let part = match rest == self.rest {
            true => rest,
            false => rest.mul_f64(fastrand::f64()),
        };
        self.rest = rest;
        self.rested = Some(part);
        self.next = now + part;
    }

    /// Ends the rest after this time at the latest: the link does not rest, it is used.
    pub(super) fn hasten(&mut self, rest: Duration, now: Instant) {
        self.rest = rest;
        self.rested = None;
        self.next = self.next.min(now + rest);
    }

    /// Asks now, and waits for the answer no longer than this.
    pub(super) fn urge(&mut self, patience: Duration, now: Instant) {
        self.rested = None;
        self.ask_within(patience, now);
    }

    fn ask_within(&mut self, patience: Duration, now: Instant) {
        self.asking = Some((self.ask(), now + patience));
    }

    /// Returns what is heard next; after an answer, [`rest`](Self::rest) says when to ask again. Dropped, nothing is
    /// lost.
    pub(super) async fn beat(&mut self) -> Beat {
        loop {
            let Some((asking, late_at)) = &mut self.asking else {
                sleep_until(self.next).await;
                self.ask_within(self.patience, Instant::now());
                continue;
            };
            let answer = tokio::select! {
                biased;
                answer = asking => answer,
                () = sleep_until(*late_at), if !self.is_silent => {
                    self.is_silent = true;
                    return Beat::Silent;
                }
            };
            self.asking = None;
            if answer.is_err() {
                // The session is over, which its owner sees by itself.
                self.is_over = true;
                self.next = Instant::now() + OVER;
                continue;
            }
            self.is_silent = false;
            self.next = Instant::now() + OVER;
            return Beat::Answered(self.rested);
        }
    }

    fn ask(&self) -> Asking {
        let session = self.session.clone();
        Box::pin(async move { session.ping().await })
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse")
            .field("is_silent", &self.is_silent)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use yurt_core::testing::transport::{memory_pair, node, server};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn agents_that_were_connected_at_once_ask_at_different_times() {
        let every = Duration::from_secs(4);
        let mut second = Vec::new();
        for _ in 0..100 {
            let (_opener, acceptor) = memory_pair(server("cloud"), node("edge-1"));
            let mut pulse = Pulse::new(acceptor, every, Instant::now());
            assert_eq!(pulse.beat().await, Beat::Answered(None));
            let began = Instant::now();
            pulse.rest(every, began);
            assert!(matches!(pulse.beat().await, Beat::Answered(Some(_))));
            second.push(began.elapsed());
            let began = Instant::now();
            pulse.rest(every, began);
            assert_eq!(pulse.beat().await, Beat::Answered(Some(every)));
            assert!(began.elapsed() >= every, "{:?}", began.elapsed());
        }
        second.sort();
        assert!(
            second[25] < every / 2 && second[75] > every / 2,
            "{second:?}"
        );
        assert!(
            second[99] <= every + Duration::from_millis(10),
            "{second:?}"
        );
    }
}
