//! Replaced versions that answers under way may still read. A snapshot needs what was replaced after it was
//! taken; what is kept is bounded, and the oldest snapshots lose theirs first.

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;

use super::version::Version;
use crate::api::ObjectKey;

/// Bytes of replaced versions that are kept for answers under way; beyond, the oldest answers are cut off.
const LIMIT: usize = 16 << 20;

type Place = (ObjectKey, Version);

/// The replaced versions, and who may still read them.
#[derive(Debug, Default)]
pub(super) struct Pins {
    /// Numbers of the snapshots that live and still have all of their versions.
    live: BTreeSet<u64>,
    last: u64,
    kept: HashMap<Place, Kept>,
    /// What is kept by the number of the last snapshot that may read it, ascending.
    queue: VecDeque<(u64, Place)>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    body: Bytes,
    /// The last snapshot that may read it; `None` while the replacement is being written.
    until: Option<u64>,
}

impl Pins {
    /// Notes a new snapshot; returns its number.
    pub(super) fn open(&mut self) -> u64 {
        self.last += 1;
        self.live.insert(self.last);
        self.last
    }

    /// Notes that a snapshot is read no more.
    pub(super) fn close(&mut self, snapshot: u64) {
        self.live.remove(&snapshot);
        self.prune();
    }

    /// Returns a replaced version.
    pub(super) fn get(&self, key: &ObjectKey, version: Version) -> Option<Bytes> {
        let kept = self.kept.get(&(key.clone(), version))?;
        Some(kept.body.clone())
    }

    /// Keeps a version that is about to be replaced, until [`replaced`](Self::replaced) says that it is.
    pub(super) fn hold(&mut self, key: ObjectKey, version: Version, body: Bytes) {
        self.bytes += body.len();
        let before = self.kept.insert((key, version), Kept { body, until: None });
        self.bytes -= before.map_or(0, |kept| kept.body.len());
    }

    /// Notes that these versions are replaced: snapshots from now on do not need them.
    pub(super) fn replaced(&mut self, places: Vec<Place>) {
        for place in places {
            if let Some(kept) = self.kept.get_mut(&place) {
                kept.until = Some(self.last);
                self.queue.push_back((self.last, place));
            }
        }
        self.prune();
        while self.bytes > LIMIT && self.live.pop_first().is_some() {
            self.prune();
        }
    }

    fn prune(&mut self) {
        let oldest = self.live.first().copied();
        while let Some((until, _)) = self.queue.front() {
            if oldest.is_some_and(|oldest| oldest <= *until) {
                return;
            }
            let Some((until, place)) = self.queue.pop_front() else {
                return;
            };
            // It may have come back and been replaced again since.
            if self
                .kept
                .get(&place)
                .is_some_and(|kept| kept.until == Some(until))
            {
                let gone = self.kept.remove(&place);
                self.bytes -= gone.map_or(0, |kept| kept.body.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::version::Era;

    fn replace(pins: &mut Pins, name: &str, len: usize) -> Place {
        let place = (ObjectKey::from(name), Version::cloud(Era::default(), 1));
        pins.hold(place.0.clone(), place.1, Bytes::from(vec![0; len]));
        pins.replaced(vec![place.clone()]);
        place
    }

    fn has(pins: &Pins, place: &Place) -> bool {
        pins.get(&place.0, place.1).is_some()
    }

    #[test]
    fn a_version_stays_for_the_snapshots_before_its_replacement_and_for_no_others() {
        let mut pins = Pins::default();
        let unread = replace(&mut pins, "a/unread", 1);
        assert!(!has(&pins, &unread), "nobody could read it");
        let first = pins.open();
        let one = replace(&mut pins, "a/one", 1);
        let second = pins.open();
        let two = replace(&mut pins, "a/two", 1);
        pins.close(first);
        assert!(!has(&pins, &one) && has(&pins, &two));
        pins.close(second);
        assert!(!has(&pins, &two));
        assert_eq!(pins.bytes, 0);
    }

    #[test]
    fn an_answer_that_nobody_reads_costs_only_itself() {
        let mut pins = Pins::default();
        let unread = pins.open();
        let old = replace(&mut pins, "a/old", LIMIT - 10);
        let _reading = pins.open();
        let new = replace(&mut pins, "a/new", 100);
        assert!(!has(&pins, &old), "the oldest snapshot lost it");
        assert!(has(&pins, &new), "a younger one has all of its own");
        pins.close(unread);
        assert!(has(&pins, &new));
    }

    #[test]
    fn what_is_being_replaced_can_be_read_by_who_comes_meanwhile() {
        let mut pins = Pins::default();
        let place = (ObjectKey::from("a/b"), Version::cloud(Era::default(), 1));
        pins.hold(place.0.clone(), place.1, Bytes::from_static(b"x"));
        let snapshot = pins.open();
        pins.replaced(vec![place.clone()]);
        assert!(has(&pins, &place));
        pins.close(snapshot);
        assert!(!has(&pins, &place));
    }
}
