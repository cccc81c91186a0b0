//! Accepts connections at one door, and has each served by a task of its own from its first byte.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Door;
use super::room::{Entered, From};
use super::visit::{Accepted, Shared, Visit};
use crate::identity::Refusal;

/// How long the system may take to tell of those who have knocked before the door was closed: whoever is left at a
/// listener that ends is reset.
const KNOCKED: Duration = Duration::from_millis(20);

/// How long a listener rests that cannot accept, for want of descriptors most likely.
const REST: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) enum Listener {
    Socket(UnixListener),
    Tcp(TcpListener),
}

/// Accepts at one door.
#[derive(Debug)]
pub(super) struct Porter {
    pub(super) door: Door,
    pub(super) shared: Arc<Shared>,
    pub(super) visits: TaskTracker,
    /// What is still to be done, the visits included.
    pub(super) work: TaskTracker,
    pub(super) closed: CancellationToken,
    /// Ends every visit, wherever it is.
    pub(super) end: CancellationToken,
}

impl Listener {
    async fn accept(&self) -> io::Result<(Accepted, From)> {
        match self {
            Self::Socket(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Accepted::Socket(stream), From::Socket))
            }
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Accepted::Tcp(stream), From::Address(address.ip())))
            }
        }
    }
}

impl Porter {
    /// Accepts until the door is closed, and then those who had knocked before.
    pub(super) async fn accept(self, listener: Listener) {
        while let Some(accepted) = self.closed.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((accepted, from)) => self.let_in(accepted, from),
                Err(error) => {
                    tracing::warn!(door = %self.door, %error, "a client cannot be accepted");
                    self.closed.run_until_cancelled(sleep(REST)).await;
                }
            }
        }
        let by = Instant::now() + KNOCKED;
        while let Ok(Ok((accepted, from))) = timeout_at(by, listener.accept()).await {
            self.let_in(accepted, from);
        }
    }

    fn let_in(&self, accepted: Accepted, from: From) {
        let end = self.end.child_token();
        let (place, entered) = self.shared.room.enter(from, end.clone());
        if entered == Entered::InsteadOfAnother {
            self.shared.figures.turned_away(self.door, Refusal::Flood);
        }
        let visit = Visit {
            shared: self.shared.clone(),
            door: self.door,
            from,
        };
        let working = self.work.token();
        self.visits.spawn(async move {
            let _working = working;
            let visit = Box::pin(visit.serve(accepted, place));
            end.run_until_cancelled_owned(visit).await;
        });
    }
}
