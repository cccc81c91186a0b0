//! What both ends of a session over HTTP/2 share: what requests ask for, and the tasks of the connections.

use std::io;
use std::net::SocketAddr;

use http::{HeaderName, Method, Request};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::wire::Wire;
use crate::transport::pipe::{Path, lost_error};

/// The session that a connection belongs to, known to its two ends only.
pub(super) const SESSION: HeaderName = HeaderName::from_static("yurt-session");
/// Which of the session's connections it is.
pub(super) const LANE: HeaderName = HeaderName::from_static("yurt-lane");
/// The values of [`LANE`].
pub(super) const INTERACTIVE: &str = "interactive";
pub(super) const BULK: &str = "bulk";

/// What requests ask for, as their paths.
pub(super) const HELLO_PATH: &str = "/hello";
pub(super) const PIPE_PATH: &str = "/pipe";
pub(super) const LANE_PATH: &str = "/lane";
pub(super) const MOVE_PATH: &str = "/move/";

/// The connections' tasks, and why the first connection ended.
pub(super) struct Tasks {
    running: Mutex<JoinSet<()>>,
    lost: watch::Sender<Option<String>>,
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self {
            running: Mutex::new(JoinSet::new()),
            lost: watch::Sender::new(None),
        }
    }

    /// Runs the first connection; the carrier is lost when it ends.
    pub(super) fn run(
        &self,
        connection: impl Future<Output = Result<(), ::h2::Error>> + Send + 'static,
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

    pub(super) fn close(&self) {
        self.running.lock().abort_all();
        self.lost
            .send_replace(Some("the session is over".to_owned()));
    }

    pub(super) async fn lost(&self) -> io::Error {
        let mut lost = self.lost.subscribe();
        let why = lost.wait_for(Option::is_some).await;
        let why = why.ok().and_then(|why| why.clone());
        lost_error(why.unwrap_or_default())
    }

    pub(super) fn error(&self, error: &::h2::Error) -> io::Error {
        let why = self.lost.borrow().clone();
        lost_error(why.unwrap_or_else(|| error.to_string()))
    }
}

pub(super) fn path(remote: SocketAddr, wire: &Wire) -> Path {
    Path {
        remote,
        round_trip: None,
        lost: 0,
        migrations: 0,
        wire: wire.traffic(),
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
