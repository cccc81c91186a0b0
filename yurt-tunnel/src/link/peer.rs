//! What the peer does, and what time does.

use std::time::Duration;

use yurt_core::transport::{ErrorKind, State};

use super::liveness::Due;
use super::stream::{Phase, Stream};
use super::{DRAINING, Event, Link, Role, StreamId, Verdict};
use crate::wire::{Frame, Head};

/// Credit beyond a first window that was not used for so long is given back.
const UNUSED: Duration = Duration::from_secs(10);

impl Link {
    /// Takes a frame of the control pipe.
    pub fn on_frame(&mut self, frame: Frame, now: Duration) {
        if self.is_closed() {
            return;
        }
        self.liveness.heard(now);
        match frame {
            Frame::Hello(_) => self.fail(ErrorKind::Protocol, "the peer said hello twice"),
            Frame::Credit { stream, limit } => self.on_credit(stream, limit, now),
            Frame::Release { stream, from, to } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.released(from, to, &mut self.budget);
                }
            }
            Frame::Ping(number) => self.events.push_back(Event::Send(Frame::Pong(number))),
            Frame::Pong(number) => {
                if let Some(round_trip) = self.liveness.pong(number, now) {
                    self.events.push_back(Event::Pong(number, round_trip));
                }
            }
            Frame::Drain => self.on_drain(),
            Frame::Reset { stream, code } => self.on_reset(stream, code),
            Frame::End { stream } => self.on_end(stream),
            Frame::Close { kind, reason } => {
                let kind = if kind == ErrorKind::Protocol {
                    kind
                } else {
                    ErrorKind::Closed
                };
                self.end(kind, reason);
            }
        }
    }

    /// Takes the head of a stream that the peer opens.
    pub fn on_head(&mut self, head: &Head, now: Duration) -> Verdict {
        self.liveness.heard(now);
        let id = head.stream;
        if self.role == Role::Opener || self.streams.contains_key(&id) {
            return Verdict::Refuse(ErrorKind::Protocol, "a stream that is open already");
        }
        match self.state {
            State::Open => {}
            State::Draining => return Verdict::Refuse(ErrorKind::Draining, DRAINING),
            State::Closed { .. } => {
                return Verdict::Refuse(ErrorKind::Closed, "the session is over");
            }
        }
        if self.streams.len() as u64 >= self.config.streams || self.offered >= self.config.backlog {
            return Verdict::Refuse(ErrorKind::Overloaded, "too many streams wait here");
        }
        self.offered += 1;
        let stream = Stream::offered(head.open.priority, self.peer.window, &self.config);
        self.streams.insert(id, stream);
        Verdict::Offer
    }

    /// Takes the peer's acceptance; `false` if the stream is gone.
    pub fn on_accepted(&mut self, id: StreamId) -> bool {
        self.answered(id)
    }

    /// Takes the end of what carries the session.
    pub fn on_lost(&mut self, reason: &str) {
        self.end(ErrorKind::Closed, reason.to_owned());
    }

    /// Ends the session because the peer does not speak the protocol, and tells it.
    pub fn fail(&mut self, kind: ErrorKind, reason: &str) {
        if !self.is_closed() {
            let reason = reason.to_owned();
            self.events.push_back(Event::Send(Frame::Close {
                kind,
                reason: reason.clone(),
            }));
            self.end(kind, reason);
        }
    }

    /// Does what is due.
    pub fn on_timeout(&mut self, now: Duration) {
        if self.is_closed() {
            return;
        }
        self.expire(now);
        self.unread_ends.expire(now);
        self.release(now);
        match self.liveness.on_timeout(now, self.used()) {
            Due::Nothing => {}
            Due::Ping => {
                self.ping(now);
            }
            Due::Lost => {
                let silence = self.config.liveness.as_secs();
                self.end(
                    ErrorKind::Timeout,
                    format!("the peer was silent for {silence} s"),
                );
            }
        }
    }

    fn on_credit(&mut self, id: StreamId, limit: u64, now: Duration) {
        // A stream that is gone may still be told of: the two pipes are not ordered.
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.raise(limit) {
            self.events.push_back(Event::Credit(id));
        }
        if self.peer.takes_credit_back && stream.has_grown(self.peer.window) {
            self.release_at.get_or_insert(now + UNUSED);
        }
    }

    /// Gives back the credit that streams have not used for long.
    fn release(&mut self, now: Duration) {
        if self.release_at.is_none_or(|at| at > now) {
            return;
        }
        let (window, since) = (self.peer.window, now.saturating_sub(UNUSED));
        let grown = self.streams.iter();
        let grown = grown.filter(|(_, stream)| stream.has_grown(window));
        let mut grown: Vec<_> = grown.map(|(id, _)| *id).collect();
        grown.sort_unstable();
        self.release_at = None;
        for id in grown {
            let stream = self.streams.get_mut(&id);
            let Some((from, to)) = stream.and_then(|stream| stream.release(window, since)) else {
                self.release_at = Some(now + UNUSED);
                continue;
            };
            let stream = id;
            self.events
                .push_back(Event::Send(Frame::Release { stream, from, to }));
        }
    }

    fn on_end(&mut self, id: StreamId) {
        match self.streams.get_mut(&id) {
            Some(stream) => stream.end_read(),
            None => self.unread_ends.read(id),
        }
    }

    fn on_reset(&mut self, id: StreamId, code: u16) {
        let Some(stream) = self.streams.get_mut(&id) else {
            // It will not be read to its end.
            self.unread_ends.read(id);
            return;
        };
        match stream.phase() {
            Phase::Open => self.fail_reset(id, code),
            // The acceptance is on its way on the stream's own pipe.
            Phase::Asked => stream.reset(code),
            // Nothing that the peer could reset.
            Phase::Waiting | Phase::Offered => {}
        }
    }

    /// Takes no more streams; those that wait for a place fail.
    pub(super) fn on_drain(&mut self) {
        if self.state != State::Open {
            return;
        }
        self.state = State::Draining;
        self.events.push_back(Event::State(State::Draining));
        while let Some(id) = self.waiting.front().copied() {
            self.remove(id, true);
            self.events
                .push_back(Event::Fail(id, ErrorKind::Draining, DRAINING.to_owned()));
        }
    }
}
