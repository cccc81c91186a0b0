//! How streams come to be: asked for by one end, taken or rejected by the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, timeout};
use yurt_core::transport::{Error, ErrorKind, Open, Result, State};

use super::{Entry, Link, Offer};
use crate::transport::message::{self, Message};
use crate::transport::stream::{DROPPED, TcpTunnelStream};

impl Link {
    pub(in crate::transport) async fn open(
        self: &Arc<Self>,
        open: Open,
    ) -> Result<TcpTunnelStream> {
        let mut state = self.state();
        let places = Arc::clone(&self.places);
        let since = Instant::now();
        let (target, deadline) = (open.target.clone(), open.deadline);
        let place = tokio::select! {
            biased;
            _ = state.wait_for(|state| *state != State::Open) => return Err(self.refusal()),
            place = timeout(deadline, places.acquire_owned()) => place,
        };
        let place = place.map_err(|_| {
            let message = format!("open {target}: as many streams as there may be are open");
            Error::new(ErrorKind::Overloaded, message)
        })?;
        let place = place.map_err(|_| self.refusal())?;
        let left = deadline.saturating_sub(since.elapsed());
        let mut waiting = self.ask(
            Open {
                deadline: left,
                ..open
            },
            place,
        )?;
        let answered = timeout(left, &mut waiting.answer).await.map_err(|_| {
            let message = format!("open {target}: no answer within {deadline:?}");
            Error::new(ErrorKind::Timeout, message)
        })?;
        let stream = answered.map_err(|_| self.refusal())??;
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        Ok(stream)
    }

    fn ask(self: &Arc<Self>, open: Open, place: OwnedSemaphorePermit) -> Result<Waiting> {
        let (answer_tx, answer) = oneshot::channel();
        let mut inner = self.inner.lock();
        if *self.state.borrow() != State::Open {
            return Err(self.refusal());
        }
        inner.last_id += 1;
        let id = inner.last_id;
        let message = Message::open(id, &open)?;
        let entry = Entry {
            fate: Arc::default(),
            answer: Some(answer_tx),
            _place: Some(place),
        };
        inner.streams.insert(id, entry);
        drop(inner);
        self.say(message);
        Ok(Waiting {
            link: Arc::clone(self),
            id,
            answer,
        })
    }

    /// Takes the connection of a stream that was asked for.
    pub(in crate::transport) async fn join(self: &Arc<Self>, id: u64, mut socket: TcpStream) {
        let asked = self.inner.lock().streams.get_mut(&id).and_then(|entry| {
            let answer = entry.answer.take()?;
            Some((answer, Arc::clone(&entry.fate)))
        });
        let Some((answer, fate)) = asked else {
            return;
        };
        if message::welcome(&mut socket).await.is_ok() {
            let stream = TcpTunnelStream::new(id, Arc::clone(self), fate, socket);
            // Who asked may be gone; then the stream is dropped, and so reset.
            let _gone = answer.send(Ok(stream));
        }
    }

    /// Returns the next stream that the peer wants.
    pub(in crate::transport) async fn take(&self) -> Result<Offer> {
        loop {
            let mut arrival = std::pin::pin!(self.arrived.notified());
            arrival.as_mut().enable();
            if matches!(*self.state.borrow(), State::Closed { .. }) {
                return Err(self.refusal());
            }
            let offer = self.inner.lock().offers.pop_front();
            match offer {
                Some(offer) => return Ok(offer),
                None => arrival.await,
            }
        }
    }

    pub(in crate::transport) fn reject(&self, id: u64, why: &Error) {
        self.forget(id);
        self.say(Message::reject(id, why));
    }
}

/// An open that waits for its answer; the peer is told when it is dropped without one.
struct Waiting {
    link: Arc<Link>,
    id: u64,
    answer: oneshot::Receiver<Result<TcpTunnelStream>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answer.is_terminated() && self.link.forget(self.id) {
            let (stream, code) = (self.id, DROPPED);
            self.link.say(Message::Reset { stream, code });
        }
    }
}
