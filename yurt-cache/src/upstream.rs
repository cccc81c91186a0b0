//! The API servers: their health, the choice among them, and the connections to them.

pub(crate) mod client;
mod config;
mod connect;
mod dial;
mod files;
mod http_proxy;
mod pick;
mod pool;
mod probe;
mod reach;
mod replay;
mod response;
mod sender;
mod set;
mod streams;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::HOST;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::upgrade::Upgraded;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub(crate) use self::config::UpstreamError;
pub use self::config::{Order, UpstreamConfig};
use self::connect::{NoStream, Shared};
use self::dial::{Address, DialError};
pub(crate) use self::files::Need;
use self::files::{Offer, TlsFiles};
pub use self::http_proxy::{HttpProxy, HttpProxyError};
use self::pool::Permit;
pub(crate) use self::reach::{Link, Reach};
use self::replay::{Fate, Replay};
use self::response::Held;
use self::set::Set;
pub(crate) use self::streams::Purpose;
use crate::body::{self, Body};
use crate::tasks::{Children, Tasks};

/// In whose name a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential {
    /// The node's: its client certificate.
    Node,
    /// The caller's own: no client certificate, the request carries its `Authorization`.
    Bearer,
    /// The same, of a caller for whom nobody has vouched yet: what it does to its connections, which a server ends when it
    /// refuses a token, is nobody else's affair.
    Stranger,
}

