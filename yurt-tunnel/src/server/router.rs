//! Makes the connections that the doors ask for: through an agent, through another server, or directly.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use yurt_core::name::NodeName;
use yurt_core::transport::{Error, ErrorKind, Opener, Stream, Target};

use super::connect::direct;
use super::metrics::Metrics;
use super::pick::{Route, pick};
use super::registry::{Member, Registry};
use super::tries;
use crate::dial::{Address, Caller, Dial, Dialled, NodePlace};
use crate::egress::Policy;
use crate::nodes::NodeTable;
use crate::shares::Shares;

/// Streams to one node of all clients together: half of what its agent takes in a session, so that the other half
/// is kube-apiserver's.
pub(super) const CLIENT_STREAMS: usize = 512;

/// The server's [`Dial`].
pub(super) struct Router {
    pub(super) registry: Arc<Registry>,
    pub(super) nodes: watch::Receiver<Arc<NodeTable>>,
    pub(super) policy: Policy,
    pub(super) metrics: Metrics,
    /// Each client's streams to each node.
    pub(super) clients: Arc<Shares<NodeName>>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").finish_non_exhaustive()
    }
}

#[async_trait]
impl Dial for Router {
    async fn dial(
        &self,
        caller: &Caller,
        address: &Address,
        deadline: Duration,
    ) -> Result<Dialled, Error> {
        let began = Instant::now();
        let nodes = self.nodes.borrow().clone();
        let (route, dialled) = match pick(caller, address, &nodes, &self.policy) {
            Err(error) => ("none", Err(error)),
            Ok(Route::Direct { host }) => {
                let port = address.port;
                let dialled = direct(&Address { host, port }, deadline).await;
                ("direct", dialled.map(|tcp| Dialled::Direct(tcp.into())))
            }
            Ok(Route::Agent { node, host }) => {
                let target = Target::Dial {
                    node: Some(node.clone()),
                    host,
                    port: address.port,
                };
                let dialled = self.open_stream_as(caller, &node, target, deadline).await;
                ("agent", dialled)
            }
        };
        self.metrics
            .dialled(route, dialled.as_ref().err(), began.elapsed());
        dialled
    }
}

impl Router {
    /// Opens a stream to the node's agent, within the caller's share. kube-apiserver's is not limited.
    async fn open_stream_as(
        &self,
        caller: &Caller,
        node: &NodeName,
        target: Target,
        deadline: Duration,
    ) -> Result<Dialled, Error> {
        let Caller::Client(client) = caller else {
            let stream = self.open_stream(node, target, deadline).await?;
            return Ok(Dialled::Stream(stream, None));
        };
        let user = &client.user;
        let place = self.clients.enter(node.clone(), user).map_err(|share| {
            let message = format!("{user} has {share} streams to node {node}, its share");
            Error::new(ErrorKind::Overloaded, message)
        })?;
        let stream = self.open_stream(node, target, deadline).await?;
        Ok(Dialled::Stream(stream, Some(NodePlace(place))))
    }

    /// Opens a stream to the node's agent, connected here or to another server.
    pub(super) async fn open_stream(
        &self,
        node: &NodeName,
        target: Target,
        deadline: Duration,
    ) -> Result<Box<dyn Stream>, Error> {
        let mut sessions = self.registry.open_sessions(&Member::Agent(node.clone()));
        let known = sessions.len();
        sessions.extend(self.registry.open_sessions(&Member::Peer));
        let peers = sessions.len() - known;
        let end = Instant::now() + deadline;
        tries::open_first(sessions, &target, end)
            .await
            .map_err(|error| {
                let elsewhere = match peers {
                    0 => String::new(),
                    1 => ", here or to the other server".to_owned(),
                    peers => format!(", here or to {peers} other servers"),
                };
                error.unwrap_or_else(|| {
                    let message = format!("no agent of node {node} is connected{elsewhere}");
                    Error::new(ErrorKind::NoPeer, message)
                })
            })
    }

    /// Opens a stream to an agent that is connected here, for another server: requests are passed on once.
    pub(super) async fn open_stream_here(
        &self,
        node: &NodeName,
        target: Target,
        deadline: Duration,
    ) -> Result<Box<dyn Stream>, Error> {
        let sessions = self.registry.open_sessions(&Member::Agent(node.clone()));
        let end = Instant::now() + deadline;
        tries::open_first(sessions, &target, end)
            .await
            .map_err(|error| {
                error.unwrap_or_else(|| {
                    let message = format!("no agent of node {node} is connected here");
                    Error::new(ErrorKind::NoPeer, message)
                })
            })
    }
}

/// Probes a path: has the other end of a session echo a few bytes, and returns how long they took, including the
/// time to open their stream. Both fit into `limit`.
///
/// # Errors
/// Why the stream was not opened, [`ErrorKind::Timeout`] after `limit`, or what is wrong with the echo.
pub(super) async fn echo(session: &Arc<dyn Opener>, limit: Duration) -> Result<Duration, Error> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let began = Instant::now();
    let end = began + limit;
    let mut stream = tries::open(session, &Target::Echo, end).await?;
    let exchange = async {
        stream.write_all(b"yurt").await?;
        stream.shutdown().await?;
        let mut back = Vec::new();
        (&mut stream).take(16).read_to_end(&mut back).await?;
        Ok::<_, io::Error>(back)
    };
    let back = timeout_at(end, exchange).await;
    let back =
        back.map_err(|_| Error::new(ErrorKind::Timeout, "the echo did not come back in time"))?;
    match back {
        Ok(back) if back == b"yurt" => Ok(began.elapsed()),
        Ok(_) => Err(Error::new(
            ErrorKind::Protocol,
            "the echo differs from what was sent",
        )),
        Err(source) => {
            Err(Error::new(ErrorKind::Closed, "the echo was cut short").with_source(source))
        }
    }
}
