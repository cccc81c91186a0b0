//! Whether a session's peer answers: asked again and again, so that a silence is noticed long before the session
//! ends by it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, mem};

use tokio::time::{Instant, sleep_until};
use yurt_core::transport::{Acceptor, Error};

/// A session that is over is not asked any more while its owner still has it.
const OVER: Duration = Duration::from_secs(86_400);

type Asking = Pin<Box<dyn Future<Output = Result<Duration, Error>> + Send>>;

/// The questions to one peer.
pub(super) struct Pulse {
    session: Arc<dyn Acceptor>,
    every: Duration,
    patience: Duration,
    next: Instant,
    /// How long to wait after the next answer: at first a part of a period, so that agents who were connected at
    /// once do not ask at once for ever, and do not all find out at once that their server was started anew.
    pause: Duration,
    asking: Option<(Asking, Instant)>,
    is_silent: bool,
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// The peer has answered.
    Answered,
    /// The peer should have answered by now.
    Silent,
}

impl Pulse {
    /// Asks for the first time at once.
    pub(super) fn new(
        session: Arc<dyn Acceptor>,
        (every, patience): (Duration, Duration),
        now: Instant,
    ) -> Self {
        Self {
            session,
            every,
            patience,
            next: now,
            pause: every.mul_f64(fastrand::f64()),
            asking: None,
            is_silent: false,
        }
    }

    pub(super) fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Asks now, and waits for the answer no longer than this.
    pub(super) fn urge(&mut self, patience: Duration, now: Instant) {
        self.asking = Some((self.ask(), now + patience));
    }

    /// Returns what is heard next. Dropped, nothing is lost.
    pub(super) async fn beat(&mut self) -> Beat {
        loop {
            let Some((asking, late_at)) = &mut self.asking else {
                sleep_until(self.next).await;
                self.urge(self.patience, Instant::now());
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
                self.next = Instant::now() + OVER;
                continue;
            }
            self.is_silent = false;
            self.next = Instant::now() + mem::replace(&mut self.pause, self.every);
            return Beat::Answered;
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
            let mut pulse = Pulse::new(acceptor, (every, every), Instant::now());
            assert_eq!(pulse.beat().await, Beat::Answered);
            let began = Instant::now();
            assert_eq!(pulse.beat().await, Beat::Answered);
            second.push(began.elapsed());
            let began = Instant::now();
            assert_eq!(pulse.beat().await, Beat::Answered);
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
