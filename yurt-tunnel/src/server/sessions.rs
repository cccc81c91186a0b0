//! Sessions of agents and other servers, from the handshake to the end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};
use yurt_core::error::Chain;
use yurt_core::transport::{Error, ErrorKind, Listener, Open, Opener, Peer, State, Target};

use super::Shared;
use super::denied::DENIED;
use super::registry::Member;
use crate::identity::{Refusal, is_server};
use crate::servers;

/// How long an agent may take to read the list of servers.
const LIST_LIMIT: Duration = Duration::from_secs(10);

/// How long a session of a node's former process may take to answer a ping.
const ANSWER_LIMIT: Duration = Duration::from_millis(1500);

/// How long agents have to move to other servers before their sessions are closed.
const FAREWELL: Duration = Duration::from_secs(5);

/// A session counts as idle after so many checks without a stream, at this interval.
const CHECK_EVERY: Duration = Duration::from_millis(100);
const IDLE_CHECKS: u32 = 10;

/// Accepts sessions at one listener.
#[derive(Clone)]
pub(super) struct Accepting {
    pub(super) shared: Arc<Shared>,
    pub(super) transport: &'static str,
    pub(super) sessions: TaskTracker,
    pub(super) work: TaskTracker,
    pub(super) shutdown: CancellationToken,
    /// Ends the sessions of other servers.
    pub(super) done: CancellationToken,
    /// Ends every session, wherever it is.
    pub(super) end: CancellationToken,
}

impl Accepting {
    /// Accepts sessions until the shutdown, or the end of the listener.
    pub(super) async fn run(self, listener: Box<dyn Listener>) {
        let (shared, transport) = (&self.shared, self.transport);
        while let Some(Some(accepted)) = self.shutdown.run_until_cancelled(listener.accept()).await
        {
            match accepted {
                Ok(session) => {
                    let hold = self.clone().serve(session);
                    let end = self.end.clone();
                    self.sessions.spawn(end.run_until_cancelled_owned(hold));
                }
                Err(error) => refused(shared, transport, &error).await,
            }
        }
    }
}

async fn refused(shared: &Shared, transport: &'static str, error: &Error) {
    let refusal = Refusal::of(error);
    shared.metrics.refused(refusal);
    if let Some(unsaid) = shared.refusal_log.admit(refusal, Instant::now()) {
        let (reason, error) = (refusal.label(), Chain(error));
        info!(transport, reason, %error, unsaid, "refused a peer");
    }
    if error.kind() == ErrorKind::Other {
        // Most likely out of file descriptors: let something end first.
        sleep(Duration::from_millis(100)).await;
    }
}

impl Accepting {
    /// Serves a session, in the registry, until it ends.
    async fn serve(self, session: Arc<dyn Opener>) {
        let (shared, transport) = (&self.shared, self.transport);
        let peer = session.peer();
        let remote = session.remote();
        let member = match admit(shared, peer) {
            Ok(member) => member,
            Err((refusal, why, words)) => {
                let message = format!("{} at {remote} is {why}", peer.user);
                let error = Error::new(ErrorKind::Forbidden, message).with_source(refusal);
                refused(shared, transport, &error).await;
                return session.close(words).await;
            }
        };
        let is_agent = matches!(member, Member::Agent(_));
        let _working = is_agent.then(|| self.work.token());
        let (number, surplus) = shared
            .registry
            .add(member.clone(), transport, session.clone());
        info!(user = peer.user, %remote, transport, session = number, "connected");
        if let Some(surplus) = surplus {
            surplus.close("the peer has too many sessions").await;
        }
        let sent = async {
            if is_agent && let Some(process) = send_servers(shared, &session).await {
                let others = shared.registry.note_process(&member, number, process);
                close_unresponsive(others).await;
            }
        };
        let farewell = async {
            if is_agent {
                self.shutdown.cancelled().await;
                Some(FAREWELL)
            } else {
                self.done.cancelled().await;
                None
            }
        };
        let lived = async {
            let reason = wait_for_end(&session, farewell).await;
            // What its process has left behind may take its time.
            shared.registry.remove(&member, number);
            reason
        };
        let (reason, ()) = tokio::join!(lived, sent);
        info!(user = session.peer().user, %remote, session = number, reason, "disconnected");
    }
}

