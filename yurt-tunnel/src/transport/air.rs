//! A long and lossy network in virtual time. Handshakes on it take round trips, may be dropped anywhere, and end in
//! the sessions of the real transports; who waits for whom is decided by their pool.

mod carrier;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use yurt_core::transport::{Acceptor, Error, ErrorKind, Listener, Opener, Peer, Result, Transport};

use self::carrier::{AirCarrier, connection};
use super::handshake::{Handshakes, no_session, refusal};
use super::session::Handle;
use crate::identity::Refusal;
use crate::link::{Config, Role};

/// The first packet that is lost is sent again after this, and after twice as long each time.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// A network whose handshakes take so many round trips until the listener opens the control pipe.
#[derive(Clone, Debug)]
pub(crate) struct Air {
    round_trips: u32,
    places: Arc<Mutex<HashMap<SocketAddr, mpsc::UnboundedSender<Call>>>>,
    broken: Arc<AtomicU64>,
}

/// The way of one end to all others.
#[derive(Clone, Debug)]
pub(crate) struct Road {
    round_trip: Duration,
    loss: f64,
    chance: Arc<Mutex<fastrand::Rng>>,
}

/// One who is about to connect.
struct Call {
    address: SocketAddr,
    peer: Peer,
    /// When its last words before the session arrive.
    proven: oneshot::Receiver<Instant>,
    carrier: AirCarrier,
}

/// An end on the network, at an address of its own.
#[derive(Clone, Debug)]
pub(crate) struct AirTransport {
    air: Air,
    road: Road,
    own: SocketAddr,
    peer: Peer,
    server: Peer,
}

struct AirListener {
    address: SocketAddr,
    broken: Arc<AtomicU64>,
    calls: tokio::sync::Mutex<mpsc::UnboundedReceiver<Call>>,
    handshakes: tokio::sync::Mutex<Handshakes<Arc<dyn Opener>>>,
}

impl Air {
    pub(crate) fn new(round_trips: u32) -> Self {
        Self {
            round_trips,
            places: Arc::default(),
            broken: Arc::default(),
        }
    }

    /// Returns how many peers had proven who they are, and hung up before their hello.
    pub(crate) fn broken(&self) -> u64 {
        self.broken.load(Ordering::Relaxed)
    }

    /// An end that shows itself as `peer` and finds `server` wherever it connects.
    pub(crate) fn transport(
        &self,
        road: Road,
        own: SocketAddr,
        (peer, server): (Peer, Peer),
    ) -> AirTransport {
        AirTransport {
            air: self.clone(),
            road,
            own,
            peer,
            server,
        }
    }
}

impl Road {
    pub(crate) fn new(round_trip: Duration, loss: f64, seed: u64) -> Self {
        let chance = fastrand::Rng::with_seed(seed);
        Self {
            round_trip,
            loss,
            chance: Arc::new(Mutex::new(chance)),
        }
    }

    /// How long a packet is on its way, with all that are sent again; `wait` is for the first of these.
    fn one_way(&self, mut wait: Duration) -> Duration {
        let mut takes = self.round_trip / 2;
        let mut chance = self.chance.lock();
        while chance.f64() < self.loss {
            takes += wait;
            wait *= 2;
        }
        takes
    }

    /// When what is sent now on a connection that stands arrives.
    fn arrival(&self) -> Instant {
        Instant::now() + self.one_way(self.round_trip + Duration::from_millis(200))
    }
}

#[async_trait]
impl Transport for AirTransport {
    async fn connect(&self, address: SocketAddr, _: &str) -> Result<Arc<dyn Acceptor>> {
        let (ours, theirs) = connection(&self.road, (self.own, address));
        let (proves, proven) = oneshot::channel();
        sleep(self.road.one_way(FIRST_WAIT)).await;
        let call = Call {
            address: self.own,
            peer: self.peer.clone(),
            proven,
            carrier: theirs,
        };
        let place = self.air.places.lock().get(&address).cloned();
        let is_taken = place.is_some_and(|place| place.send(call).is_ok());
        sleep(self.road.one_way(FIRST_WAIT)).await;
        if !is_taken {
            return Err(Error::new(ErrorKind::Refused, "nobody listens"));
        }
        for _ in 1..self.air.round_trips {
            sleep(self.road.one_way(FIRST_WAIT) + self.road.one_way(FIRST_WAIT)).await;
        }
        // One that was refused sees it when it goes on.
        let _ = proves.send(Instant::now() + self.road.one_way(FIRST_WAIT));
        let config = Config::default();
        let session = Handle::begin(ours, self.server.clone(), Role::Acceptor, config).await?;
        Ok(Arc::new(session))
    }

    async fn listen(&self, address: SocketAddr) -> Result<Box<dyn Listener>> {
        let (place, calls) = mpsc::unbounded_channel();
        self.air.places.lock().insert(address, place);
        Ok(Box::new(AirListener {
            address,
            broken: self.air.broken.clone(),
            calls: tokio::sync::Mutex::new(calls),
            handshakes: tokio::sync::Mutex::new(Handshakes::new()),
        }))
    }
}

#[async_trait]
impl Listener for AirListener {
    fn address(&self) -> SocketAddr {
        self.address
    }

    async fn accept(&self) -> Option<Result<Arc<dyn Opener>>> {
        let mut calls = self.calls.lock().await;
        let mut handshakes = self.handshakes.lock().await;
        loop {
            tokio::select! {
                shaken = handshakes.next() => return Some(shaken),
                call = calls.recv() => {
                    let call = call?;
                    let broken = self.broken.clone();
                    let begun = handshakes.begin(call.address, |_| shake(call, broken));
                    if let Err(refused) = begun {
                        return Some(Err(refused));
                    }
                }
            }
        }
    }
}

async fn shake(call: Call, broken: Arc<AtomicU64>) -> Result<Arc<dyn Opener>> {
    let Call { address, peer, .. } = call;
    let hung_up = |_| refusal(address, Refusal::HungUp);
    sleep_until(call.proven.await.map_err(hung_up)?).await;
    let config = Config::default();
    let session = Handle::begin(call.carrier, peer.clone(), Role::Opener, config).await;
    let session = session.map_err(|error| {
        broken.fetch_add(1, Ordering::Relaxed);
        no_session(address, &peer, &error)
    })?;
    Ok(Arc::new(session))
}

impl std::fmt::Debug for AirListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AirListener").finish_non_exhaustive()
    }
}
