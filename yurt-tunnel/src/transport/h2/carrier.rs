//! One or two HTTP/2 connections as a carrier.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use ::h2::client::{Connection, SendRequest};
use ::h2::server::SendResponse;
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use parking_lot::Mutex;
use rustls::crypto::ring;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;
use yurt_core::transport::{Peer, Priority, Result};

use super::lane::{self, ConnectedTls, ListenedTls, Place, h2_refusal};
use super::pipe::{H2Receive, H2Send, Leg, Shared, pipe};
use super::second::{Mover, Second};
use crate::link::Config;
use crate::transport::handshake::HANDSHAKE_LIMIT;
use crate::transport::pipe::{Carrier, Path, SendPipe, lost_error};

/// The session that a connection belongs to, known to its two ends only.
pub(super) const SESSION: HeaderName = HeaderName::from_static("yurt-session");
/// Which of the session's connections it is.
pub(super) const LANE: HeaderName = HeaderName::from_static("yurt-lane");
/// The values of [`LANE`].
pub(super) const INTERACTIVE: &str = "interactive";
pub(super) const BULK: &str = "bulk";

/// What requests ask for, as their paths.
pub(super) const HELLO_PATH: &str = "/hello";
const PIPE_PATH: &str = "/pipe";
pub(super) const LANE_PATH: &str = "/lane";
pub(super) const MOVE_PATH: &str = "/move/";

/// The connections' tasks, and why the first connection ended.
pub(super) struct Tasks {
    running: Mutex<JoinSet<()>>,
    lost: watch::Sender<Option<String>>,
}

// === The end that listened ===

/// The carrier of the end that listened.
#[derive(Clone)]
pub(super) struct OpeningCarrier(Arc<Opening>);

/// What the end that listened has of its connections.
pub(super) struct Opening {
    remote: SocketAddr,
    user: String,
    interactive: SendRequest<Bytes>,
    pub(super) second: Second,
    tasks: Tasks,
}

impl OpeningCarrier {
    pub(super) fn new(
        remote: SocketAddr,
        user: String,
        interactive: SendRequest<Bytes>,
        connection: impl Future<Output = std::result::Result<(), ::h2::Error>> + Send + 'static,
        config: &Config,
    ) -> Self {
        let opening = Arc::new(Opening {
            remote,
            user,
            interactive,
            second: Second::new(config),
            tasks: Tasks::new(),
        });
        opening.tasks.run(connection);
        Self(opening)
    }

    pub(super) fn downgrade(&self) -> Weak<Opening> {
        Arc::downgrade(&self.0)
    }
}

impl Opening {
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn interactive(&self) -> SendRequest<Bytes> {
        self.interactive.clone()
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Takes the second connection, if it was asked for.
    pub(super) fn attach(
        self: &Arc<Self>,
        requests: SendRequest<Bytes>,
        connection: Connection<ListenedTls, Bytes>,
    ) {
        Second::attach(self, requests, connection);
    }
}

impl Carrier for OpeningCarrier {
    type Send = H2Send;
    type Receive = H2Receive;

    async fn open(&self, priority: Priority) -> io::Result<(H2Send, H2Receive)> {
        let second = match priority {
            Priority::Bulk => self.0.second.requests(),
            Priority::Interactive => None,
        };
        let is_second = second.is_some();
        let requests = second.unwrap_or_else(|| self.0.interactive()).ready().await;
        let mut requests = requests.map_err(|error| self.0.tasks.error(&error))?;
        let begun = requests.send_request(request(PIPE_PATH), false);
        let (response, send) = begun.map_err(|error| self.0.tasks.error(&error))?;
        let mover = (!is_second).then(|| Mover {
            opening: self.downgrade(),
            stream: send.stream_id().as_u32(),
        });
        let mut pipe = pipe(send, Leg::Asked(response), mover);
        pipe.0.set_priority(priority);
        Ok(pipe)
    }

    async fn accept(&self) -> io::Result<(H2Send, H2Receive)> {
        Err(self.0.tasks.lost().await)
    }

    fn close(&self, _: &str) {
        self.0.tasks.close();
    }

