//! One or two HTTP/2 connections as the carrier of the end that listened.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use ::h2::client::{Connection, SendRequest};
use bytes::Bytes;
use yurt_core::transport::Priority;

use super::carrier::{PIPE_PATH, Tasks, path, request};
use super::lane::ListenedTls;
use super::pipe::{H2Receive, H2Send, Leg, pipe};
use super::second::{Mover, Second};
use super::wire::Wire;
use crate::link::Config;
use crate::transport::pipe::{Carrier, Path, SendPipe};

/// The carrier of the end that listened.
#[derive(Clone)]
pub(super) struct OpeningCarrier(Arc<Opening>);

/// What the end that listened has of its connections.
pub(super) struct Opening {
    remote: SocketAddr,
    wire: Arc<Wire>,
    user: String,
    interactive: SendRequest<Bytes>,
    pub(super) second: Second,
    tasks: Tasks,
}

impl OpeningCarrier {
    pub(super) fn new(
        (remote, wire): (SocketAddr, Arc<Wire>),
        user: String,
        interactive: SendRequest<Bytes>,
        connection: impl Future<Output = Result<(), ::h2::Error>> + Send + 'static,
        config: &Config,
    ) -> Self {
        let opening = Arc::new(Opening {
            remote,
            wire,
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
        wire: &Wire,
    ) {
        wire.join(&self.wire);
        Second::attach(self, requests, connection);
    }
}

impl Carrier for OpeningCarrier {
    type Send = H2Send;
    type Receive = H2Receive;
    const TELLS_ARRIVAL: bool = false;

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
        path(self.0.remote, &self.0.wire)
    }
}
