//! The listener for clients: TLS, who is it, then the proxy. One slow or hostile client costs only itself.

mod head;
mod lingering;
mod valve;
mod visit;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use jiff::Timestamp;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use yurt_core::name::NodeName;

pub(super) use self::head::LargeHeads;
use self::head::{MAX_HEAD, MAX_LINES, Meter, Metered};
use self::lingering::Lingering;
use self::visit::Visit;
use super::Error;
use crate::answer::{self, RETRY};
use crate::body::{self, Body};
use crate::codec::Status;
use crate::identity::subject::{self, Validity};
use crate::identity::{Authenticator, Caller, NodeVerifier, websocket};
use crate::limits::{ConnectionGuard, Connections, Entered, Requester, Tenant, TooManyConnections};
use crate::metrics::{Metrics, Refused, ServedFrom};
use crate::proxy::exchange::Speaks;
use crate::proxy::{Proxy, PublicPath, own_word};
use crate::tasks::{Tasks, contained};
use crate::tls::Protocol;

/// For how long after a cut a node whose certificate has expired meanwhile is heard by the cloud.
const RENEWS_WITHIN: Duration = Duration::from_secs(3_600);

/// How long a client may take for the handshake, and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// When a client that does not acknowledge what was sent to it is dead.
const DEAD_AFTER: Duration = Duration::from_secs(60);

/// How long a connection of a caller may be without a request.
const IDLE: Duration = Duration::from_secs(300);

/// How long a connection may take to end once it is told to.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bytes of an answer that wait for a slow client of HTTP/2.
const SEND_BUFFER: usize = 64 << 10;

/// Bytes of requests' bodies that wait here for the cloud: of one request, and of a whole connection. The
/// client is near, so that little keeps it busy.
const RECEIVE_WINDOW: u32 = 64 << 10;
const RECEIVE_WINDOWS: u32 = 256 << 10;

/// Requests at a time on one connection of HTTP/2: as kube-apiserver for the node itself, for others no more
/// than all that one caller may have.
const STREAMS_OF_NODE: u32 = 1_000;

/// What the listener needs.
#[derive(Clone)]
pub(super) struct Listening {
    pub(super) tls: Arc<rustls::ServerConfig>,
    pub(super) verifier: Arc<NodeVerifier>,
    pub(super) node: NodeName,
    pub(super) proxy: Arc<Proxy>,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) connections: Arc<Connections>,
    pub(super) heads: LargeHeads,
    /// Requests at a time on one connection of a client that is not the node.
    pub(super) streams: u32,
    pub(super) tasks: Tasks,
    pub(super) shutdown: CancellationToken,
    /// Ends what is still going on after the drain time, and everything when the hub is dropped.
    pub(super) end: CancellationToken,
    pub(super) drain: Duration,
}

/// Who is at the other end of a connection, as far as its certificate says.
#[derive(Clone, Debug)]
enum Peer {
    Unnamed,
    Node(Arc<NodeCertificate>),
    /// A certificate of somebody else: without its key nobody can act as its owner.
    Foreign,
    /// A certificate for which the cluster's CA does not vouch.
    Unverified,
}

/// Accepts the next client of any listener.
async fn accept(
    listeners: &[tokio::net::TcpListener],
) -> io::Result<(TcpStream, std::net::SocketAddr)> {
    std::future::poll_fn(|context| {
        let accepted = listeners
            .iter()
            .map(|listener| listener.poll_accept(context))
            .find(Poll::is_ready);
        accepted.unwrap_or(Poll::Pending)
    })
    .await
}

