//! A client and its target, joined until both directions have ended; when one fails, the other is reset.

use std::io;
use std::time::Duration;

use super::client::{self, Client};
use crate::dial::Dialled;
use crate::splice;

/// The two ends. Dropped before both directions have ended, both are reset.
#[derive(Debug)]
pub(super) struct Tunnel {
    client: Client,
    target: Dialled,
    has_ended: bool,
}

impl Tunnel {
    pub(super) fn new(client: Client, target: Dialled) -> Self {
        Self {
            client,
            target,
            has_ended: false,
        }
    }

    /// Returns the stream's number, which both ends of the tunnel log.
    pub(super) fn stream_id(&self) -> Option<u64> {
        match &self.target {
            Dialled::Stream(stream, _) => Some(stream.id()),
            Dialled::Direct(_) => None,
        }
    }

    /// Tells the client that the target is connected.
    pub(super) async fn establish(&mut self) -> io::Result<()> {
        if let Dialled::Direct(socket) = &self.target {
            client::prepare(socket.tcp())?;
        }
        self.client.establish().await
    }

    /// Carries bytes until both directions have ended. When the client is gone altogether, the tunnel ends within
    /// `orphan`, even if the target neither reads nor writes.
    pub(super) async fn carry(&mut self, orphan: Duration) -> io::Result<()> {
        self.client.set_orphan(orphan);
        splice::both(&mut self.client, &mut self.target).await?;
        self.has_ended = true;
        Ok(())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if !self.has_ended {
            self.client.reset();
            self.target.abort();
        }
    }
}
