//! The door for clients: TLS, who is it, then the proxy. One slow or hostile client costs only itself.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use yurt_core::name::NodeName;

use crate::answer;
use crate::body::Body;
use crate::codec::Status;
use crate::identity::{Caller, certificate};
use crate::proxy::Proxy;
use crate::tasks::Spawner;

/// How long a client may take for the handshake, and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// When a client that does not acknowledge what was sent to it is dead.
const DEAD_AFTER: Duration = Duration::from_secs(60);

/// Clients at a time; further ones wait to be accepted.
const CONNECTIONS: usize = 4_096;

/// Bytes of an answer that wait for a slow client of HTTP/2.
const SEND_BUFFER: usize = 64 << 10;

/// What the door needs.
#[derive(Clone)]
pub(super) struct Listening {
    pub(super) tls: Arc<rustls::ServerConfig>,
    pub(super) node: NodeName,
    pub(super) proxy: Arc<Proxy>,
    pub(super) tasks: TaskTracker,
    pub(super) shutdown: CancellationToken,
    /// Ends what is still going on after the drain time, and everything when the hub is dropped.
    pub(super) end: CancellationToken,
    pub(super) drain: Duration,
}

/// Who is at the other end of a connection, as far as its certificate says.
#[derive(Clone, Debug)]
enum Peer {
    Unnamed,
    Node,
    /// A certificate of somebody else: without its key nobody can act as its owner.
    Foreign,
}

/// Accepts the next client of any listener.
async fn accept(listeners: &[tokio::net::TcpListener]) -> io::Result<TcpStream> {
    std::future::poll_fn(|context| {
        let accepted = listeners
            .iter()
            .map(|listener| listener.poll_accept(context))
            .find(Poll::is_ready);
        accepted.map_or(Poll::Pending, |accepted| {
            accepted.map_ok(|(stream, _)| stream)
        })
    })
    .await
}

impl Listening {
    /// Accepts until the shutdown, then waits for the connections to end, up to the drain time.
    pub(super) async fn serve(self, listeners: Vec<TcpListener>) {
        let listeners = listeners
            .into_iter()
            .map(tokio::net::TcpListener::from_std)
            .collect::<Result<Vec<_>, _>>();
        let listeners = match listeners {
            Ok(listeners) => listeners,
            Err(error) => return tracing::error!(%error, "a listener cannot be used"),
        };
        let connections = TaskTracker::new();
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let place = tokio::select! {
                () = self.shutdown.cancelled() => break,
                place = places.clone().acquire_owned() => place.expect("nobody closes the semaphore"),
            };
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => break,
                accepted = accept(&listeners) => accepted,
            };
            match accepted {
                Ok(stream) => {
                    let listening = self.clone();
                    let end = self.end.clone();
                    connections.spawn(async move {
                        let connection = Box::pin(listening.connection(stream));
                        end.run_until_cancelled_owned(connection).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: let some connections end first.
                    tracing::warn!(%error, "a client cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listeners);
        connections.close();
        if tokio::time::timeout(self.drain, connections.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = connections.len(),
                "clients did not end in time"
            );
            self.end.cancel();
            connections.wait().await;
        }
    }

    async fn connection(self, stream: TcpStream) {
        let prepared = stream
            .set_nodelay(true)
            .and_then(|()| SockRef::from(&stream).set_tcp_user_timeout(Some(DEAD_AFTER)));
        if let Err(error) = prepared {
            return tracing::debug!(%error, "a client went before it was served");
        }
        let handshake = TlsAcceptor::from(self.tls.clone()).accept(stream);
        let handshake = tokio::time::timeout(PATIENCE, handshake);
        // Who is not in yet when the door closes stays outside.
        let Some(accepted) = self.shutdown.run_until_cancelled(handshake).await else {
            return;
        };
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "a client's handshake failed"),
            Err(_) => return tracing::debug!("a client's handshake took too long"),
        };
        let peer = self.peer(stream.get_ref().1);
        let listening = self.clone();
        let service = service_fn(move |request| listening.clone().request(peer.clone(), request));
        let mut builder = auto::Builder::new(Spawner(self.tasks.clone()));
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(SEND_BUFFER);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_send_buf_size(SEND_BUFFER)
            .max_concurrent_streams(1_000);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.shutdown.cancelled() => {
                auto::UpgradeableConnection::graceful_shutdown(connection.as_mut());
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a client's connection broke");
        }
    }

    fn peer(&self, connection: &rustls::ServerConnection) -> Peer {
        let Some(leaf) = connection.peer_certificates().and_then(<[_]>::first) else {
            return Peer::Unnamed;
        };
        match certificate::peer_node_name(leaf) {
            Some(name) if name == self.node => Peer::Node,
            _ => Peer::Foreign,
        }
    }

    async fn request(
        self,
        peer: Peer,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let caller = match peer {
            Peer::Node if !request.headers().contains_key(http::header::AUTHORIZATION) => {
                Some(Caller::Node)
            }
            _ => self.proxy.authenticator.identify(request.headers()),
        };
        let refused = match (caller, peer) {
            (Some(caller), _) => return Ok(self.proxy.serve(caller, request).await),
            (None, Peer::Foreign) => {
                "the client certificate is not this node's, and the hub cannot act for its owner: use a bearer token"
            }
            (None, _) => "no client certificate of this node and no bearer token",
        };
        Ok(answer::status(&Status::unauthorized().saying(refused)))
    }
}
