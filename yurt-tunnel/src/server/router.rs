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
use super::figures::Figures;
use super::pick::{Road, pick};
use super::registry::{Member, Registry};
use super::tries;
use crate::dial::{Address, Caller, Dial, Dialled, NodePlace};
use crate::egress::Policy;
use crate::nodes::NodeTable;
use crate::shares::Shares;

/// Streams that clients may have to one node, all together: half of what its agent takes in a session, so that the
/// other half is kube-apiserver's.
pub(super) const CLIENT_STREAMS: usize = 512;

/// What makes connections.
pub(super) struct Router {
    pub(super) registry: Arc<Registry>,
    pub(super) nodes: watch::Receiver<Arc<NodeTable>>,
    pub(super) policy: Policy,
    pub(super) figures: Figures,
    /// What clients have of each node's streams.
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
        let (road, dialled) = match pick(caller, address, &nodes, &self.policy) {
            Err(error) => ("none", Err(error)),
            Ok(Road::Direct { host }) => {
                let port = address.port;
                let dialled = direct(&Address { host, port }, deadline).await;
                ("direct", dialled.map(|tcp| Dialled::Direct(tcp.into())))
            }
            Ok(Road::Agent { node, host }) => {
                let target = Target::Dial {
                    node: Some(node.clone()),
                    host,
                    port: address.port,
                };
                let dialled = self.shared(caller, &node, target, deadline).await;
                ("agent", dialled)
            }
        };
        self.figures
            .dialled(road, dialled.as_ref().err(), began.elapsed());
        dialled
    }
}

impl Router {
    /// Opens a stream to the node's agent within the caller's share of them. kube-apiserver's is all there are.
    async fn shared(
        &self,
        caller: &Caller,
        node: &NodeName,
        target: Target,
        deadline: Duration,
    ) -> Result<Dialled, Error> {
        let Caller::Client(client) = caller else {
            let stream = self.through(node, target, deadline).await?;
            return Ok(Dialled::Stream(stream, None));
        };
        let user = &client.user;
        let place = self.clients.enter(node.clone(), user).map_err(|share| {
            let message = format!("{user} has {share} streams to node {node}, which is its share");
            Error::new(ErrorKind::Overloaded, message)
        })?;
        let stream = self.through(node, target, deadline).await?;
        Ok(Dialled::Stream(stream, Some(NodePlace(place))))
    }

    /// Opens a stream to the node's agent: here, or at the server that it is connected to.
    pub(super) async fn through(
        &self,
        node: &NodeName,
        target: Target,
        deadline: Duration,
    ) -> Result<Box<dyn Stream>, Error> {
        let mut sessions = self.registry.open(&Member::Agent(node.clone()));
        let known = sessions.len();
        sessions.extend(self.registry.open(&Member::Peer));
        let peers = sessions.len() - known;
        let end = Instant::now() + deadline;
        tries::first(sessions, &target, end).await.map_err(|error| {
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

    /// Opens a stream to an agent that is connected here, for another server.
    pub(super) async fn for_peer(
        &self,
        node: &NodeName,
        target: Target,
        deadline: Duration,
    ) -> Result<Box<dyn Stream>, Error> {
        let sessions = self.registry.open(&Member::Agent(node.clone()));
        let end = Instant::now() + deadline;
        tries::first(sessions, &target, end).await.map_err(|error| {
            error.unwrap_or_else(|| {
                let message = format!("no agent of node {node} is connected here");
                Error::new(ErrorKind::NoPeer, message)
            })
        })
    }
}

/// Waits for a round trip of bytes through a session: what a probe of the path is.
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
    let back = back.map_err(|_| Error::new(ErrorKind::Timeout, "the echo does not come back"))?;
    match back {
        Ok(back) if back == b"yurt" => Ok(began.elapsed()),
        Ok(_) => Err(Error::new(ErrorKind::Protocol, "the echo is another")),
        Err(source) => {
            Err(Error::new(ErrorKind::Closed, "the echo breaks off").with_source(source))
        }
    }
}
