//! A way of connecting that carries handshakes and little else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;
use yurt_core::transport::{
    Acceptor, Error, Incoming, Listener, Peer, Session, State, Stats, Transport,
};

/// Some pings are answered before the network has seen enough.
const PATIENCE: Duration = Duration::from_secs(1);

/// What becomes of a session.
#[derive(Clone, Copy, Debug)]
pub(super) enum Starving {
    /// Nothing is answered soon after the session was made.
    Pings,
    /// Half of all packets are lost.
    Packets,
}

#[derive(Debug)]
pub(super) struct Starved<T> {
    pub(super) transport: T,
    pub(super) starving: Starving,
}

#[derive(Debug)]
struct StarvedSession {
    session: Arc<dyn Acceptor>,
    starving: Starving,
    since: Instant,
}

#[async_trait]
impl<T: Transport> Transport for Starved<T> {
    async fn connect(&self, address: SocketAddr, name: &str) -> Result<Arc<dyn Acceptor>, Error> {
        Ok(Arc::new(StarvedSession {
            session: self.transport.connect(address, name).await?,
            starving: self.starving,
            since: Instant::now(),
        }))
    }

    async fn listen(&self, address: SocketAddr) -> Result<Box<dyn Listener>, Error> {
        self.transport.listen(address).await
    }
}

#[async_trait]
impl Session for StarvedSession {
    fn peer(&self) -> &Peer {
        self.session.peer()
    }

    fn remote(&self) -> SocketAddr {
        self.session.remote()
    }

    fn state(&self) -> watch::Receiver<State> {
        self.session.state()
    }

    async fn ping(&self) -> Result<Duration, Error> {
        match self.starving {
            Starving::Pings if self.since.elapsed() > PATIENCE => std::future::pending().await,
            Starving::Pings | Starving::Packets => self.session.ping().await,
        }
    }

    fn drain(&self) {
        self.session.drain();
    }

    async fn close(&self, reason: &str) {
        self.session.close(reason).await;
    }

    fn stats(&self) -> Stats {
        let mut stats = self.session.stats();
        if matches!(self.starving, Starving::Packets) {
            let packets = self.since.elapsed().as_secs() * 100;
            (stats.sent, stats.lost) = (packets * 1_200, packets);
        }
        stats
    }
}

#[async_trait]
impl Acceptor for StarvedSession {
    async fn accept(&self) -> Result<Box<dyn Incoming>, Error> {
        self.session.accept().await
    }
}