/// One API server, for the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerHealth {
    /// As configured.
    pub(crate) url: Uri,
    /// Whether requests are sent to it.
    pub(crate) is_up: bool,
    /// Requests sent so far.
    pub(crate) requests: u64,
    /// Those without a response.
    pub(crate) failures: u64,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SendError {
    /// Nobody can be reached.
    #[error("no API server is reachable")]
    CutOff,
    /// Streams to the API servers are bounded, and those that this request may have are in use.
    #[error("the streams to the API servers are in use")]
    InUse,
    /// The connection broke before a response.
    #[error("the connection to {server} broke before a response")]
    Connection {
        /// Host and port.
        server: String,
        /// What broke.
        source: hyper::Error,
    },
    /// The connection was closed before a response: it broke, or its server went down.
    #[error("the connection to {server} was closed before a response")]
    Closed {
        /// Host and port.
        server: String,
    },
    /// The server took no more requests on the connection, and the request cannot be sent again.
    #[error("{server} did not take the request")]
    NotCarriedOut {
        /// Host and port.
        server: String,
        /// What it said.
        source: hyper::Error,
    },
    /// What is asked for is too long for a request.
    #[error("make a request of it")]
    Request(#[source] http::Error),
    /// The connection broke within a response that was not passed on yet.
    #[error("read the answer")]
    Body(#[source] body::BoxError),
    /// There is no connection that could be upgraded.
    #[error("no connection to {server} for an upgrade")]
    Dial {
        /// Host and port.
        server: String,
        /// Why not.
        source: DialError,
    },
    /// The server agreed to an upgrade and did not keep to it.
    #[error("take over the upgraded connection to {server}")]
    Upgrade {
        /// Host and port.
        server: String,
        /// What broke.
        source: hyper::Error,
    },
}

/// How often the servers are tried one after the other: a single one closes a connection now and then.
const ROUNDS: usize = 3;

/// The API servers as one.
#[derive(Debug, Clone)]
pub(crate) struct Upstream(Arc<Shared>);

impl Upstream {
    /// Checks the configuration and reads the files; connects to nobody yet.
    pub(crate) fn new(config: UpstreamConfig, need: Need) -> Result<Self, UpstreamError> {
        if config.servers.is_empty() {
            return Err(UpstreamError::NoServers);
        }
        if config.client_key.is_some() && config.client_certificate.is_none() {
            return Err(UpstreamError::KeyWithoutCertificate);
        }
        let addresses = config
            .servers
            .iter()
            .map(Address::parse)
            .collect::<Result<Vec<_>, _>>()?;
        let files = TlsFiles::read(&config, need).map_err(UpstreamError::LoadFiles)?;
        if let Some(proxy) = &config.proxy {
            let carried = addresses.iter().filter(|address| address.is_behind(proxy));
            let servers: Vec<_> = carried.map(|address| address.authority.as_str()).collect();
            tracing::info!(%proxy, ?servers, "an HTTP proxy is on the way to these API servers");
        }
        let stop = CancellationToken::new();
        Ok(Self(Arc::new(Shared {
            set: Set::new(addresses, config.order, stop.clone()),
            files: Arc::new(files),
            tasks: Tasks::default(),
            config,
            stop,
        })))
    }

    /// Owns every connection and probe until `shutdown`, or until a probe ends that has no reason to; nothing is left
    /// of them when it returns.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let _stop = self.0.stop.clone().drop_guard();
        let mut watchers = Children::default();
        for index in 0..self.0.set.len() {
            watchers.spawn("probe", probe::watch_over(self.0.clone(), index));
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            ended = watchers.next_ended() => {
                tracing::error!(task = ended.task, "nobody watches over an API server any more");
            }
        }
        self.0.stop.cancel();
        watchers.shutdown().await;
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Takes in new certificates: what is under way goes on with the old ones. Blocks on the disk.
    pub(crate) fn reload(&self) {
        self.0.files.refresh();
    }

    /// The client certificate that is presented in the node's name, DER.
    pub(crate) fn node_certificate(&self) -> Option<Vec<u8>> {
        self.0.files.node_certificate()
    }

    /// Whether the cloud can be reached, now and later.
    pub(crate) fn reach(&self) -> watch::Receiver<Reach> {
        self.0.set.reach()
    }

    /// What time it is by the word of the API server that answered a probe last, if it has not been taken yet.
    pub(crate) fn take_time(&self, now: Instant) -> Option<Timestamp> {
        self.0.set.take_time(now)
    }

    /// Returns how many streams under a credential last, and how many may.
    pub(crate) fn lasting(&self, credential: Credential) -> (usize, usize) {
        let servers = (0..self.0.set.len()).map(|index| self.0.set.server(index));
        let pools = servers.map(|server| server.pool(credential).lasting());
        pools.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Every server with its figures.
    pub(crate) fn servers(&self) -> Vec<ServerHealth> {
        self.0.set.report()
    }

    /// Sends a request that ends soon, whose URI is path and query.
    #[cfg(test)]
    async fn send(
        &self,
        credential: Credential,
        request: Request<Body>,
    ) -> Result<Response<Body>, SendError> {
        self.send_for(&Purpose::Request, credential, request).await
    }

    /// Sends a request whose URI is path and query.
    ///
    /// One that never left, or that its server did not look at, is sent again; a GET or HEAD without a body also
    /// when its connection broke before a response.
    pub(crate) async fn send_for(
        &self,
        purpose: &Purpose,
        credential: Credential,
        request: Request<Body>,
    ) -> Result<Response<Body>, SendError> {
        let replay = Replay::new(request);
        let mut failed = SendError::CutOff;
        let mut is_in_use = false;
        let mut candidates = self.first_candidates().await;
        for _ in 0..ROUNDS {
            for index in candidates {
                let permit = match self.0.acquire(index, credential, purpose).await {
                    Ok(permit) => permit,
                    Err(NoStream::Down) => continue,
                    Err(NoStream::InUse) => {
                        is_in_use = true;
                        continue;
                    }
                };
                let Some(request) = replay.attempt() else {
                    return Err(failed);
                };
                let fate = match self.send_once(index, permit, request).await {
                    Ok(response) => return Ok(response),
                    Err(unanswered) => {
                        failed = unanswered.0;
                        unanswered.1
                    }
                };
                if !replay.may_follow(fate) {
                    return Err(failed);
                }
            }
            if is_in_use {
                break;
            }
            candidates = self.0.set.candidates();
        }
        match failed {
            SendError::CutOff if is_in_use => Err(SendError::InUse),
            failed => Err(failed),
        }
    }

    /// Sends on one stream; with the error comes what became of the request.
    async fn send_once(
        &self,
        index: usize,
        permit: Permit,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Box<(SendError, Fate)>> {
        let server = self.0.set.server(index);
        address_to(&server.address, &permit, &mut request);
        server.requests.fetch_add(1, Ordering::Relaxed);
        let closed = permit.closed();
        let answered = closed.run_until_cancelled(permit.send(request)).await;
        if let Some(Ok(response)) = answered {
            return Ok(response.map(|body| Held::new(body, permit).boxed_unsync()));
        }
        server.failures.fetch_add(1, Ordering::Relaxed);
        let server = server.address.authority.to_string();
        Err(Box::new(match answered {
            Some(Err(mut error)) => {
                let is_unsent = error.take_message().is_some();
                let source = error.into_error();
                if !is_unsent && is_not_carried_out(&source) {
                    permit.retire();
                    (
                        SendError::NotCarriedOut { server, source },
                        Fate::NotCarriedOut,
                    )
                } else {
                    let fate = if is_unsent {
                        Fate::Unsent
                    } else {
                        Fate::Unknown
                    };
                    (SendError::Connection { server, source }, fate)
                }
            }
            Some(Ok(_)) | None => (SendError::Closed { server }, Fate::Unknown),
        }))
    }

    /// Sends a request to upgrade on a connection of its own, never twice.
    ///
    /// With a 101 comes the stream itself; otherwise the response is an ordinary one.
    pub(crate) async fn upgrade(
        &self,
        credential: Credential,
        mut request: Request<Body>,
    ) -> Result<(Response<Body>, Option<Upgraded>), SendError> {
        let mut failed = SendError::CutOff;
        for index in self.first_candidates().await {
            let server = self.0.set.server(index);
            let name = server.address.authority.to_string();
            let mut requests = match self.dial_http1(index, credential).await {
                Ok(requests) => requests,
                Err(source) => {
                    // It may be HTTP/1.1 alone that fails.
                    server.probe_now.notify_one();
                    failed = SendError::Dial {
                        server: name,
                        source,
                    };
                    continue;
                }
            };
            name_host(&server.address, &mut request);
            server.requests.fetch_add(1, Ordering::Relaxed);
            let mut response = match requests.send_request(request).await {
                Ok(response) => response,
                Err(source) => {
                    server.failures.fetch_add(1, Ordering::Relaxed);
                    return Err(SendError::Connection {
                        server: name,
                        source,
                    });
                }
            };
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Ok((response.map(body::incoming), None));
            }
            let upgraded =
                hyper::upgrade::on(&mut response)
                    .await
                    .map_err(|source| SendError::Upgrade {
                        server: name,
                        source,
                    })?;
            return Ok((response.map(|_| body::empty()), Some(upgraded)));
        }
        Err(failed)
    }

    /// Whom to ask; at the start this waits for the first verdict, afterwards never.
    async fn first_candidates(&self) -> Vec<usize> {
        let mut reach = self.reach();
        let verdict = reach.wait_for(|reach| *reach != Reach::Unknown);
        // Without a verdict in time nobody is up, and the list is empty.
        let _ = timeout(self.0.config.connect_timeout, verdict).await;
        self.0.set.candidates()
    }

    async fn dial_http1(
        &self,
        index: usize,
        credential: Credential,
    ) -> Result<hyper::client::conn::http1::SendRequest<Body>, DialError> {
        let shared = &self.0;
        let server = shared.set.server(index);
        let (_, epoch) = shared.set.state(index);
        let within = shared.config.connect_timeout;
        let dialled = async {
            let tls = shared.read_files(credential, Offer::Http1).await?;
            dial::upgradable(&server.address, tls, &shared.config).await
        };
        let (requests, driver) = epoch
            .run_until_cancelled(timeout(within, dialled))
            .await
            .ok_or(DialError::GivenUp)?
            .map_err(|_| DialError::TimedOut(within))??;
        shared.tasks.spawn(async move {
            // Its error reaches whoever waits for the response or reads the body.
            let _ = epoch.run_until_cancelled(driver).await;
        });
        Ok(requests)
    }
}

/// Returns whether the server says that it did not look at the request: it came after those that a GOAWAY counts,
/// or was refused (RFC 9113, 8.7).
fn is_not_carried_out(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let is_refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (error.is_go_away() || is_refused);
        }
        source = error.source();
    }
    false
}

/// Makes a request one for that server over that connection.
fn address_to(address: &Address, permit: &Permit, request: &mut Request<Body>) {
    if permit.is_http1() {
        name_host(address, request);
    } else {
        name_authority(address, request);
    }
}

/// Makes a request one for that server over HTTP/2, whose `:authority` replaces `Host`.
fn name_authority(address: &Address, request: &mut Request<Body>) {
    request.headers_mut().remove(HOST);
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTPS);
    uri.authority = Some(address.authority.clone());
    uri.path_and_query = Some(path_of(request.uri()));
    *request.uri_mut() = Uri::from_parts(uri).expect("scheme, authority and path make a URI");
    *request.version_mut() = Version::HTTP_2;
}

/// Makes a request one for that server over HTTP/1.1.
fn name_host(address: &Address, request: &mut Request<Body>) {
    *request.uri_mut() = Uri::from(path_of(request.uri()));
    let host = HeaderValue::from_str(address.authority.as_str())
        .expect("an authority is made of visible characters");
    request.headers_mut().insert(HOST, host);
    *request.version_mut() = Version::HTTP_11;
}

fn path_of(uri: &Uri) -> PathAndQuery {
    uri.path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"))
}

#[cfg(test)]
mod tests;
