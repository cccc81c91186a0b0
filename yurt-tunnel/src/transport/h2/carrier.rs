//! One or two HTTP/2 connections as a carrier.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use ::h2::client::{ResponseFuture, SendRequest};
use ::h2::server::SendResponse;
use ::h2::{Reason, RecvStream, SendStream};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use parking_lot::Mutex;
use rustls::crypto::ring;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;
use yurt_core::transport::{Peer, Priority, Result};

use super::lane::{self, ConnectedTls, Place, h2_refusal};
use super::pipe::{H2Receive, H2Send, Leg, Shared, pipe};
use crate::transport::handshake::HANDSHAKE_LIMIT;
use crate::transport::pipe::{Carrier, Path, lost_error};

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
const LANE_PATH: &str = "/lane";
const MOVE_PATH: &str = "/move/";

/// The connections' tasks, and why the first of them ended.
struct Tasks {
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
    bulk: Mutex<Bulk>,
    tasks: Tasks,
}

/// The second connection.
enum Bulk {
    None,
    Asked,
    Open(SendRequest<Bytes>),
}

/// Moves one pipe to the second connection.
pub(super) struct Mover {
    opening: Weak<Opening>,
    /// The number of the pipe's first stream.
    stream: u32,
}

impl OpeningCarrier {
    pub(super) fn new(
        remote: SocketAddr,
        user: String,
        interactive: SendRequest<Bytes>,
        connection: impl Future<Output = std::result::Result<(), ::h2::Error>> + Send + 'static,
    ) -> Self {
        let opening = Arc::new(Opening {
            remote,
            user,
            interactive,
            bulk: Mutex::new(Bulk::None),
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

    /// Takes the second connection, if it was asked for.
    pub(super) fn attach(
        &self,
        requests: SendRequest<Bytes>,
        connection: impl Future<Output = std::result::Result<(), ::h2::Error>> + Send + 'static,
    ) {
        let mut bulk = self.bulk.lock();
        if matches!(*bulk, Bulk::Asked) {
            *bulk = Bulk::Open(requests);
            self.tasks.run(connection);
        }
    }

    /// Asks the peer for the second connection, once.
    fn ask_for_bulk(&self) {
        let mut bulk = self.bulk.lock();
        if matches!(*bulk, Bulk::None) {
            let mut requests = self.interactive.clone();
            if requests.send_request(request(LANE_PATH), true).is_ok() {
                *bulk = Bulk::Asked;
            }
        }
    }

    fn requests(&self, priority: Priority) -> SendRequest<Bytes> {
        match (priority, &*self.bulk.lock()) {
            (Priority::Bulk, Bulk::Open(requests)) => requests.clone(),
            _ => self.interactive.clone(),
        }
    }
}

impl Mover {
    /// Asks for the second connection.
    pub(super) fn ask(&self) {
        if let Some(opening) = self.opening.upgrade() {
            opening.ask_for_bulk();
        }
    }

    /// Begins the pipe's second stream, if there is a second connection with room for it; nothing follows in one
    /// that is over.
    pub(super) fn second(&self, is_over: bool) -> Option<(SendStream<Bytes>, ResponseFuture)> {
        let opening = self.opening.upgrade()?;
        let Bulk::Open(requests) = &*opening.bulk.lock() else {
            return None;
        };
        let path = format!("{MOVE_PATH}{}", self.stream);
        let begun = requests.clone().send_request(request(&path), is_over);
        begun.ok().map(|(response, send)| (send, response))
    }

    /// Reads what nobody will read any more, as long as the session lives.
    pub(super) fn read_out(&self, leg: Leg) {
        if let Some(opening) = self.opening.upgrade() {
            opening.tasks.spawn(leg.read_out());
        }
    }
}

impl Carrier for OpeningCarrier {
    type Send = H2Send;
    type Receive = H2Receive;

    async fn open(&self, priority: Priority) -> io::Result<(H2Send, H2Receive)> {
        let requests = self.0.requests(priority).ready().await;
        let mut requests = requests.map_err(|error| self.0.tasks.error(&error))?;
        let begun = requests.send_request(request(PIPE_PATH), false);
        let (response, send) = begun.map_err(|error| self.0.tasks.error(&error))?;
        let mover = Mover {
            opening: self.downgrade(),
            stream: send.stream_id().as_u32(),
        };
        Ok(pipe(send, Leg::Asked(response), Some(mover)))
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
        tasks.run(serve(serving, connection));
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

    /// Does what a request asks for.
    fn take(self: &Arc<Self>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let path = request.uri().path().to_owned();
        if path == LANE_PATH {
            let _ = respond.send_response(Response::new(()), true); // nobody waits for it
            return self.add_lane();
        }
        let known = match path.strip_prefix(MOVE_PATH).map(str::parse) {
            Some(Ok(stream)) => self.known.lock().remove(&stream),
            Some(Err(_)) => None,
            None if path == PIPE_PATH => return self.begin(request, respond),
            None => None,
        };
        let Some(shared) = known.and_then(|known| known.upgrade()) else {
            return respond.send_reset(Reason::REFUSED_STREAM);
        };
        shared.go_on(request.into_body(), respond);
    }

    fn begin(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let Ok(send) = respond.send_response(Response::new(()), false) else {
            return; // reset already
        };
        let number = send.stream_id().as_u32();
        let pipe = pipe(send, Leg::Open(request.into_body()), None);
        let mut known = self.known.lock();
        if known.len() >= known.capacity() {
            known.retain(|_, shared| shared.strong_count() > 0);
        }
        known.insert(number, Arc::downgrade(pipe.0.shared()));
        // A session that takes none is overloaded: dropped, the pipe is reset.
        let _ = self.pipes.try_send(pipe);
    }

    /// Connects a second time.
    fn add_lane(self: &Arc<Self>) {
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
            match timeout(HANDSHAKE_LIMIT, second).await {
                Ok(Ok(connection)) => {
                    if let Some(tasks) = serving.tasks.upgrade() {
                        tasks.run(serve(serving.clone(), connection));
                    }
                }
                // The session goes on with one.
                Ok(Err(error)) => debug!(%error, "no second connection"),
                Err(_) => debug!("no second connection in time"),
            }
        });
    }
}

/// Serves the requests of a connection until it ends.
async fn serve(
    serving: Arc<Serving>,
    mut connection: ::h2::server::Connection<ConnectedTls, Bytes>,
) -> std::result::Result<(), ::h2::Error> {
    let _ending = Ending(&serving);
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        serving.take(request, respond);
    }
    Ok(())
}

/// Tells the pipes when a connection ends, in whatever way: one may wait for what was to come on it.
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

    /// Runs a connection; the carrier is lost when it ends.
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

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
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
