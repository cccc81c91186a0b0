//! Replaced versions that answers under way may still read. A snapshot needs what was replaced after it was
//! taken; what is kept is bounded, and the oldest snapshots lose theirs first.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use super::version::Version;
use crate::api::ObjectKey;

/// Bytes of replaced versions that are kept for answers under way, of all resources; beyond, the oldest answers of the
/// resource with the most are cut off.
const LIMIT: usize = 16 << 20;

type Place = (ObjectKey, Version);

/// The replaced versions of all resources.
#[derive(Debug, Default)]
pub(crate) struct Pinned(Mutex<Vec<Weak<Mutex<Pins>>>>);

impl Pinned {
    /// Returns the pins of another resource.
    pub(super) fn of_resource(&self) -> Arc<Mutex<Pins>> {
        let pins = Arc::default();
        self.0.lock().push(Arc::downgrade(&pins));
        pins
    }

    /// Returns how many bytes are kept, and may be.
    pub(crate) fn held(&self) -> (usize, usize) {
        let bytes = self.all().iter().map(|pins| pins.lock().bytes).sum();
        (bytes, LIMIT)
    }

    /// Cuts answers off until no more is kept than may be.
    pub(super) fn settle(&self) {
        let all = self.all();
        loop {
            let sizes: Vec<usize> = all.iter().map(|pins| pins.lock().bytes).collect();
            if sizes.iter().sum::<usize>() <= LIMIT {
                return;
            }
            let most = sizes.iter().enumerate().max_by_key(|(_, bytes)| **bytes);
            let cut = most.is_some_and(|(at, _)| all[at].lock().cut_oldest());
            if !cut {
                // What is left is being replaced now.
                return;
            }
        }
    }

    fn all(&self) -> Vec<Arc<Mutex<Pins>>> {
        let mut alive = Vec::new();
        self.0.lock().retain(|pins| {
            alive.extend(pins.upgrade());
            pins.strong_count() > 0
        });
        alive
    }
}

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
    }

    /// Cuts the oldest answer off; returns whether there was one.
    fn cut_oldest(&mut self) -> bool {
        let cut = self.live.pop_first().is_some();
        self.prune();
        cut
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
        let pinned = Pinned::default();
        let (pins, others) = (pinned.of_resource(), pinned.of_resource());
        let other = {
            let mut others = others.lock();
            others.open();
            replace(&mut others, "a/other", 1_000)
        };
        let unread = pins.lock().open();
        let old = replace(&mut pins.lock(), "a/old", LIMIT - 1_000);
        pinned.settle();
        assert!(has(&pins.lock(), &old) && pinned.held() == (LIMIT, LIMIT));
        pins.lock().open();
        let new = replace(&mut pins.lock(), "a/new", 100);
        pinned.settle();
        assert!(!has(&pins.lock(), &old), "the oldest snapshot lost it");
        assert!(has(&pins.lock(), &new), "a younger one has all of its own");
        assert!(
            has(&others.lock(), &other),
            "so have those of what changes little"
        );
        pins.lock().close(unread);
        assert!(has(&pins.lock(), &new));
        drop(pins);
        assert_eq!(pinned.held().0, 1_000);
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