impl Listening {
    /// Accepts until the shutdown, then waits for the connections to end, up to the drain time.
    pub(super) async fn serve(self, listeners: Vec<TcpListener>) -> Result<(), Error> {
        let listeners = listeners
            .into_iter()
            .map(tokio::net::TcpListener::from_std)
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::Accept)?;
        let connections = Tasks::default();
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => break,
                accepted = accept(&listeners) => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let listening = self.clone();
                    let end = self.end.child_token();
                    let (entry, entered) = self.connections.enter(address.ip(), end.clone());
                    if entered == Entered::InsteadOfAnother {
                        self.metrics.refused(Refused::Anonymous);
                    }
                    connections.spawn(async move {
                        let connection = Box::pin(listening.connection(stream, entry));
                        end.run_until_cancelled_owned(connection).await;
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
        Ok(())
    }

    async fn connection(self, stream: TcpStream, entry: ConnectionGuard) {
        let Some(stream) = self.shake_hands(stream).await else {
            return;
        };
        let peer = self.peer(stream.get_ref().1);
        let streams = match peer {
            Peer::Node(_) => STREAMS_OF_NODE,
            Peer::Unnamed | Peer::Foreign | Peer::Unverified => self.streams,
        };
        if let Peer::Node(_) = peer
            && entry.belongs_to(&Tenant::Node).is_err()
        {
            return;
        }
        let protocol = Protocol::chosen(stream.get_ref().1.alpn_protocol());
        let meter = Meter::new(protocol, self.heads.clone());
        let visit = Arc::new(Visit::new(entry, Arc::new(meter)));
        let (listening, visiting) = (self.clone(), visit.clone());
        let service = service_fn(move |request| {
            let listening = listening.clone();
            listening.respond(peer.clone(), protocol, visiting.clone(), request)
        });
        let builder = self.protocols(protocol, streams);
        let (meter, valve) = (visit.meter.clone(), visit.valve.clone());
        let stream = TokioIo::new(Metered::new(Lingering::new(stream), meter, valve));
        let connection = builder.serve_connection_with_upgrades(stream, service);
        let mut connection = std::pin::pin!(connection);
        let told_to_end = tokio::select! {
            ended = connection.as_mut() => return told(ended),
            () = self.shutdown.cancelled() => None,
            () = visit.is_over() => Some(FAREWELL),
            () = visit.meter.is_stuck() => return,
        };
        auto::UpgradeableConnection::graceful_shutdown(connection.as_mut());
        match told_to_end {
            None => told(connection.await),
            // What is still to come of an idle connection is the rest of a head that never came.
            Some(limit) => {
                let _ended_or_cut = tokio::time::timeout(limit, connection).await;
            }
        }
    }

    /// Answers one request, which counts from now on until its answer has ended.
    fn respond(
        self,
        peer: Peer,
        protocol: Protocol,
        visit: Arc<Visit>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send {
        let running = visit.begin();
        // On its own, so that the stream is small when it is answered: a watch keeps it for an hour.
        let answered = Box::pin(self.request(peer, visit.clone(), request));
        async move {
            let response = match contained(answered).await {
                Ok(response) => response,
                // It is told already, and the others on this connection are not concerned.
                Err(panicked) => answer::status(&panicked.into()),
            };
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                visit.meter.upgrade();
            }
            Ok(response.map(|body| {
                let body = match protocol {
                    Protocol::Http1 => valve::paced(body::contained(body), visit.valve.clone()),
                    Protocol::Http2 => body::contained(body),
                };
                body::holding(body, running)
            }))
        }
    }

    async fn shake_hands(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let prepared = stream
            .set_nodelay(true)
            .and_then(|()| SockRef::from(&stream).set_tcp_user_timeout(Some(DEAD_AFTER)));
        if let Err(error) = prepared {
            tracing::debug!(%error, "a client went before it was served");
            return None;
        }
        let handshake = TlsAcceptor::from(self.tls.clone()).accept(stream);
        let handshake = tokio::time::timeout(PATIENCE, handshake);
        // Who is not in yet when the hub ends stays outside.
        match self.shutdown.run_until_cancelled(handshake).await? {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%error, "a client's handshake failed"),
            Err(_) => tracing::debug!("a client's handshake took too long"),
        }
        None
    }

    fn protocols(&self, protocol: Protocol, streams: u32) -> auto::Builder<Tasks> {
        protocols(self.tasks.clone(), protocol, streams)
    }

    fn peer(&self, connection: &rustls::ServerConnection) -> Peer {
        let chain = connection.peer_certificates().unwrap_or_default();
        let Some(leaf) = chain.first() else {
            return Peer::Unnamed;
        };
        if let Err(error) = self.verifier.verify(chain) {
            tracing::debug!(%error, "a client certificate is not verified");
            return Peer::Unverified;
        }
        match subject::peer_node_name(leaf) {
            Some(name) if name == self.node => Peer::Node(Arc::new(NodeCertificate::of(leaf))),
            _ => Peer::Foreign,
        }
    }

