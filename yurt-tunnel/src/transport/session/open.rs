//! How a stream is opened: a place, a pipe, the head, the answer.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use yurt_core::transport::{Error, ErrorKind, Open, Result, Stream};

use super::stream::TunnelStream;
use super::{Carrier, Core, Slot};
use crate::link::StreamId;
use crate::transport::pipe::{malformed, read_message, transport_error};
use crate::wire::{Answer, Head, PREFIX};

pub(super) async fn open<C: Carrier>(core: &Arc<Core<C>>, open: Open) -> Result<Box<dyn Stream>> {
    let (tx, mut failed) = oneshot::channel();
    let (placed_tx, placed) = oneshot::channel();
    let id = core.with(|inner, now| {
        let id = inner.link.open(&open, now)?;
        let slot = Slot {
            placed: Some(placed_tx),
            failed: Some(tx),
            ..Slot::default()
        };
        inner.slots.insert(id, slot);
        Ok(id)
    })?;
    core.changed.notify_one(); // there is a deadline more
    let mut guard = Guard {
        core,
        id,
        is_armed: true,
    };
    let opened = async {
        // An error is a failure, which the other branch tells.
        if placed.await.is_err() {
            return std::future::pending().await;
        }
        ask(core, id, open).await
    };
    let pipe = tokio::select! {
        biased;
        opened = opened => opened?,
        failure = &mut failed => return Err(failure.unwrap_or_else(|_| lost())),
    };
    if !core.with(|inner, _| inner.link.on_accepted(id)) {
        return Err(failed.await.unwrap_or_else(|_| lost()));
    }
    guard.is_armed = false;
    Ok(Box::new(TunnelStream::new(core.clone(), id, pipe)))
}

/// Sends the head and waits for the answer.
async fn ask<C: Carrier>(
    core: &Core<C>,
    id: StreamId,
    open: Open,
) -> Result<(C::Send, C::Receive)> {
    let exchange = async {
        let (mut send, mut receive) = core.carrier.open(open.priority).await?;
        let mut head = Vec::new();
        Head { stream: id, open }.encode(&mut head);
        core.said(head.len());
        send.write_all(&head).await?;
        send.flush().await?;
        let (kind, body) = read_message(&mut receive).await?;
        core.heard(PREFIX + body.len());
        let answer = Answer::decode(kind, &body).map_err(malformed)?;
        Ok((answer, (send, receive)))
    };
    match exchange.await {
        Ok((Answer::Accepted, pipe)) => Ok(pipe),
        Ok((Answer::Rejected { kind, message }, _)) => Err(Error::new(kind, message)),
        Err(error) => Err(transport_error(&error)),
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Closed, "the session has ended")
}

/// Forgets a stream that did not come to be.
struct Guard<'a, C: Carrier> {
    core: &'a Core<C>,
    id: StreamId,
    is_armed: bool,
}

impl<C: Carrier> Drop for Guard<'_, C> {
    fn drop(&mut self) {
        if !self.is_armed {
            return;
        }
        self.core.with(|inner, _| {
            inner.slots.remove(&self.id);
            inner.link.forget(self.id);
        });
    }
}
