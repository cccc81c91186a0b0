//! What the owners of streams do.

use std::time::Duration;

use yurt_core::transport::{Error, ErrorKind, Open, Priority, State};

use super::stream::{Phase, Stream};
use super::{Event, Link, Role, StreamId, draining};
use crate::wire::Frame;

impl Link {
    /// Wants a stream; [`Event::Begin`] follows when there is a place, or [`Event::Fail`].
    ///
    /// # Errors
    /// [`ErrorKind::Draining`] and [`ErrorKind::Closed`].
    pub fn open(&mut self, open: &Open, now: Duration) -> Result<StreamId, Error> {
        debug_assert_eq!(self.role, Role::Opener);
        match &self.state {
            State::Open => {}
            State::Draining => return Err(draining()),
            State::Closed { kind, reason } => return Err(Error::new(*kind, reason.clone())),
        }
        if self.streams.is_empty() && self.liveness.is_stale(now) {
            self.ping(now);
        }
        let id = self.next_stream;
        self.next_stream += 1;
        let deadline = now.saturating_add(open.deadline);
        let stream = Stream::asked(deadline, open.priority, self.peer.window, &self.config);
        self.streams.insert(id, stream);
        self.deadlines.insert((deadline, id));
        self.waiting.push_back(id);
        self.place();
        Ok(id)
    }

    /// Accepts a stream that was offered; `false` if it is gone.
    pub fn accept(&mut self, id: StreamId) -> bool {
        self.answered(id)
    }

    /// Returns how many bytes of the stream may be sent now.
    #[must_use]
    pub fn credit(&self, id: StreamId) -> u64 {
        self.streams.get(&id).map_or(0, Stream::credit)
    }

    /// The same, for who is about to send: what it is told of is not given back before it has been used.
    pub fn use_credit(&mut self, id: StreamId, now: Duration) -> u64 {
        let stream = self.streams.get_mut(&id);
        stream.map_or(0, |stream| stream.use_credit(now))
    }

    /// Notes that the stream's owner has nothing left of its credit and more to send.
    pub fn stalled(&mut self) {
        self.counts.stalls += 1;
    }

    /// Notes that bytes were sent; returns the stream's priority if it has changed by this.
    pub fn sent(&mut self, id: StreamId, bytes: u64, now: Duration) -> Option<Priority> {
        self.counts.sent += bytes;
        self.pace.count(bytes, now);
        let stream = self.streams.get_mut(&id)?;
        stream.sent(bytes, now);
        stream.meter(bytes, now, self.pace.best())
    }

    /// Notes that the owner has read bytes: the peer gets credit for them.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] if the peer had no credit for them; the stream is over.
    pub fn received(
        &mut self,
        id: StreamId,
        bytes: u64,
        now: Duration,
    ) -> Result<Option<Priority>, Error> {
        self.liveness.heard(now);
        self.counts.received += bytes;
        self.pace.count(bytes, now);
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(None);
        };
        let round_trip = self.liveness.shortest();
        match stream.received(bytes, now, round_trip, &mut self.budget) {
            Ok(Some(limit)) => {
                let credit = Frame::Credit { stream: id, limit };
                self.events.push_back(Event::Send(credit));
            }
            Ok(None) => {}
            Err(error) => {
                self.remove(id, true);
                return Err(error);
            }
        }
        Ok(stream.meter(bytes, now, self.pace.best()))
    }

    /// Notes that the owner has ended its direction, after all bytes.
    pub fn finished(&mut self, id: StreamId, now: Duration) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.finished();
        }
        self.half_ended(id, now);
    }

    /// Notes that the owner has read the end of the peer's direction.
    pub fn ended(&mut self, id: StreamId, now: Duration) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.ended(&mut self.budget);
            if self.tells_ends {
                self.events
                    .push_back(Event::Send(Frame::End { stream: id }));
            }
        }
        self.half_ended(id, now);
    }

    /// Notes that a stream has ended whose last bytes are on their way.
    pub fn tail_begins(&mut self) {
        self.tails += 1;
    }

    /// Notes that they have arrived, or will not any more.
    pub fn tail_arrives(&mut self) {
        self.tails -= 1;
    }

    /// Ends a stream before its end, and tells the peer.
    pub fn reset(&mut self, id: StreamId, code: u16) {
        let stream = self.streams.get(&id);
        if stream.is_some_and(|stream| stream.phase() == Phase::Open) {
            let reset = Frame::Reset { stream: id, code };
            self.events.push_back(Event::Send(reset));
        }
        self.remove(id, true);
    }

    /// Forgets a stream that was cancelled, rejected, or reset by either end.
    pub fn forget(&mut self, id: StreamId) {
        self.remove(id, true);
    }

    /// Lets no more streams be opened, and tells the peer.
    pub fn drain(&mut self) {
        if self.state == State::Open {
            self.events.push_back(Event::Send(Frame::Drain));
            self.on_drain();
        }
    }

    /// Ends the session, and tells the peer.
    pub fn close(&mut self, reason: &str) {
        if !self.is_closed() {
            let (kind, reason) = (ErrorKind::Closed, reason.to_owned());
            self.events.push_back(Event::Send(Frame::Close {
                kind,
                reason: reason.clone(),
            }));
            self.end(kind, reason);
        }
    }
}
