//! Accepts connections at one door, and has each served by a task of its own from its first byte.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Door;
use super::pending::{Admitted, Source};
use super::visit::{Accepted, Shared, Visit};
use crate::identity::Refusal;

/// How long the system may take to hand over connections that were made before the door closed: closing the
/// listener would reset them.
const BACKLOG_LIMIT: Duration = Duration::from_millis(20);

/// The pause after a failed accept, which most likely lacks file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) enum Listener {
    Socket(UnixListener),
    Tcp(TcpListener),
}

/// Accepts at one door.
#[derive(Debug)]
pub(super) struct Acceptor {
    pub(super) door: Door,
    pub(super) shared: Arc<Shared>,
    pub(super) visits: TaskTracker,
    /// What a drain waits for, the visits included.
    pub(super) work: TaskTracker,
    pub(super) closed: CancellationToken,
    /// Ends every visit, wherever it is.
    pub(super) end: CancellationToken,
}

impl Listener {
    async fn accept(&self) -> io::Result<(Accepted, Source)> {
        match self {
            Self::Socket(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Accepted::Socket(stream), Source::Socket))
            }
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Accepted::Tcp(stream), Source::Address(address.ip())))
            }
        }
    }
}

impl Acceptor {
    /// Accepts until the door is closed, and then what was in the backlog.
    pub(super) async fn accept(self, listener: Listener) {
        while let Some(accepted) = self.closed.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((accepted, source)) => self.admit(accepted, source),
                Err(error) => {
                    tracing::warn!(door = %self.door, %error, "cannot accept a client");
                    self.closed.run_until_cancelled(sleep(PAUSE)).await;
                }
            }
        }
        let by = Instant::now() + BACKLOG_LIMIT;
        while let Ok(Ok((accepted, source))) = timeout_at(by, listener.accept()).await {
            self.admit(accepted, source);
        }
    }

    fn admit(&self, accepted: Accepted, source: Source) {
        let end = self.end.child_token();
        let (permit, admitted) = self.shared.pending.admit(source, end.clone());
        if admitted == Admitted::Evicting {
            self.shared
                .metrics
                .rejected(self.door, Refusal::TooManyHandshakes);
        }
        let visit = Visit {
            shared: self.shared.clone(),
            door: self.door,
            source,
        };
        let working = self.work.token();
        self.visits.spawn(async move {
            let _working = working;
            let visit = Box::pin(visit.serve(accepted, permit));
            end.run_until_cancelled_owned(visit).await;
        });
    }
}
