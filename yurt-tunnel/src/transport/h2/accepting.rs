//! One or two HTTP/2 connections as the carrier of the end that connected.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use ::h2::server::SendResponse;
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use parking_lot::Mutex;
use rustls::crypto::ring;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;
use yurt_core::transport::{Peer, Priority, Result};

use super::carrier::{
    BULK, HELLO_PATH, INTERACTIVE, LANE, LANE_PATH, MOVE_PATH, PIPE_PATH, SESSION, Tasks, path,
};
use super::lane::{self, ConnectedTls, Place, h2_refusal};
use super::pipe::{H2Receive, H2Send, Leg, Shared, pipe};
use super::wire::Wire;
use crate::transport::handshake::HANDSHAKE_LIMIT;
use crate::transport::pipe::{Carrier, Path, lost_error};

/// The carrier of the end that connected.
pub(super) struct AcceptingCarrier {
    remote: SocketAddr,
    wire: Arc<Wire>,
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
        let (remote, wire) = (place.address, place.wire.clone());
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
            wire,
            tasks,
            pipes: tokio::sync::Mutex::new(pipes),
        };
        Ok((carrier, peer))
    }
}

impl Carrier for AcceptingCarrier {
    type Send = H2Send;
    type Receive = H2Receive;
    const TELLS_ARRIVAL: bool = false;

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
        path(self.remote, &self.wire)
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