/// Returns the member of a session; or why it is refused, for the log and for the peer.
fn admit(shared: &Shared, peer: &Peer) -> Result<Member, (Refusal, &'static str, &'static str)> {
    match peer.node() {
        Some(node) => match shared.denied.judge(&node, peer) {
            Ok(()) => Ok(Member::Agent(node)),
            Err(refusal) => Err((refusal, "denied by the operator", DENIED)),
        },
        None if is_server(peer) => Ok(Member::Peer),
        None => Err((
            Refusal::Unauthorized,
            "neither a node nor a server",
            "only nodes and tunnel servers may connect",
        )),
    }
}

/// Waits for the end of a session, and returns the reason. When either end drains, the session is closed as soon as it
/// is idle; `farewell` resolves to how long the other end has to move elsewhere first.
async fn wait_for_end(
    session: &Arc<dyn Opener>,
    farewell: impl Future<Output = Option<Duration>>,
) -> String {
    let (mut state, mut changing) = (session.state(), session.state());
    let closed = async {
        let last = state
            .wait_for(|state| matches!(state, State::Closed { .. }))
            .await;
        match last.as_deref() {
            Ok(State::Closed { reason, .. }) => reason.clone(),
            _ => "the session has ended".to_owned(),
        }
    };
    tokio::pin!(closed);
    let leave = async {
        let drained = async { drop(changing.wait_for(|state| *state != State::Open).await) };
        tokio::select! {
            () = drained => {}
            farewell = farewell => if let Some(time) = farewell {
                session.drain();
                sleep(time).await;
            },
        }
        wait_until_idle(session).await;
        session.close("drained").await;
    };
    tokio::select! {
        reason = &mut closed => reason,
        () = leave => closed.await,
    }
}

/// Waits until no stream has been open for a while: the last bytes of one may still be in flight.
async fn wait_until_idle(session: &Arc<dyn Opener>) {
    let mut checks = 0;
    while checks < IDLE_CHECKS {
        sleep(CHECK_EVERY).await;
        checks = if session.stats().streams == 0 {
            checks + 1
        } else {
            0
        };
    }
}

/// Pings the sessions of a node's former process, and closes those that do not answer.
async fn close_unresponsive(sessions: Vec<Arc<dyn Opener>>) {
    let mut asking = JoinSet::new();
    for session in sessions {
        asking.spawn(async move {
            if timeout(ANSWER_LIMIT, session.ping()).await.is_err() {
                session
                    .close("superseded by a new process of the node")
                    .await;
            }
        });
    }
    while asking.join_next().await.is_some() {}
}

/// Sends an agent the list of servers; returns the name of its process, if it sends one.
async fn send_servers(shared: &Shared, session: &Arc<dyn Opener>) -> Option<String> {
    let sent = async {
        let mut stream = session.open(Open::new(Target::Servers, LIST_LIMIT)).await?;
        let written = async {
            stream.write_all(&shared.servers).await?;
            stream.shutdown().await?;
            // The agent answers once it has read the list.
            let mut answer = Vec::new();
            let limit = servers::MAX_ANSWER_BYTES as u64;
            (&mut stream).take(limit).read_to_end(&mut answer).await?;
            Ok::<_, io::Error>(servers::decode_answer(&answer))
        };
        let written = timeout(LIST_LIMIT, written).await;
        let late = |_| {
            Error::new(
                ErrorKind::Timeout,
                "the agent did not read the list of servers in time",
            )
        };
        let lost =
            |source| Error::new(ErrorKind::Closed, "send the list of servers").with_source(source);
        written.map_err(late)?.map_err(lost)
    };
    match sent.await {
        Ok(process) => process,
        Err(error) => {
            debug!(user = session.peer().user, %error, "cannot send an agent the list of servers");
            None
        }
    }
}