    async fn request(
        self,
        peer: Peer,
        visit: Arc<Visit>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let place = match self.heads.admit(request.uri(), request.headers()) {
            Ok(place) => place,
            Err(full) => {
                self.metrics.refused(Refused::LargeHeads);
                return answer::status(&Status::too_many_requests(full.to_string(), RETRY));
            }
        };
        let is_http1 = request.version() < http::Version::HTTP_2;
        let mut response = self.identify(peer, &visit, request).await;
        if place.is_some() && is_http1 {
            // The buffer of the head goes with the connection.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        // Over HTTP/2 the head is gone with the request.
        let place = place.filter(|_| is_http1);
        response.map(|body| body::holding(body, place))
    }

    /// Finds out who asks, and lets it in.
    async fn identify(
        &self,
        peer: Peer,
        visit: &Visit,
        mut request: Request<Incoming>,
    ) -> Response<Body> {
        if !matches!(peer, Peer::Node(_)) {
            websocket::take_token(request.headers_mut());
        }
        let caller = match &peer {
            Peer::Node(_) if !request.headers().contains_key(http::header::AUTHORIZATION) => {
                Some(Caller::Node)
            }
            Peer::Node(_) | Peer::Unnamed | Peer::Foreign | Peer::Unverified => {
                let source = visit.entry.address();
                self.authenticator.identify(request.headers(), source)
            }
        };
        if let (None, Peer::Unnamed | Peer::Foreign, Some(path)) =
            (&caller, &peer, PublicPath::of(&request))
        {
            let requester = Requester {
                tenant: Tenant::Anonymous(visit.entry.address()),
                end: visit.entry.end().clone(),
            };
            return self.proxy.serve_public(path, &requester, &request).await;
        }
        let refused = match (caller, peer) {
            (Some(Caller::Node), Peer::Node(certificate)) => {
                let speaks = self.speaks(&certificate);
                return self.admit(Caller::Node, speaks, visit, request).await;
            }
            (Some(caller), _) => {
                let speaks = Speaks::WithTheCloud;
                return self.admit(caller, speaks, visit, request).await;
            }
            (None, Peer::Foreign) => {
                "the client certificate is not this node's, and the hub cannot act for its owner: use a bearer token"
            }
            (None, Peer::Unverified) => {
                "the cluster's CA does not vouch for the client certificate, and there is no bearer token"
            }
            (None, Peer::Node(_) | Peer::Unnamed) => {
                "no client certificate of this node and no bearer token"
            }
        };
        answer::status(&Status::unauthorized().saying(refused))
    }

    /// Lets a caller in whose share is not full.
    async fn admit(
        &self,
        caller: Caller,
        speaks: Speaks,
        visit: &Visit,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let tenant = self.tenant(&caller, visit);
        if let Err(TooManyConnections) = visit.entry.belongs_to(&tenant) {
            self.metrics.refused(Refused::Connections);
            visit.leave();
            let message = "this caller has too many connections to this node";
            return answer::status(&Status::too_many_requests(message, RETRY));
        }
        let requester = Requester {
            tenant,
            end: visit.entry.end().clone(),
        };
        let id: Arc<str> = caller.id().into();
        let serving = self.proxy.serve(caller, speaks, &requester, request);
        let (response, from) = serving.await;
        if matches!(requester.tenant, Tenant::Anonymous(_)) && is_recognised(from, &response) {
            self.connections.recognise(&id);
            if let Err(TooManyConnections) = visit.entry.belongs_to(&Tenant::Caller(id)) {
                visit.leave();
            }
        }
        response
    }

    /// With whom the node speaks by its certificate. One that is not valid now may be let in, and the cloud would not
    /// take it; the hub's own counts for it only if both are of one key.
    fn speaks(&self, certificate: &NodeCertificate) -> Speaks {
        let has_its_key = || {
            let own = self.proxy.upstream.node_certificate();
            let own = own.and_then(|own| subject::peer_public_key(&own));
            own.is_some() && own == certificate.public_key
        };
        let back_for = self.authenticator.back_for(Instant::now());
        if certificate.is_valid_at(self.authenticator.time())
            || has_its_key()
            || may_renew(back_for)
        {
            Speaks::WithTheCloud
        } else {
            Speaks::WithTheNode
        }
    }

    /// Whose share a caller's requests are counted to.
    fn tenant(&self, caller: &Caller, visit: &Visit) -> Tenant {
        match caller {
            Caller::Node => Tenant::Node,
            Caller::Token(_)
                if self.connections.has_recognised(caller.id())
                    || self.authenticator.is_known(caller) =>
            {
                Tenant::Caller(caller.id().into())
            }
            Caller::Token(_) => Tenant::Anonymous(visit.entry.address()),
        }
    }
}

/// The certificate of this node, as it was shown.
#[derive(Debug)]
struct NodeCertificate {
    validity: Option<Validity>,
    public_key: Option<Vec<u8>>,
}

impl NodeCertificate {
    fn of(leaf: &[u8]) -> Self {
        Self {
            validity: subject::peer_validity(leaf),
            public_key: subject::peer_public_key(leaf),
        }
    }

