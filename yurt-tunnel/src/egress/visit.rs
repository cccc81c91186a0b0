//! One connection of a client: its identity, its request, and the tunnel until both directions have ended.

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
use super::metrics::{Counted, Metrics};
use super::pending::{self, PendingLimiter, Source};
use super::tunnel::Tunnel;
use super::{Door, Limits, Policy};
use crate::dial::{Address, Caller, Dial, Dialled};
use crate::identity::{self, Credentials, Protocol, Refusal};
use crate::shares::{Place, Shares};

/// How far a dial may overrun its deadline before it is dropped.
const GRACE: Duration = Duration::from_millis(500);

/// What every visit needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) policy: Policy,
    pub(super) limits: Limits,
    pub(super) credentials: Credentials,
    pub(super) dial: Arc<dyn Dial>,
    pub(super) metrics: Metrics,
    pub(super) pending: Arc<PendingLimiter>,
    pub(super) api_server_tunnels: Arc<Semaphore>,
    pub(super) client_tunnels: Arc<Shares<()>>,
}

/// A connection as a listener gives it.
#[derive(Debug)]
pub(super) enum Accepted {
    Socket(UnixStream),
    Tcp(TcpStream),
}

/// An accepted connection, at its door.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) shared: Arc<Shared>,
    pub(super) door: Door,
    pub(super) source: Source,
}

/// What comes of a request.
enum Outcome {
    /// The client hung up.
    HungUp,
    Tunnel(Open),
}

/// A place among the tunnels, held as long as one lives.
enum TunnelPermit {
    ApiServer(#[expect(dead_code, reason = "held, and given back")] OwnedSemaphorePermit),
    Client(#[expect(dead_code, reason = "held, and given back")] Place<()>),
}

/// A connection to the target, before the client is told.
struct Open {
    address: Address,
    dialled: Dialled,
    counted: (TunnelPermit, Counted),
}

impl Visit {
    /// Serves one connection to its end.
    pub(super) async fn serve(self, accepted: Accepted, permit: pending::Permit) {
        let waiting = self.shared.metrics.waiting(self.door);
        let by = Instant::now() + self.shared.limits.head;
        let Some((mut client, caller)) = self.authenticate(accepted, by).await else {
            return;
        };
        let requested = self.read_request(&mut client, by).await;
        drop((permit, waiting));
        let outcome = match requested {
            Ok(None) => return,
            Ok(Some(address)) => self.dial(&client, caller, address).await,
            Err(refused) => Err(refused),
        };
        match outcome {
            Ok(Outcome::HungUp) => {}
            Ok(Outcome::Tunnel(open)) => self.tunnel(client, open).await,
            Err(refused) => {
                let (code, reason) = (refused.status.code(), &refused.reason);
                tracing::info!(door = %self.door, from = %self.source, code, reason, "refused a tunnel");
                self.shared.metrics.answered(self.door, code);
                client.refuse(&refused.bytes()).await;
            }
        }
    }

    /// Authenticates the client. One that is trusted but not authorized gets a 403 to its request.
    async fn authenticate(
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
                self.reject(refusal(&error));
                tracing::debug!(door = %self.door, from = %self.source, %error, "the TLS handshake failed");
                return None;
            }
            Err(_elapsed) => {
                self.reject(Refusal::HandshakeTimeout);
                return None;
            }
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let peer = certificates.and_then(|chain| identity::peer(chain.first()?).ok());
        let caller = match peer {
            Some(peer) => self.caller(peer),
            None => Err(Refused::new(
                Status::Forbidden,
                "the certificate does not name exactly one user",
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

    async fn read_request(
        &self,
        client: &mut Client,
        by: Instant,
    ) -> Result<Option<Address>, Refused> {
        match timeout_at(by, client.head()).await {
            Ok(Ok(address)) => Ok(Some(address)),
            Ok(Err(NoHead::HungUp)) => Ok(None),
            Ok(Err(NoHead::Bad(bad))) => Err(bad.into()),
            Err(_elapsed) => {
                let within = self.shared.limits.head;
                let reason = format!("no request within {within:?}");
                Err(Refused::new(Status::RequestTimeout, &reason))
            }
        }
    }

    /// Dials the target, as long as the client waits for it.
    async fn dial(
        &self,
        client: &Client,
        caller: Result<Caller, Refused>,
        address: Address,
    ) -> Result<Outcome, Refused> {
        let caller = caller?;
        let permit = self.permit(&caller)?;
        let counted = (permit, self.shared.metrics.tunnel(self.door));
        let deadline = self.shared.limits.dial;
        let dial = self.shared.dial.dial(&caller, &address, deadline);
        let dialled = tokio::select! {
            biased;
            () = client.hung_up() => {
                tracing::debug!(door = %self.door, from = %self.source, %address, "the client hung up before its answer");
                self.shared.metrics.hung_up(self.door);
                return Ok(Outcome::HungUp);
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

    fn permit(&self, caller: &Caller) -> Result<TunnelPermit, Refused> {
        let shared = &self.shared;
        let refused = |reason: &str| Refused::new(Status::ServiceUnavailable, reason);
        match caller {
            Caller::ApiServer => {
                let permit = shared.api_server_tunnels.clone().try_acquire_owned();
                let permit = permit.map_err(|_| refused("too many tunnels are open at this door"));
                permit.map(TunnelPermit::ApiServer)
            }
            Caller::Client(peer) => {
                let place = shared.client_tunnels.enter((), &peer.user);
                let too_many = |share| {
                    let reason = "too many tunnels are open at this door";
                    let share = format!("{share}, the share of {}", peer.user);
                    refused(&format!("{reason}: {share}"))
                };
                place.map(TunnelPermit::Client).map_err(too_many)
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
            self.shared.metrics.answered(self.door, 200);
            tracing::debug!(door = %self.door, from = %self.source, %address, stream, "opened a tunnel");
            tunnel.carry(self.shared.limits.orphan).await
        };
        match ended.await {
            Ok(()) => tracing::debug!(door = %self.door, %address, stream, "the tunnel has ended"),
            Err(error) => {
                tracing::debug!(door = %self.door, from = %self.source, %address, stream, %error, "the tunnel was aborted");
                self.shared.metrics.aborted(self.door);
            }
        }
        drop(counted);
    }

    fn reject(&self, reason: Refusal) {
        self.shared.metrics.rejected(self.door, reason);
    }
}

fn refusal(error: &io::Error) -> Refusal {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    tls.map_or(Refusal::Other, Refusal::of_tls)
}
