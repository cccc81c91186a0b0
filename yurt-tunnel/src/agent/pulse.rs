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
    every: Duration,
    patience: Duration,
    next: Instant,
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
            self.next = Instant::now() + self.every;
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
