//! Sessions of agents and of other servers, from the handshake to the end.

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

/// How long an agent may take to hear of the servers.
const LIST_LIMIT: Duration = Duration::from_secs(10);

/// How long the session of another process of the same node may take to show that it lives.
const ANSWER_LIMIT: Duration = Duration::from_millis(1500);

/// How long agents have to go elsewhere before the first of them is left.
const FAREWELL: Duration = Duration::from_secs(5);

/// How often a session that ends is looked at, and how often it has to be found without a stream.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const QUIET_LOOKS: u32 = 10;

/// Takes sessions at one listener.
#[derive(Clone)]
pub(super) struct Accepting {
    pub(super) shared: Arc<Shared>,
    pub(super) transport: &'static str,
    pub(super) sessions: TaskTracker,
    pub(super) work: TaskTracker,
    pub(super) shutdown: CancellationToken,
    /// Lets the sessions of other servers go.
    pub(super) done: CancellationToken,
    /// Ends every session, wherever it is.
    pub(super) end: CancellationToken,
}

impl Accepting {
    /// Takes sessions until the shutdown, or the end of the listener.
    pub(super) async fn run(self, listener: Box<dyn Listener>) {
        let (shared, transport) = (&self.shared, self.transport);
        while let Some(Some(accepted)) = self.shutdown.run_until_cancelled(listener.accept()).await
        {
            match accepted {
                Ok(session) => {
                    let hold = self.clone().hold(session);
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
    shared.figures.refused(refusal);
    if let Some(unsaid) = shared.refusals.say(refusal, Instant::now()) {
        let (reason, error) = (refusal.label(), Chain(error));
        info!(transport, reason, %error, unsaid, "a peer was refused");
    }
    if error.kind() == ErrorKind::Other {
        // Out of file descriptors, most likely: let something end first.
        sleep(Duration::from_millis(100)).await;
    }
}

impl Accepting {
    /// Keeps a session in the registry as long as it lives.
    async fn hold(self, session: Arc<dyn Opener>) {
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
            surplus.close("too many sessions of one peer").await;
        }
        let told = async {
            if is_agent && let Some(process) = tell_servers(shared, &session).await {
                let others = shared.registry.said(&member, number, process);
                end_the_dead(others).await;
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
        let (reason, ()) = tokio::join!(live(&session, farewell), told);
        shared.registry.remove(&member, number);
        info!(user = session.peer().user, %remote, session = number, reason, "disconnected");
    }
}

/// Returns whose a session is; or why it is none, in the log's words and in those for the peer.
fn admit(shared: &Shared, peer: &Peer) -> Result<Member, (Refusal, &'static str, &'static str)> {
    match peer.node() {
        Some(node) => match shared.denied.judge(&node, peer) {
            Ok(()) => Ok(Member::Agent(node)),
            Err(refusal) => Err((refusal, "denied by the operator", DENIED)),
        },
        None if is_server(peer) => Ok(Member::Peer),
        None => Err((
            Refusal::Stranger,
            "neither a node nor a server",
            "only nodes and servers come in here",
        )),
    }
}

/// Waits for the end. When either end drains, it closes the session as soon as nothing flows any more; the other end has
/// the time of the farewell to go elsewhere.
async fn live(
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
            _ => "the session is gone".to_owned(),
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
        quiet(session).await;
        session.close("nothing is left to be done").await;
    };
    tokio::select! {
        reason = &mut closed => reason,
        () = leave => closed.await,
    }
}

/// Waits until no stream has been open for a while: the last bytes of one may be on their way.
async fn quiet(session: &Arc<dyn Opener>) {
    let mut looks = 0;
    while looks < QUIET_LOOKS {
        sleep(LOOK_EVERY).await;
        looks = if session.stats().streams == 0 {
            looks + 1
        } else {
            0
        };
    }
}

/// Asks the sessions of a process whose node has a new one, and closes those that do not answer.
async fn end_the_dead(sessions: Vec<Arc<dyn Opener>>) {
    let mut asking = JoinSet::new();
    for session in sessions {
        asking.spawn(async move {
            if timeout(ANSWER_LIMIT, session.ping()).await.is_err() {
                session
                    .close("a new process of its node is here, and it does not answer")
                    .await;
            }
        });
    }
    while asking.join_next().await.is_some() {}
}

/// Tells an agent where the servers are; returns the name of its process, if it says one.
async fn tell_servers(shared: &Shared, session: &Arc<dyn Opener>) -> Option<String> {
    let told = async {
        let mut stream = session.open(Open::new(Target::Servers, LIST_LIMIT)).await?;
        let written = async {
            stream.write_all(&shared.servers).await?;
            stream.shutdown().await?;
            // The agent answers when it has read the list.
            let mut answer = Vec::new();
            let limit = servers::MAX_ANSWER_BYTES as u64;
            (&mut stream).take(limit).read_to_end(&mut answer).await?;
            Ok::<_, io::Error>(servers::decode_answer(&answer))
        };
        let written = timeout(LIST_LIMIT, written).await;
        let late = |_| Error::new(ErrorKind::Timeout, "the agent does not read the list");
        let lost = |source| Error::new(ErrorKind::Closed, "send the list").with_source(source);
        written.map_err(late)?.map_err(lost)
    };
    match told.await {
        Ok(process) => process,
        Err(error) => {
            debug!(user = session.peer().user, %error, "an agent was not told of the servers");
            None
        }
    }
}
