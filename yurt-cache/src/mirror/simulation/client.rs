//! A client of the hub, which keeps what it sees as informers do.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::saved::{decode_tombstone, tombstone_key};
use super::super::window::Step;
use super::super::{Mirror, Read};
use super::cloud::content;
use crate::api::{Selection, Within, split_key};
use crate::codec::{EventType, ObjectMeta};

/// A client.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// What it knows, by name; `None` before its first list.
    pub(super) known: Option<BTreeMap<String, u64>>,
    /// The highest number that it was told: where it resumes.
    pub(super) reached: u64,
    /// Where it stands in the window while it watches.
    pub(super) place: Option<u64>,
    /// It goes by the numbers of the objects that it was told of and gets no bookmarks, so that it may be told again
    /// what it knows.
    pub(super) goes_by_objects: bool,
    /// The number by which it resumes.
    pub(super) resumes_at: u64,
    /// What it wants of the mirror, if not all.
    pub(super) wants: Option<Selection>,
}

impl Client {
    /// Loses its watch.
    pub(super) fn disconnect(&mut self) {
        self.place = None;
    }

    /// Lists, and so begins anew.
    pub(super) fn list(&mut self, mirror: &Mirror) {
        let view = mirror.view(Within::Everything);
        assert!(
            view.revision >= self.reached,
            "a list at {} after {} was told",
            view.revision,
            self.reached
        );
        let items = view.snapshot.items.iter().filter_map(|item| {
            let body = view
                .snapshot
                .read(item)
                .expect("a list reads all that it names");
            let meta = ObjectMeta::parse(&body).unwrap();
            let traits = mirror.kind.traits(&meta, &body);
            let wants = self.wants.as_ref();
            wants
                .is_none_or(|wants| wants.matches(&item.key, &traits))
                .then(|| (split_key(&item.key).1.to_owned(), content(&body)))
        });
        self.known = Some(items.collect());
        self.reached = view.revision;
        self.resumes_at = view.revision;
        self.place = None;
    }

    /// Watches from where it is, for some steps; lists when it is told to.
    pub(super) fn watch(&mut self, mirror: &Arc<Mirror>, steps: usize) {
        if self.known.is_none() {
            return self.list(mirror);
        }
        let Some(place) = self.place else {
            return self.resume(mirror);
        };
        let Read::Steps(coming) = mirror.read(place, 1) else {
            if matches!(mirror.read(place, 1), Read::Lost) {
                self.list(mirror);
            }
            return;
        };
        let mut place = place;
        for step in coming.iter().take(steps) {
            match &**step {
                Step::Event(event) if event.order > self.reached => match &self.wants {
                    None => self.see(event.event_type, event.order, event.revision, &event.object),
                    Some(wants) => match event.selected(wants) {
                        Some((event_type, object)) => {
                            self.see(event_type, event.order, event.revision, &object);
                        }
                        None => self.reached = event.order,
                    },
                },
                Step::Event(_) => {}
                Step::Jump { to } if *to <= self.reached => {}
                Step::Jump { .. } => return self.replay(mirror, self.reached),
            }
            place += 1;
        }
        self.place = Some(place);
    }

    fn resume(&mut self, mirror: &Arc<Mirror>) {
        let from = self.resumes_at;
        if from > mirror.revision() {
            return self.list(mirror);
        }
        match mirror.place_after(from) {
            Some(place) => {
                self.reached = from;
                self.place = Some(place);
            }
            None => self.replay(mirror, from),
        }
    }

    /// Is told what changed since, as a resumed watch is; what it had selected before nobody knows.
    fn replay(&mut self, mirror: &Arc<Mirror>, from: u64) {
        if self.wants.is_some() {
            return self.list(mirror);
        }
        let Some(since) = mirror.since(from, Within::Everything) else {
            return self.list(mirror);
        };
        self.reached = from;
        let changed = since.view.snapshot.items.iter().map(|item| {
            let event_type = match item.added > from {
                true => EventType::Added,
                false => EventType::Modified,
            };
            (
                item.order,
                event_type,
                since.view.snapshot.read(item).unwrap(),
            )
        });
        let gone = since.deleted.iter().map(|stone| {
            let stored = mirror
                .store
                .get(&tombstone_key(mirror.id, stone.order))
                .unwrap();
            let stored = stored.expect("a deletion that is remembered is stored");
            let (_, body) = decode_tombstone(stone.order, stored).unwrap();
            (stone.order, EventType::Deleted, body)
        });
        let mut events: Vec<_> = changed.chain(gone).collect();
        events.sort_by_key(|(order, ..)| *order);
        for (order, event_type, object) in events {
            let number = ObjectMeta::parse(&object).unwrap().resource_version;
            self.see(event_type, order, number, &object);
        }
        assert!(since.view.revision >= self.reached);
        self.reached = since.view.revision;
        if !self.goes_by_objects {
            self.resumes_at = self.reached;
        }
        self.place = Some(since.view.place);
    }

    fn see(&mut self, event_type: EventType, order: u64, number: u64, object: &[u8]) {
        assert!(order > self.reached, "{order} comes after {}", self.reached);
        self.reached = order;
        self.resumes_at = if self.goes_by_objects { number } else { order };
        let meta = ObjectMeta::parse(object).unwrap();
        let known = self.known.as_mut().unwrap();
        let before = match event_type {
            EventType::Deleted => known.remove(&meta.name),
            _ => known.insert(meta.name.clone(), content(object)),
        };
        if self.goes_by_objects {
            return;
        }
        let name = &meta.name;
        match event_type {
            // Of an end that it may have missed the beginning of a client is told that is told again what changed.
            EventType::Deleted if self.wants.is_none() => {}
            EventType::Deleted => {
                assert!(before.is_some(), "{name} ends at {order} and was not there")
            }
            _ => {
                let is_new = event_type == EventType::Added;
                assert_eq!(
                    before.is_none(),
                    is_new,
                    "{event_type:?} of {name} at {order}"
                );
            }
        }
    }
}
