//! A stream that the peer opens, until it is accepted or rejected.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::timeout;
use yurt_core::transport::{Error, ErrorKind, Incoming, Open, Result, Stream};

use super::stream::TunnelStream;
use super::{Carrier, Core, Slot};
use crate::link::{StreamId, Verdict};
use crate::transport::pipe::{
    ReceivePipe, SendPipe, malformed, read_message, reset_error, transport_error,
};
use crate::wire::{Answer, Head, PREFIX};

/// How long a peer may take to say what it wants on a pipe that it has begun.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// A stream that is offered.
pub(super) struct Offer<C: Carrier> {
    core: Arc<Core<C>>,
    id: StreamId,
    open: Open,
    pipe: Option<(C::Send, C::Receive)>,
    /// An acceptance has begun, after which there is no other answer.
    is_answering: bool,
}

/// Reads the head of a pipe and offers the stream, or refuses it.
pub(super) async fn offer<C: Carrier>(
    core: Arc<Core<C>>,
    pipe: (C::Send, C::Receive),
    offers: mpsc::Sender<Box<Offer<C>>>,
) {
    let (mut send, mut receive) = pipe;
    let head = async {
        let (kind, body) = read_message(&mut receive).await?;
        core.heard(PREFIX + body.len());
        Head::decode(kind, &body).map_err(malformed)
    };
    let Ok(head) = timeout(HEAD_LIMIT, head).await else {
        return; // dropped, the pipe is reset
    };
    let head = match head {
        Ok(head) => head,
        Err(error) => {
            let answer = rejection(&core, &transport_error(&error));
            return refuse(send, receive, answer).await;
        }
    };
    let verdict = core.with(|inner, now| {
        let verdict = inner.link.on_head(&head, now);
        if verdict == Verdict::Offer {
            inner.slots.insert(head.stream, Slot::default());
        }
        verdict
    });
    let id = head.stream;
    match verdict {
        Verdict::Refuse(kind, why) => {
            let answer = rejection(&core, &Error::new(kind, why));
            refuse(send, receive, answer).await;
        }
        Verdict::Offer => {
            send.set_priority(head.open.priority);
            let open = head.open;
            let pipe = Some((send, receive));
            let offer = Offer {
                core,
                id,
                open,
                pipe,
                is_answering: false,
            };
            // As many fit as the link offers; those that do not are dropped, and so rejected.
            let _ = offers.try_send(Box::new(offer));
        }
    }
}

fn rejection<C: Carrier>(core: &Core<C>, why: &Error) -> Vec<u8> {
    let mut answer = Vec::new();
    Answer::from(why).encode(&mut answer);
    core.said(answer.len());
    answer
}

async fn refuse<C: SendPipe>(mut send: C, mut receive: impl ReceivePipe, answer: Vec<u8>) {
    receive.stop(0);
    // A peer that is gone needs no answer.
    if send.write_all(&answer).await.is_ok() {
        let _ = send.shutdown().await;
    }
}

#[async_trait]
impl<C: Carrier> Incoming for Offer<C> {
    fn request(&self) -> &Open {
        &self.open
    }

    async fn cancelled(&mut self) {
        if let Some((send, _)) = &mut self.pipe {
            let _ = poll_fn(|cx| send.poll_stopped(cx)).await;
        }
    }

    async fn accept(mut self: Box<Self>) -> Result<Box<dyn Stream>> {
        self.is_answering = true;
        let (send, _) = self.pipe.as_mut().expect("an offer has its pipe");
        let mut answer = Vec::new();
        Answer::Accepted.encode(&mut answer);
        self.core.said(answer.len());
        let said: io::Result<()> = async {
            send.write_all(&answer).await?;
            send.flush().await
        }
        .await;
        said.map_err(|error| transport_error(&error))?;
        if !self.core.with(|inner, _| inner.link.accept(self.id)) {
            let failure = self.forget();
            let gone = || transport_error(&reset_error(0));
            return Err(failure.map_or_else(gone, |(kind, why)| Error::new(kind, why)));
        }
        let pipe = self.pipe.take().expect("an offer has its pipe");
        let stream = TunnelStream::new(self.core.clone(), self.id, pipe);
        Ok(Box::new(stream))
    }

    fn reject(mut self: Box<Self>, why: Error) {
        self.reject_with(why);
    }
}

impl<C: Carrier> Offer<C> {
    fn forget(&self) -> Option<(ErrorKind, String)> {
        self.core.with(|inner, _| {
            inner.link.forget(self.id);
            inner.slots.remove(&self.id)?.failure
        })
    }

    fn reject_with(&mut self, why: Error) {
        if let Some((send, receive)) = self.pipe.take() {
            self.forget();
            if !self.is_answering {
                let answer = rejection(&self.core, &why);
                self.core.later(refuse(send, receive, answer));
            }
        }
    }
}

impl<C: Carrier> Drop for Offer<C> {
    fn drop(&mut self) {
        self.reject_with(Error::new(
            ErrorKind::Other,
            "nobody has answered the request",
        ));
    }
}

impl<C: Carrier> fmt::Debug for Offer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("id", &self.id)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}