    fn path(&self) -> Path {
        path(self.0.remote)
    }
}

// === The end that connected ===

/// The carrier of the end that connected.
pub(super) struct AcceptingCarrier {
    remote: SocketAddr,
    tasks: Arc<Tasks>,
    pipes: tokio::sync::Mutex<mpsc::Receiver<(H2Send, H2Receive)>>,
}

/// What a connection's task needs to serve the peer's requests.
struct Serving {
    place: Place,
    session: HeaderValue,
    tasks: Weak<Tasks>,
    pipes: mpsc::Sender<(H2Send, H2Receive)>,
    /// Pipes of the first connection by the number of their stream.
    known: Mutex<HashMap<u32, Weak<Shared>>>,
}

impl AcceptingCarrier {
    pub(super) async fn connect(place: Place) -> Result<(Self, Peer)> {
        let remote = place.address;
        let (mut connection, peer) = lane::connect(&place).await?;
        let tasks = Arc::new(Tasks::new());
        let (tx, pipes) = mpsc::channel(lane::pipes(&place.config) as usize);
        let serving = Arc::new(Serving {
            place,
            session: session_name(),
            tasks: Arc::downgrade(&tasks),
            pipes: tx,
            known: Mutex::default(),
        });
        serving.hello(&mut connection, INTERACTIVE).await?;
        tasks.run(serve(serving, connection, INTERACTIVE));
        let carrier = Self {
            remote,
            tasks,
            pipes: tokio::sync::Mutex::new(pipes),
        };
        Ok((carrier, peer))
    }
}

impl Carrier for AcceptingCarrier {
    type Send = H2Send;
    type Receive = H2Receive;

    async fn open(&self, _: Priority) -> io::Result<(H2Send, H2Receive)> {
        Err(lost_error("the end that connects opens no streams"))
    }

    async fn accept(&self) -> io::Result<(H2Send, H2Receive)> {
        let mut pipes = self.pipes.lock().await;
        tokio::select! {
            Some(pipe) = pipes.recv() => Ok(pipe),
            error = self.tasks.lost() => Err(error),
        }
    }

    fn close(&self, _: &str) {
        self.tasks.close();
    }

    fn path(&self) -> Path {
        path(self.remote)
    }
}

impl Serving {
    /// Answers the listener's first question: which session and which of its connections this is.
    async fn hello(
        &self,
        connection: &mut ::h2::server::Connection<ConnectedTls, Bytes>,
        lane: &'static str,
    ) -> Result<()> {
        let refused = |error: ::h2::Error| h2_refusal(self.place.address, &error);
        let asked = connection.accept().await;
        let Some((request, mut respond)) = asked.transpose().map_err(refused)? else {
            return Err(h2_refusal(self.place.address, &Reason::NO_ERROR.into()));
        };
        if request.uri().path() != HELLO_PATH {
            return Err(h2_refusal(
                self.place.address,
                &Reason::PROTOCOL_ERROR.into(),
            ));
        }
        let mut response = Response::new(());
        response.headers_mut().insert(SESSION, self.session.clone());
        response
            .headers_mut()
            .insert(LANE, HeaderValue::from_static(lane));
        respond.send_response(response, true).map_err(refused)?;
        Ok(())
    }

    /// Does what a request on one of the connections asks for.
    fn take(
        self: &Arc<Self>,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        lane: &str,
    ) {
        let path = request.uri().path().to_owned();
        if path == LANE_PATH {
            return self.add_lane(respond);
        }
        let known = match path.strip_prefix(MOVE_PATH).map(str::parse) {
            Some(Ok(stream)) => self.known.lock().remove(&stream),
            Some(Err(_)) => None,
            None if path == PIPE_PATH => return self.begin(request, respond, lane),
            None => None,
        };
        let Some(shared) = known.and_then(|known| known.upgrade()) else {
            return respond.send_reset(Reason::REFUSED_STREAM);
        };
        shared.go_on(request.into_body(), respond);
    }

