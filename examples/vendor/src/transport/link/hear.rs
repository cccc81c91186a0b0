//! What follows from what the peer says.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use yurt_core::transport::{Error, ErrorKind, Open, Priority, State};

use super::{BACKLOG, Entry, Link, Offer, Side};
use crate::transport::message::{self, Message};
use crate::transport::stream::{DROPPED, Fate};

impl Link {
    /// Does what the peer says.
    pub(in crate::transport) fn on_message(&self, message: Message) {
        match message {
            Message::Open {
                stream,
                target,
                is_bulk,
                deadline,
            } => match target.target() {
                Some(target) if self.side == Side::Acceptor => self.on_open(
                    stream,
                    Open {
                        target,
                        priority: if is_bulk {
                            Priority::Bulk
                        } else {
                            Priority::Interactive
                        },
                        deadline: Duration::from_millis(deadline),
                    },
                ),
                _ => self.end(ErrorKind::Protocol, "the peer asks for what cannot be"),
            },
            Message::Reject {
                stream,
                kind,
                message,
            } => self.on_end(stream, ErrorKind::Reset(DROPPED), || {
                Error::new(message::kind(&kind), message)
            }),
            Message::Reset { stream, code } => self.on_end(stream, ErrorKind::Reset(code), || {
                Error::new(ErrorKind::Reset(code), "the peer has reset the stream")
            }),
            Message::Ping { number } => self.say(Message::Pong { number }),
            Message::Pong { number } => {
                if let Some(asker) = self.inner.lock().pings.remove(&number) {
                    let _gone = asker.send(());
                }
            }
            Message::Drain => self.set_draining(),
            Message::Close { reason } => self.end(ErrorKind::Closed, &reason),
            Message::Hello { .. } | Message::Join { .. } => {
                self.end(ErrorKind::Protocol, "the peer says hello again");
            }
        }
    }

    fn on_open(&self, id: u64, open: Open) {
        let mut inner = self.inner.lock();
        let why = match *self.state.borrow() {
            State::Closed { .. } => return,
            State::Draining => Error::new(ErrorKind::Draining, "it takes no new streams"),
            State::Open if inner.offers.len() >= BACKLOG => {
                Error::new(ErrorKind::Overloaded, "nobody takes its streams")
            }
            State::Open => {
                let fate = Arc::<Fate>::default();
                let entry = Entry {
                    fate: Arc::clone(&fate),
                    answer: None,
                    _place: None,
                };
                inner.streams.insert(id, entry);
                inner.offers.push_back(Offer {
                    id,
                    open,
                    since: Instant::now(),
                    fate,
                });
                self.arrived.notify_one();
                return;
            }
        };
        drop(inner);
        self.say(Message::reject(id, &why));
    }

    /// The peer has ended a stream, or will not have it.
    fn on_end(&self, id: u64, kind: ErrorKind, why: impl FnOnce() -> Error) {
        let mut inner = self.inner.lock();
        inner.offers.retain(|offer| offer.id != id);
        let Some(entry) = inner.streams.remove(&id) else {
            return;
        };
        drop(inner);
        entry.fate.fail(kind);
        match entry.answer {
            Some(answer) => {
                let _gone = answer.send(Err(why()));
            }
            None => {
                self.counts.reset.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
