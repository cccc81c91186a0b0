//! A network in memory: the smallest transport that keeps the contract, for tests of what stands on one.

mod link;
mod pipe;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use async_trait::async_trait;
use tokio::sync::mpsc;

use self::link::{Link, MemoryAcceptor, MemoryOpener};
use crate::transport::{Acceptor, Error, ErrorKind, Listener, Opener, Peer, Result, Transport};

/// Sessions that a listener holds for its owner, before it refuses more.
const BACKLOG: usize = 1024;

/// What the transports of a test share: its listeners, its sessions and its cuts.
///
/// ```
/// use yurt_core::testing::transport::{MemoryNetwork, node, server};
/// use yurt_core::transport::{Acceptor, Listener, Opener, Session, Transport};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> yurt_core::transport::Result<()> {
/// let network = MemoryNetwork::new();
/// let listener = network.transport(server("cloud")).listen("192.0.2.1:443".parse().unwrap()).await?;
/// let edge = network.transport(node("gateway-7"));
/// let acceptor = edge.connect(listener.address(), "cloud").await?;
/// let opener = listener.accept().await.expect("the listener lives")?;
/// assert_eq!(opener.peer().node(), "gateway-7".parse().ok());
/// # drop(acceptor);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryNetwork {
    places: Arc<Mutex<HashMap<SocketAddr, Place>>>,
    next_port: Arc<AtomicU16>,
}

/// What is known of an address that was listened at, or cut.
#[derive(Debug, Default)]
struct Place {
    door: Option<Door>,
    sessions: Vec<Weak<Link>>,
    is_cut: bool,
}

#[derive(Clone, Debug)]
struct Door {
    peer: Peer,
    sessions: mpsc::Sender<MemoryOpener>,
}

impl MemoryNetwork {
    /// Returns a network with nobody in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a transport on this network that shows itself as `peer`.
    #[must_use]
    pub fn transport(&self, peer: Peer) -> MemoryTransport {
        MemoryTransport {
            network: self.clone(),
            peer,
        }
    }

    /// Lets nothing through to the listener at `address` any more: its sessions end as those of a peer that
    /// has gone silent do, and connecting to it times out.
    pub fn cut(&self, address: SocketAddr) {
        let sessions = {
            let mut places = self.places();
            let place = places.entry(address).or_default();
            place.is_cut = true;
            std::mem::take(&mut place.sessions)
        };
        for link in sessions.iter().filter_map(Weak::upgrade) {
            link.end(ErrorKind::Timeout, "the peer has gone silent");
        }
    }

    /// Has the sessions that the listener at `address` has now answer no ping any more, as those of a peer that was
    /// killed without a word do until they are found silent. What is under way on them stays.
    pub fn freeze(&self, address: SocketAddr) {
        if let Some(place) = self.places().get(&address) {
            for link in place.sessions.iter().filter_map(Weak::upgrade) {
                link.freeze();
            }
        }
    }

    /// Takes a cut back. The sessions that it ended stay ended.
    pub fn mend(&self, address: SocketAddr) {
        self.places().entry(address).or_default().is_cut = false;
    }

    fn connect(&self, address: SocketAddr, peer: &Peer, name: &str) -> Result<MemoryAcceptor> {
        let failed = |kind, why| Err(Error::new(kind, format!("connect to {address}: {why}")));
        let mut places = self.places();
        let place = places.entry(address).or_default();
        if place.is_cut {
            return failed(ErrorKind::Timeout, "nobody answers");
        }
        let Some(door) = &place.door else {
            return failed(ErrorKind::Refused, "nobody listens");
        };
        if !door.peer.names.iter().any(|known| known == name) {
            return failed(ErrorKind::Forbidden, "the listener has another name");
        }
        let own = SocketAddr::new(Ipv4Addr::new(198, 51, 100, 1).into(), self.port());
        let (opener, acceptor, link) =
            link::session((door.peer.clone(), address), (peer.clone(), own));
        if door.sessions.try_send(opener).is_err() {
            return failed(
                ErrorKind::Refused,
                "the listener has ended, or too much to do",
            );
        }
        place.sessions.retain(|link| link.strong_count() > 0);
        place.sessions.push(Arc::downgrade(&link));
        Ok(acceptor)
    }

    fn listen(&self, mut address: SocketAddr, peer: Peer) -> Result<MemoryListener> {
        if address.port() == 0 {
            address.set_port(self.port());
        }
        let (sessions, arrivals) = mpsc::channel(BACKLOG);
        let mut places = self.places();
        let place = places.entry(address).or_default();
        if place.door.is_some() {
            return Err(Error::new(
                ErrorKind::Other,
                format!("listen at {address}: it is taken"),
            ));
        }
        place.door = Some(Door { peer, sessions });
        Ok(MemoryListener {
            network: self.clone(),
            address,
            arrivals: tokio::sync::Mutex::new(arrivals),
        })
    }

    /// Returns a port that it has not given before.
    fn port(&self) -> u16 {
        // Like a kernel's: the upper half, in turn.
        0x8000 | self.next_port.fetch_add(1, Ordering::Relaxed)
    }

