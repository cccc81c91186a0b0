//! What the clients of the mirror see, and what must hold of it.

use std::collections::BTreeMap;

use super::super::cloud::content;
use super::super::disk::Fate;
use super::{CLIENTS, World};
use crate::api::{Within, split_key};
impl World {
    pub(super) fn read(&mut self) {
        if !self.mirror.is_synced() {
            return;
        }
        let at = self.rng.usize(0..CLIENTS);
        let steps = self.rng.usize(1..4);
        let client = &mut self.clients[at];
        if self.rng.u32(0..8) == 0 {
            client.disconnect();
        }
        client.watch(&self.mirror, steps);
        self.told = self.told.max(client.reached);
        let line = format!("client {at} has reached {}", client.reached);
        self.tell(line);
    }

    /// What is listed at one revision never differs, and no list is older than another before it.
    pub(super) fn look(&mut self) {
        if !self.mirror.is_synced() {
            return;
        }
        let view = self.mirror.view(Within::Everything);
        let items = view.snapshot.items.iter().map(|item| {
            let body = view
                .snapshot
                .read(item)
                .expect("a list reads all that it names");
            (split_key(&item.key).1.to_owned(), content(&body))
        });
        let items: BTreeMap<String, u64> = items.collect();
        assert!(
            view.revision >= self.told,
            "{} after {}",
            view.revision,
            self.told
        );
        self.told = self.told.max(view.revision);
        let before = self
            .listed
            .entry(view.revision)
            .or_insert_with(|| items.clone());
        assert_eq!(*before, items, "two lists at {}", view.revision);
    }

    /// In the end nothing happens any more, and everybody knows the same.
    pub(super) fn rest(&mut self) {
        self.disk.fare(Fate::Well);
        self.mirror.uncover(&|_| true).unwrap();
        let mut rounds = 0;
        while self.has_gone_back
            || !self.mirror.is_synced()
            || self.mirror_state() != self.cloud.state()
        {
            self.follow();
            rounds += 1;
            let (is, ought) = (self.mirror_state(), self.cloud.state());
            assert!(
                rounds < 30,
                "the mirror never is as the cloud: {is:?} is not {ought:?}"
            );
        }
        let state = self.cloud.state();
        for at in 0..CLIENTS {
            for _ in 0..100 {
                self.clients[at].watch(&self.mirror, 10);
            }
            let client = &self.clients[at];
            let mut state = state.clone();
            state.retain(|_, content| client.wants.is_none() || content.is_multiple_of(2));
            assert_eq!(client.known, Some(state), "client {at} at rest");
        }
    }

    pub(super) fn mirror_state(&self) -> BTreeMap<String, u64> {
        let view = self.mirror.view(Within::Everything);
        let items = view.snapshot.items.iter();
        let read = |item| content(&view.snapshot.read(item).unwrap());
        items
            .map(|item| (split_key(&item.key).1.to_owned(), read(item)))
            .collect()
    }
}
