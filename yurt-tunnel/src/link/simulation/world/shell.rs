//! What moves bytes round each link.

use std::time::Duration;

use yurt_core::transport::ErrorKind;

use super::super::network::{Direction, Packet, Payload, Pipe};
use super::{CLOUD, Due, EDGE, END, Owner, World};
use crate::link::{Event, StreamId, Verdict};
use crate::wire::{Answer, Frame, Head, PREFIX, Prefix};

impl World {
    pub(super) fn settle(&mut self, end: usize) {
        while let Some(event) = self.links[end].poll() {
            match event {
                Event::Send(frame) => {
                    let mut bytes = Vec::new();
                    frame.encode(&mut bytes);
                    self.send((end, Pipe::Control), Payload::Message(bytes));
                }
                Event::Begin(id) => {
                    let open = self.attempts[&id].open.clone();
                    let mut bytes = Vec::new();
                    Head { stream: id, open }.encode(&mut bytes);
                    self.send((end, Pipe::Stream(id)), Payload::Message(bytes));
                }
                Event::Fail(id, kind, _) => self.failed(end, id, kind),
                Event::Credit(id) => self.soon(Due::Write(end, id)),
                Event::Pong(..) => {}
                Event::State(state) => self.states[end] = state,
            }
        }
        let timer = self.links[end].timeout();
        if let Some(at) = timer
            && timer != self.timers[end]
        {
            self.timers[end] = timer;
            self.at(at, Due::Timer(end));
        }
    }

    pub(super) fn failed(&mut self, end: usize, id: StreamId, kind: ErrorKind) {
        if end == CLOUD {
            let attempt = self.attempts.get_mut(&id).unwrap();
            attempt.outcome.get_or_insert(Err(kind));
        }
        if let Some(owner) = self.owners[end].get_mut(&id) {
            owner.failure.get_or_insert(kind);
        }
        self.send((end, Pipe::Reset(id)), Payload::Reset);
    }

    pub(super) fn send(&mut self, direction: Direction, payload: Payload) {
        let number = self.network.number(direction, payload);
        self.retry(direction, number);
    }

    pub(super) fn retry(&mut self, direction: Direction, number: u64) {
        if let Some(packet) = self.network.segment(direction, number) {
            self.transmit(packet);
            let again = self.now + self.network.patience();
            if again < END {
                self.at(again, Due::Retry(direction, number));
            }
        }
    }

    pub(super) fn transmit(&mut self, packet: Packet) {
        for at in self.network.flights(self.now) {
            self.at(at, Due::Packet(packet.clone()));
        }
    }

    pub(super) fn deliver(&mut self, end: usize, pipe: Pipe, payload: Payload) {
        self.trace = self
            .trace
            .wrapping_mul(31)
            .wrapping_add(self.now.subsec_nanos().into());
        if matches!(pipe, Pipe::Stream(id) if self.dead.contains(&(end, id))) {
            return;
        }
        match (pipe, payload) {
            (Pipe::Control, Payload::Message(bytes)) => {
                let (kind, body) = message(&bytes);
                let frame = Frame::decode(kind, body).unwrap().unwrap();
                self.links[end].on_frame(frame, self.now);
            }
            (Pipe::Stream(id), Payload::Message(bytes)) if end == EDGE => self.head(id, &bytes),
            (Pipe::Stream(id), Payload::Message(bytes)) => self.answered(id, &bytes),
            (Pipe::Stream(id), Payload::Bytes(from, count)) => {
                let Some(owner) = self.owners[end].get_mut(&id) else {
                    return;
                };
                assert!(owner.is_open, "no byte before the answer");
                assert_eq!(from, owner.arrived, "bytes arrive in order");
                owner.arrived += count;
            }
            (Pipe::Stream(id), Payload::End) => {
                if let Some(owner) = self.owners[end].get_mut(&id) {
                    owner.end_arrived = true;
                }
            }
            (Pipe::Reset(id), _) => {
                self.dead.insert((end, id));
                self.links[end].forget(id);
                if end == CLOUD
                    && let Some(attempt) = self.attempts.get_mut(&id)
                {
                    attempt.outcome.get_or_insert(Err(ErrorKind::Reset(0)));
                }
                if let Some(owner) = self.owners[end].get_mut(&id) {
                    owner.failure.get_or_insert(ErrorKind::Reset(0));
                }
            }
            (pipe, payload) => panic!("{payload:?} on {pipe:?}"),
        }
        self.settle(end);
    }

    pub(super) fn head(&mut self, id: StreamId, bytes: &[u8]) {
        let (kind, body) = message(bytes);
        let head = Head::decode(kind, body).unwrap();
        assert_eq!(head.stream, id);
        match self.links[EDGE].on_head(&head, self.now) {
            Verdict::Offer => {
                self.owners[EDGE].insert(id, Owner::default());
                let at = self.now + Duration::from_millis(self.rng.u64(0..3000));
                self.at(at, Due::Answer(id));
            }
            Verdict::Refuse(kind, message) => {
                assert_ne!(kind, ErrorKind::Protocol, "{message}");
                let mut bytes = Vec::new();
                Answer::Rejected {
                    kind,
                    message: message.to_owned(),
                }
                .encode(&mut bytes);
                self.send((EDGE, Pipe::Stream(id)), Payload::Message(bytes));
            }
        }
    }

    pub(super) fn answered(&mut self, id: StreamId, bytes: &[u8]) {
        let (kind, body) = message(bytes);
        let attempt = self.attempts.get_mut(&id).unwrap();
        if attempt.outcome.is_some() {
            return; // too late
        }
        match Answer::decode(kind, body).unwrap() {
            Answer::Rejected { kind, .. } => {
                attempt.outcome = Some(Err(kind));
                self.links[CLOUD].forget(id);
            }
            Answer::Accepted => {
                attempt.outcome = Some(Ok(()));
                assert!(
                    self.links[CLOUD].on_accepted(id),
                    "an open that waits is there"
                );
                self.begin_owner(CLOUD, id);
            }
        }
    }
}

fn message(bytes: &[u8]) -> (u8, &[u8]) {
    let prefix = Prefix::decode(*bytes.first_chunk::<PREFIX>().unwrap()).unwrap();
    assert_eq!(prefix.len + PREFIX, bytes.len());
    (prefix.kind, &bytes[PREFIX..])
}
