//! One connection of a client: who is it, where does it want to go, and the tunnel until both ends have ended.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use yurt_core::transport::{Error, ErrorKind};

use super::answer::{Refused, Status};
use super::client::{self, Client, NoHead};
use super::figures::{Counted, Figures};
use super::room::{self, From, Room};
use super::tunnel::Tunnel;
use super::{Door, Limits, Policy};
use crate::dial::{Address, Caller, Dial, Dialled};
use crate::identity::{self, Credentials, Protocol, Refusal};
use crate::shares::{Place, Shares};

/// How much longer than told a dial may take before it is given up from outside.
const GRACE: Duration = Duration::from_millis(500);

/// What every visit needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) policy: Policy,
    pub(super) limits: Limits,
    pub(super) credentials: Credentials,
    pub(super) dial: Arc<dyn Dial>,
    pub(super) figures: Figures,
    pub(super) room: Arc<Room>,
    pub(super) api_server_tunnels: Arc<Semaphore>,
    pub(super) client_tunnels: Arc<Shares<()>>,
}

/// A connection as a listener gives it.
#[derive(Debug)]
pub(super) enum Accepted {
    Socket(UnixStream),
    Tcp(TcpStream),
}

/// One who has come in.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) shared: Arc<Shared>,
    pub(super) door: Door,
    pub(super) from: From,
}

/// What comes of a request.
enum Outcome {
    /// The client went, or was no client.
    Nothing,
    Tunnel(Open),
}