    fn places(&self) -> MutexGuard<'_, HashMap<SocketAddr, Place>> {
        self.places.lock().expect("no holder of this lock panics")
    }
}

// === MemoryTransport ===

/// A [`Transport`] on a [`MemoryNetwork`], with the identity that its sessions show.
#[derive(Clone, Debug)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    peer: Peer,
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn connect(&self, address: SocketAddr, name: &str) -> Result<Arc<dyn Acceptor>> {
        Ok(Arc::new(self.network.connect(address, &self.peer, name)?))
    }

    async fn listen(&self, address: SocketAddr) -> Result<Box<dyn Listener>> {
        Ok(Box::new(self.network.listen(address, self.peer.clone())?))
    }
}

// === MemoryListener ===

#[derive(Debug)]
struct MemoryListener {
    network: MemoryNetwork,
    address: SocketAddr,
    arrivals: tokio::sync::Mutex<mpsc::Receiver<MemoryOpener>>,
}

#[async_trait]
impl Listener for MemoryListener {
    fn address(&self) -> SocketAddr {
        self.address
    }

    async fn accept(&self) -> Option<Result<Arc<dyn Opener>>> {
        let opener = self.arrivals.lock().await.recv().await?;
        Some(Ok(Arc::new(opener)))
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        if let Some(place) = self.network.places().get_mut(&self.address) {
            place.door = None;
        }
    }
}

/// Returns the two ends of a session between `server`, which opens streams, and `node`.
#[must_use]
pub fn memory_pair(server: Peer, node: Peer) -> (Arc<dyn Opener>, Arc<dyn Acceptor>) {
    let at = |last| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 443);
    let (opener, acceptor, _) = link::session((server, at(1)), (node, at(2)));
    (Arc::new(opener), Arc::new(acceptor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::transport::{Pair, node, server};
    use crate::transport::State;

    async fn pair() -> Pair {
        let (server, node) = (server("cloud"), node("gateway-7"));
        let (opener, acceptor) = memory_pair(server.clone(), node.clone());
        Pair {
            opener,
            acceptor,
            server,
            node,
            limit: link::LIMIT,
            keep: Box::new(()),
        }
    }

    crate::transport_conformance!(pair);

    async fn listener(network: &MemoryNetwork) -> Box<dyn Listener> {
        let address = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 0);
        let cloud = network.transport(server("cloud"));
        cloud.listen(address).await.unwrap()
    }

    #[tokio::test]
    async fn both_ends_of_a_network_know_each_other() {
        let network = MemoryNetwork::new();
        let listener = listener(&network).await;
        let edge = network.transport(node("gateway-7"));
        let acceptor = edge.connect(listener.address(), "cloud").await.unwrap();
        let opener = listener.accept().await.unwrap().unwrap();
        assert_eq!(opener.peer(), &node("gateway-7"));
        assert_eq!(acceptor.peer(), &server("cloud"));
        assert_eq!(acceptor.remote(), listener.address());
    }

    #[tokio::test]
    async fn who_listens_under_another_name_is_not_connected_to() {
        let network = MemoryNetwork::new();
        let listener = listener(&network).await;
        let edge = network.transport(node("gateway-7"));
        let refused = edge.connect(listener.address(), "cloud-2").await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Forbidden);
    }

    #[tokio::test]
    async fn an_address_has_one_listener_while_it_lives() {
        let network = MemoryNetwork::new();
        let listener = listener(&network).await;
        let (address, cloud) = (listener.address(), network.transport(server("cloud")));
        cloud.listen(address).await.unwrap_err();
        let edge = network.transport(node("gateway-7"));
        let acceptor = edge.connect(address, "cloud").await.unwrap();
        let opener = listener.accept().await.unwrap().unwrap();
        drop(listener);
        let refused = edge.connect(address, "cloud").await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Refused);
        let both = [opener.state(), acceptor.state()];
        assert!(both.iter().all(|state| *state.borrow() == State::Open));
        cloud.listen(address).await.unwrap();
    }

    #[tokio::test]
    async fn a_cut_ends_sessions_and_times_connects_out_until_it_is_mended() {
        let network = MemoryNetwork::new();
        let listener = listener(&network).await;
        let (address, edge) = (listener.address(), network.transport(node("gateway-7")));
        let acceptor = edge.connect(address, "cloud").await.unwrap();
        let opener = listener.accept().await.unwrap().unwrap();
        network.cut(address);
        for state in [opener.state(), acceptor.state()] {
            let kind = match &*state.borrow() {
                State::Closed { kind, .. } => Some(*kind),
                State::Open | State::Draining => None,
            };
            assert_eq!(kind, Some(ErrorKind::Timeout));
        }
        let lost = edge.connect(address, "cloud").await;
        assert_eq!(lost.unwrap_err().kind(), ErrorKind::Timeout);
        network.mend(address);
        edge.connect(address, "cloud").await.unwrap();
        listener.accept().await.unwrap().unwrap();
    }
}