    fn begin(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>, lane: &str) {
        let Ok(send) = respond.send_response(Response::new(()), false) else {
            return; // reset already
        };
        let number = send.stream_id().as_u32();
        let pipe = pipe(send, Leg::Open(request.into_body()), None);
        // Only pipes of the first connection move; those of the second have numbers of their own.
        if lane == INTERACTIVE {
            let mut known = self.known.lock();
            if known.len() >= known.capacity() {
                known.retain(|_, shared| shared.strong_count() > 0);
            }
            known.insert(number, Arc::downgrade(pipe.0.shared()));
        }
        // A session that takes none is overloaded: dropped, the pipe is reset.
        let _ = self.pipes.try_send(pipe);
    }

    /// Connects a second time, and tells the peer that asked if that fails.
    fn add_lane(self: &Arc<Self>, mut respond: SendResponse<Bytes>) {
        let serving = self.clone();
        let Some(tasks) = self.tasks.upgrade() else {
            return;
        };
        tasks.spawn(async move {
            let second = async {
                let (mut connection, _) = lane::connect(&serving.place).await?;
                serving.hello(&mut connection, BULK).await?;
                Ok::<_, yurt_core::transport::Error>(connection)
            };
            let connected = timeout(HANDSHAKE_LIMIT, second).await;
            let Ok(Ok(connection)) = connected else {
                debug!(error = ?connected.map(drop), "no second connection");
                return respond.send_reset(Reason::REFUSED_STREAM);
            };
            let _ = respond.send_response(Response::new(()), true); // the peer sees it by itself
            if let Err(error) = serve(serving.clone(), connection, BULK).await {
                debug!(%error, "the second connection has ended");
            }
        });
    }
}

/// Serves the requests of a connection until it ends.
async fn serve(
    serving: Arc<Serving>,
    mut connection: ::h2::server::Connection<ConnectedTls, Bytes>,
    lane: &'static str,
) -> std::result::Result<(), ::h2::Error> {
    let _ending = (lane == INTERACTIVE).then(|| Ending(&serving));
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        serving.take(request, respond, lane);
    }
    Ok(())
}

/// Tells the pipes when the session ends, in whatever way: one may wait for what was to come on another connection.
struct Ending<'a>(&'a Serving);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        for shared in self.0.known.lock().values().filter_map(Weak::upgrade) {
            shared.lose();
        }
    }
}

/// A name that nobody can guess.
fn session_name() -> HeaderValue {
    let mut bytes = [0; 16];
    let random = ring::default_provider().secure_random.fill(&mut bytes);
    random.expect("the system has random bytes");
    let name: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::try_from(name).expect("hexadecimal digits are a header's value")
}

// === Tasks ===

impl Tasks {
    fn new() -> Self {
        Self {
            running: Mutex::new(JoinSet::new()),
            lost: watch::Sender::new(None),
        }
    }

    /// Runs the first connection; the carrier is lost when it ends.
    fn run(
        &self,
        connection: impl Future<Output = std::result::Result<(), ::h2::Error>> + Send + 'static,
    ) {
        let lost = self.lost.clone();
        self.spawn(async move {
            let why = match connection.await {
                Ok(()) => "the peer has closed the connection".to_owned(),
                Err(error) => error.to_string(),
            };
            lost.send_if_modified(|lost| {
                let is_first = lost.is_none();
                lost.get_or_insert(why);
                is_first
            });
        });
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running.lock();
        while running.try_join_next().is_some() {}
        running.spawn(task);
    }

    fn close(&self) {
        self.running.lock().abort_all();
        self.lost
            .send_replace(Some("the session is over".to_owned()));
    }

    async fn lost(&self) -> io::Error {
        let mut lost = self.lost.subscribe();
        let why = lost.wait_for(Option::is_some).await;
        let why = why.ok().and_then(|why| why.clone());
        lost_error(why.unwrap_or_default())
    }

    fn error(&self, error: &::h2::Error) -> io::Error {
        let why = self.lost.borrow().clone();
        lost_error(why.unwrap_or_else(|| error.to_string()))
    }
}

fn path(remote: SocketAddr) -> Path {
    Path {
        remote,
        round_trip: None,
        lost: 0,
        migrations: 0,
    }
}

/// A request of this protocol; the peer is known by its certificate, and the authority says nothing.
pub(super) fn request(path: &str) -> Request<()> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("https://yurt{path}"))
        .body(())
        .expect("the paths of the protocol are valid")
}