/// What lets a tunnel be, as long as it lives.
enum Permit {
    ApiServer(#[expect(dead_code, reason = "held, and given back")] OwnedSemaphorePermit),
    Client(#[expect(dead_code, reason = "held, and given back")] Place<()>),
}

/// A connection to the target that the client does not know of yet.
struct Open {
    address: Address,
    dialled: Dialled,
    counted: (Permit, Counted),
}

impl Visit {
    /// Serves one connection to its end.
    pub(super) async fn serve(self, accepted: Accepted, place: room::Place) {
        let waiting = self.shared.figures.waiting(self.door);
        let by = Instant::now() + self.shared.limits.head;
        let Some((mut client, caller)) = self.greet(accepted, by).await else {
            return;
        };
        let asked = self.asked(&mut client, by).await;
        drop((place, waiting));
        let outcome = match asked {
            Ok(None) => return,
            Ok(Some(address)) => self.request(&client, caller, address).await,
            Err(refused) => Err(refused),
        };
        match outcome {
            Ok(Outcome::Nothing) => {}
            Ok(Outcome::Tunnel(open)) => self.tunnel(client, open).await,
            Err(refused) => {
                let (code, reason) = (refused.status.code(), &refused.reason);
                tracing::info!(door = %self.door, from = %self.from, code, reason, "a tunnel is refused");
                self.shared.figures.answered(self.door, code);
                client.refuse(&refused.bytes()).await;
            }
        }
    }

    /// Finds out who it is. A certificate that is believed and of no use here is told so when it asks.
    async fn greet(
        &self,
        accepted: Accepted,
        by: Instant,
    ) -> Option<(Client, Result<Caller, Refused>)> {
        let stream = match accepted {
            Accepted::Socket(stream) => {
                return Some((Client::plain(stream), Ok(Caller::ApiServer)));
            }
            Accepted::Tcp(stream) => stream,
        };
        let tls = TlsAcceptor::from(self.shared.credentials.server(Protocol::Door));
        let shaken = async {
            client::prepare(&stream)?;
            tls.accept(stream).await
        };
        let stream = match timeout_at(by, shaken).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.turn_away(refusal(&error));
                tracing::debug!(door = %self.door, from = %self.from, %error, "a handshake failed");
                return None;
            }
            Err(_elapsed) => {
                self.turn_away(Refusal::Slow);
                return None;
            }
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let peer = certificates.and_then(|chain| identity::peer(chain.first()?).ok());
        let caller = match peer {
            Some(peer) => self.caller(peer),
            None => Err(Refused::new(
                Status::Forbidden,
                "a certificate that does not name one user",
            )),
        };
        Some((Client::tls(stream), caller))
    }

    fn caller(&self, peer: yurt_core::transport::Peer) -> Result<Caller, Refused> {
        let policy = &self.shared.policy;
        match self.door {
            Door::Socket => Ok(Caller::ApiServer),
            Door::Listener => {
                policy.is_api_server(&peer)?;
                Ok(Caller::ApiServer)
            }
            Door::Connect => {
                policy.knows(&peer)?;
                Ok(Caller::Client(peer))
            }
        }
    }

    async fn asked(&self, client: &mut Client, by: Instant) -> Result<Option<Address>, Refused> {
        match timeout_at(by, client.head()).await {
            Ok(Ok(address)) => Ok(Some(address)),
            Ok(Err(NoHead::Gone)) => Ok(None),
            Ok(Err(NoHead::Bad(bad))) => Err(bad.into()),
            Err(_elapsed) => {
                let within = self.shared.limits.head;
                let reason = format!("no request within {within:?}");
                Err(Refused::new(Status::RequestTimeout, &reason))
            }
        }
    }

    /// Has the target dialled for as long as the client waits for it.
    async fn request(
        &self,
        client: &Client,
        caller: Result<Caller, Refused>,
        address: Address,
    ) -> Result<Outcome, Refused> {
        let caller = caller?;
        let permit = self.permit(&caller)?;
        let counted = (permit, self.shared.figures.tunnel(self.door));
        let deadline = self.shared.limits.dial;
        let dial = self.shared.dial.dial(&caller, &address, deadline);
        let dialled = tokio::select! {
            biased;
            () = client.gave_up() => {
                tracing::debug!(door = %self.door, from = %self.from, %address, "a client gave up");
                self.shared.figures.gave_up(self.door);
                return Ok(Outcome::Nothing);
            }
            dialled = timeout(deadline + GRACE, dial) => dialled,
        };
        let too_slow = |_| {
            Error::new(
                ErrorKind::Timeout,
                format!("{address} was not reached within {deadline:?}"),
            )
        };
        let dialled = dialled
            .map_err(too_slow)
            .flatten()
            .map_err(|error| Refused::from(&error))?;
        Ok(Outcome::Tunnel(Open {
            address,
            dialled,
            counted,
        }))
    }

    fn permit(&self, caller: &Caller) -> Result<Permit, Refused> {
        let shared = &self.shared;
        let refused = |reason: &str| Refused::new(Status::ServiceUnavailable, reason);
        match caller {
            Caller::ApiServer => {
                let permit = shared.api_server_tunnels.clone().try_acquire_owned();
                let permit = permit.map_err(|_| refused("too many tunnels are open at this door"));
                permit.map(Permit::ApiServer)
            }
            Caller::Client(peer) => {
                let place = shared.client_tunnels.enter((), &peer.user);
                let too_many = |share| {
                    let reason = "too many tunnels are open at this door";
                    let share = format!("{share}, which is the share of {}", peer.user);
                    refused(&format!("{reason}: {share}"))
                };
                place.map(Permit::Client).map_err(too_many)
            }
        }
    }

    async fn tunnel(&self, client: Client, open: Open) {
        let Open {
            address,
            dialled,
            counted,
        } = open;
        let mut tunnel = Tunnel::new(client, dialled);
        let stream = tunnel.stream_id();
        let ended = async {
            tunnel.establish().await?;
            self.shared.figures.answered(self.door, 200);
            tracing::debug!(door = %self.door, from = %self.from, %address, stream, "a tunnel is open");
            tunnel.carry(self.shared.limits.orphan).await
        };
        match ended.await {
            Ok(()) => tracing::debug!(door = %self.door, %address, stream, "a tunnel has ended"),
            Err(error) => {
                tracing::debug!(door = %self.door, from = %self.from, %address, stream, %error, "a tunnel broke");
                self.shared.figures.aborted(self.door);
            }
        }
        drop(counted);
    }

    fn turn_away(&self, reason: Refusal) {
        self.shared.figures.turned_away(self.door, reason);
    }
}

fn refusal(error: &io::Error) -> Refusal {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    tls.map_or(Refusal::Other, Refusal::of_tls)
}
