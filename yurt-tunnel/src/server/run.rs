//! A running server: its tasks, what happens when one ends, and its drain.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::sessions::Accepting;
use super::status::Status;
use super::{Error, Server, Shared, denied, peers};
use crate::children::{Children, Ended};
use crate::identity::Credentials;
use crate::trust::{self, Peers};
use crate::{admin, egress};

/// A server's tasks.
#[derive(Debug)]
pub(super) struct Running {
    shared: Arc<Shared>,
    drain: Duration,
    /// Those that end when the shutdown begins.
    tasks: Children,
    /// Those that continue until every session has ended.
    background: Children,
    sessions: TaskTracker,
    work: TaskTracker,
    /// Ends the sessions of other servers: until the work is done they lead to the nodes.
    done: CancellationToken,
    /// Ends every session, and the background tasks.
    end: CancellationToken,
}

impl Running {
    pub(super) fn start(
        server: Server,
        doors: &egress::Metrics,
        shutdown: &CancellationToken,
        end: CancellationToken,
    ) -> Self {
        let (mut tasks, mut background) = (Children::default(), Children::default());
        let sessions = TaskTracker::new();
        let (work, done) = (server.work, CancellationToken::new());
        let shared = server.shared;
        background.spawn(
            "the check of connected peers",
            reverify_peers(shared.clone(), server.credentials.clone()),
        );
        if let Some(path) = server.denied_nodes {
            let kept = denied::run(shared.clone(), path);
            background.spawn("the check for denied nodes", kept);
        }
        let credentials = server.credentials;
        let status = Status::new(shared.clone(), doors, credentials, shutdown.clone());
        if let Some(listener) = server.admin {
            let served = admin::serve(listener, Arc::new(status), end.clone());
            background.spawn("the listener for health and metrics", served);
        }
        let (source, table, stop) = (server.source, server.table, end.clone());
        let published = async move { source.publish(table, stop).await };
        background.spawn("the source of nodes", published);
        for (transport, listener) in server.listeners {
            info!(address = %listener.address(), transport, "listening for agents");
            let accepting = Accepting {
                shared: shared.clone(),
                transport,
                sessions: sessions.clone(),
                work: work.clone(),
                shutdown: shutdown.clone(),
                done: done.clone(),
                end: end.clone(),
            };
            let task = format!("the {transport} listener");
            tasks.spawn(task, accepting.run(listener));
        }
        for peer in server.peers {
            let task = format!("the link to {peer}");
            let link = peers::run(shared.clone(), peer, shutdown.clone());
            tasks.spawn(task, work.track_future(link));
        }
        Self {
            shared,
            drain: server.drain,
            tasks,
            background,
            sessions,
            work,
            done,
            end,
        }
    }

    /// Serves until the shutdown, or until a task ends; then drains.
    pub(super) async fn serve(mut self, shutdown: &CancellationToken) -> Result<(), Error> {
        let lost = tokio::select! {
            biased;
            () = shutdown.cancelled() => None,
            ended = self.tasks.next_ended() => Some(ended),
            ended = self.background.next_ended() => Some(ended),
        };
        if let Some(Ended { task, .. }) = &lost {
            error!(
                task,
                "shutting down: the server cannot do without this task"
            );
            self.shared.lost.get_or_init(|| task.clone());
            shutdown.cancel();
        }
        self.end().await;
        match lost {
            None => Ok(()),
            Some(Ended { task, panicked }) => Err(Error::Ended {
                task,
                source: panicked,
            }),
        }
    }

    async fn end(mut self) {
        self.sessions.close();
        self.work.close();
        let finished = async {
            self.work.wait().await;
            self.done.cancel();
            self.tasks.join().await;
            self.sessions.wait().await;
        };
        if timeout(self.drain, finished).await.is_err() {
            let streams = self.shared.registry.totals().sum().streams;
            warn!(streams, "aborting the streams that did not end in time");
        }
        self.tasks.shutdown().await;
        self.shared.registry.close().await;
        self.end.cancel();
        self.sessions.wait().await;
        self.background.shutdown().await;
    }
}

async fn reverify_peers(shared: Arc<Shared>, credentials: Credentials) {
    let sessions = || shared.registry.sessions();
    let refused = |refusal| shared.metrics.refused(refusal);
    trust::run(Peers::Clients, credentials, sessions, refused).await;
}
