//! Who reads the two mirrors, and what must hold of what is read.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use yurt_core::store::Store;

use super::super::super::kind::Known;
use super::super::cloud::{NAMES, content};
use super::super::disk::Fate;
use super::{LOCAL, Pair};
use crate::api::{ListAt, Within, key, split_key};
use crate::codec::{ObjectMeta, Status};
use crate::retention::Held;
use crate::store::layout::RECORDS;
impl Pair {
    pub(super) fn read(&mut self, at: usize) {
        let steps = self.rng.usize(1..4);
        let is_lost = self.rng.u32(0..8) == 0;
        let side = &mut self.sides[at];
        if !side.mirror.is_synced() {
            return;
        }
        if is_lost {
            side.client.disconnect();
        }
        side.client.watch(&side.mirror, steps);
        side.told = side.told.max(side.client.reached);
    }

    /// All that is held can be read, and is what was once written under its number.
    pub(super) fn look(&mut self, at: usize) {
        for name in NAMES {
            let newest = self.kind.newest("a", name);
            newest.expect("what is held can be read");
        }
        let side = &mut self.sides[at];
        if !side.mirror.is_synced() {
            return;
        }
        let view = side.mirror.view(Within::Everything);
        let mut items = BTreeMap::new();
        for item in &view.snapshot.items {
            let name = split_key(&item.key).1.to_owned();
            let body = view
                .snapshot
                .read(item)
                .expect("a list reads all that it names");
            let (number, content) = (item.version.number(), content(&body));
            let meta = ObjectMeta::parse(&body).unwrap();
            assert_eq!(meta.resource_version, number, "{at}: {name}");
            let ought = match item.version.is_local() {
                true => self.written[&(name.clone(), number)].contains(&content),
                false => self.cloud.content_at(&name, number) == Some(content),
            };
            assert!(
                ought || side.mirror.is_suspect(),
                "{at}: {name} at {number} is {content}"
            );
            items.insert(name, content);
        }
        assert!(view.revision >= side.told, "{at}: {} was told", side.told);
        side.told = view.revision;
        let before = side
            .listed
            .entry(view.revision)
            .or_insert_with(|| items.clone());
        assert_eq!(*before, items, "{at}: two lists at {}", view.revision);
    }

    pub(super) fn state(&self, at: usize) -> BTreeMap<String, u64> {
        let view = self.sides[at].mirror.view(Within::Everything);
        let items = view.snapshot.items.iter();
        let read = |item| content(&view.snapshot.read(item).unwrap());
        items
            .map(|item| (split_key(&item.key).1.to_owned(), read(item)))
            .collect()
    }

    /// Returns whether a mirror has heard everything, and is as the cloud.
    pub(super) fn is_even(&self, at: usize) -> bool {
        let side = &self.sides[at];
        let coming = self.since(at, side.mirror.followed());
        side.mirror.is_synced()
            && !side.mirror.is_suspect()
            && coming.is_some_and(<[_]>::is_empty)
            && side.mirror.followed() == self.cloud.revision
            && self.state(at) == self.ought(at)
    }

    /// In the end both are as the cloud, whatever is asked by name too, and nothing is left when all has ended.
    pub(super) fn rest(&mut self) {
        self.disk.fare(Fate::Well);
        for at in 0..2 {
            self.sides[at].mirror.uncover(&|_| true).unwrap();
            let mut rounds = 0;
            while !self.is_even(at) {
                self.follow(at);
                self.uncover();
                rounds += 1;
                assert!(
                    rounds < 40,
                    "{at}: {:?} is not {:?}",
                    self.state(at),
                    self.ought(at)
                );
            }
        }
        for at in 0..2 {
            // What a list that was cut off has left goes.
            self.sides[at].mirror.begin_list(ListAt::Latest).unwrap();
            let side = &mut self.sides[at];
            for _ in 0..100 {
                side.client.watch(&side.mirror, 10);
            }
            assert_eq!(
                self.sides[at].client.known,
                Some(self.ought(at)),
                "client {at}"
            );
        }
        self.rest_by_name();
        let held = [self.kind.held(), self.kind.remembered.held()];
        self.restart();
        let counted = [self.kind.held(), self.kind.remembered.held()];
        assert_eq!(counted, held, "what a restart counts");
        // A bookmark is heard again.
        while !self.is_even(0) {
            self.follow(0);
        }
        self.rest_by_name();
        for at in 0..2 {
            self.sides[at].mirror.end(Status::expired_list());
            self.sides[at].mirror.erase().unwrap();
        }
        self.kind.release(&self.kind.keys_by_name()).unwrap();
        assert_eq!(self.kind.held(), Held::default());
        assert_eq!(self.kind.remembered.held(), Held::default());
        let mut left = Vec::new();
        let mut note = |key: &[u8], _| {
            left.push(String::from_utf8_lossy(key).into_owned());
            ControlFlow::Continue(())
        };
        self.disk.keys(RECORDS.as_bytes(), None, &mut note).unwrap();
        assert_eq!(left, Vec::<String>::new());
    }

    /// As a GET finds it: the wide mirror knows better what is not there.
    pub(super) fn known(&self, name: &str) -> Known {
        let wide = &self.sides[0].mirror;
        let is_covering = wide.is_synced() && !wide.is_suspect();
        let covering = is_covering.then(|| wide.covering(&key("a", name)));
        self.kind.known("a", name, covering).unwrap()
    }

    /// What is shown while cut off is true, and no older than what was read by name.
    pub(super) fn look_by_name(&self) {
        for name in NAMES {
            let Some(read) = self.read.get(name).copied() else {
                continue;
            };
            match self.known(name) {
                Known::There(number, body) if content(&body) < LOCAL => {
                    let is_true = self.cloud.content_at(name, number) == Some(content(&body));
                    assert!(
                        is_true && number >= read,
                        "{name} was read at {read}, and at {number} is {}",
                        content(&body)
                    );
                }
                Known::There(..) | Known::Unknown => {}
                Known::Absent => assert!(
                    self.cloud.deleted_at(name) > Some(read),
                    "{name} was read at {read} and is not there"
                ),
            }
        }
    }

    /// In the end all is known.
    pub(super) fn rest_by_name(&self) {
        let mut known = BTreeMap::new();
        for name in NAMES {
            match self.known(name) {
                Known::There(_, body) => drop(known.insert(name.to_owned(), content(&body))),
                Known::Absent => {}
                Known::Unknown => panic!("{name} is unknown at rest"),
            }
        }
        assert_eq!(known, self.cloud.state(), "by name");
    }
}