    fn is_valid_at(&self, time: Timestamp) -> bool {
        self.validity
            .is_some_and(|validity| (validity.not_before..=validity.not_after).contains(&time))
    }
}

/// Returns whether a node whose certificate has expired is heard by the cloud, for which the link has been back for so long:
/// a kubelet that was cut off has to ask for another one, and its pods for what they need meanwhile.
fn may_renew(back_for: Option<Duration>) -> bool {
    back_for.is_some_and(|back_for| back_for < RENEWS_WITHIN)
}

/// How a client is spoken to.
fn protocols(tasks: Tasks, protocol: Protocol, streams: u32) -> auto::Builder<Tasks> {
    let mut builder = auto::Builder::new(tasks);
    builder
        .http1()
        .timer(TokioTimer::new())
        // Its time would run while nobody asks, too: the meter looks after heads.
        .header_read_timeout(None)
        .max_headers(MAX_LINES)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .initial_stream_window_size(RECEIVE_WINDOW)
        .initial_connection_window_size(RECEIVE_WINDOWS)
        .max_concurrent_streams(streams);
    match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
    }
}

/// Returns whether an answer shows that the cloud knows the caller: its own, unless it says the opposite, and
/// what only a caller gets whom it has known.
fn is_recognised(from: ServedFrom, answer: &Response<Body>) -> bool {
    let code = answer.status();
    match from {
        // What stands in front of the API server refuses whom nobody knows.
        ServedFrom::Cloud => {
            code != StatusCode::UNAUTHORIZED
                && (code.is_success() || own_word::is_signed(answer.headers()))
        }
        ServedFrom::Mirror | ServedFrom::Store => code != StatusCode::UNAUTHORIZED,
        ServedFrom::Hub => false,
    }
}

fn told(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's connection broke");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn an_expired_certificate_is_heard_for_an_hour_after_a_cut() {
        for (back_for, may) in [
            (None, false),
            (Some(0), true),
            (Some(3_599), true),
            (Some(3_600), false),
        ] {
            assert_eq!(
                may_renew(back_for.map(Duration::from_secs)),
                may,
                "{back_for:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_of_http1_stays_open() {
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let service = service_fn(|_request: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(body::full("here")))
        });
        let tasks = Tasks::default();
        let builder = protocols(tasks, Protocol::Http1, 100);
        let serving = builder.serve_connection_with_upgrades(TokioIo::new(server), service);
        let asking = async {
            for pause in [0, 11, 120] {
                tokio::time::sleep(Duration::from_secs(pause)).await;
                client
                    .write_all(b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n")
                    .await
                    .unwrap();
                let mut answer = Vec::new();
                while !answer.ends_with(b"here") {
                    answer.push(client.read_u8().await.unwrap());
                }
            }
        };
        tokio::select! {
            () = asking => {}
            ended = serving => panic!("the hub closed it: {ended:?}"),
        }
    }
}
