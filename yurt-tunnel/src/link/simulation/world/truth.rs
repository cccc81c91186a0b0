//! What has to be true of a life, all the time and at its end.

use std::collections::BTreeMap;
use std::time::Duration;

use yurt_core::transport::State;

use super::{CLOUD, EDGE, Fate, Owner, World};
use crate::link::StreamId;

impl World {
    /// Whether nothing is to be seen any more: a session that lives goes on pinging for ever.
    pub(super) fn is_done(&self) -> bool {
        let is_settled =
            |owner: &Owner| owner.failure.is_some() || (owner.is_shut && owner.is_ended);
        let is_closed = self
            .states
            .iter()
            .all(|state| matches!(state, State::Closed { .. }));
        self.to_open == 0
            && self.fate_is_past(is_closed)
            && (self.links.iter()).all(|link| link.streams() == 0 && link.tails() == 0)
            && self
                .owners
                .iter()
                .flat_map(BTreeMap::values)
                .all(is_settled)
    }

    pub(super) fn fate_is_past(&self, is_closed: bool) -> bool {
        match self.fate {
            Fate::Bad => true,
            Fate::ShortCut => self
                .cut
                .is_some_and(|(_, to)| self.now > to + Duration::from_secs(40)),
            Fate::LongCut | Fate::Close => is_closed,
            Fate::Drain => self.states.iter().all(|state| *state == State::Draining),
        }
    }

    pub(super) fn check_always(&self) {
        let most = self.config.streams * self.config.window + self.config.buffers.limit();
        for end in [CLOUD, EDGE] {
            assert!(self.links[end].exposure() <= most, "credit is bounded");
            for (id, owner) in &self.owners[end] {
                let unread = owner.arrived - owner.read;
                let most = self.config.max_window.max(self.config.window);
                assert!(unread <= most, "stream {id} holds {unread} of {most}");
            }
        }
        for attempt in self.attempts.values() {
            let late = self
                .now
                .saturating_sub(attempt.asked + attempt.open.deadline);
            assert!(
                attempt.outcome.is_some() || late < Duration::from_millis(1),
                "{attempt:?}"
            );
        }
    }

    pub(super) fn check_at_the_end(&self) {
        let is_over = |end: usize| matches!(self.states[end], State::Closed { .. });
        match self.fate {
            Fate::Bad | Fate::ShortCut => {
                assert!(
                    !is_over(CLOUD) && !is_over(EDGE),
                    "{:?} {:?}",
                    self.states,
                    self.cut
                );
            }
            Fate::Drain => assert_eq!(self.states, [State::Draining, State::Draining]),
            Fate::LongCut | Fate::Close => {
                assert!(is_over(CLOUD) && is_over(EDGE), "{:?}", self.states)
            }
        }
        for end in [CLOUD, EDGE] {
            for (id, owner) in &self.owners[end] {
                self.check_owner(end, *id, owner);
            }
        }
        assert_eq!(self.config.buffers.used(), 0, "what was held is free again");
        assert_eq!(self.links[CLOUD].streams(), 0, "nothing is left");
        // What the edge never answered is gone there when the cloud's reset has arrived.
        assert_eq!(self.links[EDGE].streams(), 0, "nothing is left");
    }

    pub(super) fn check_owner(&self, end: usize, id: StreamId, owner: &Owner) {
        if owner.failure.is_some() {
            return;
        }
        let peer = &self.owners[1 - end][&id];
        assert!(
            owner.is_shut && owner.is_ended,
            "stream {id} of {end} hangs: {owner:?}, its peer {peer:?}"
        );
        assert_eq!(
            owner.read, peer.written,
            "stream {id} ended with every byte"
        );
    }
}
