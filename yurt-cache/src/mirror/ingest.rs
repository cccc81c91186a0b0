//! Takes what the upstream watch says into the objects, the window and the store.

use std::collections::{HashMap, HashSet};

use bytes::{Bytes, BytesMut};
use yurt_core::store::{Batch, Result};

use super::kind::Change;
use super::saved::{SavedScope, encode_tombstone, scope_key, tombstone_key};
use super::window::{Before, Event, Step};
use super::{Mirror, Phase, State, TOMBSTONES, Tombstone};
use crate::api::{ObjectKey, key};
use crate::codec::fields::Attributes;
use crate::codec::{self, EventType, ObjectError, ObjectMeta};

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The upstream watch.
    Cloud,
    /// This node, which knows better for now.
    Cover,
    /// What is local ends.
    Uncover,
}

/// An event as it came, read as far as the mirror must.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(super) event_type: EventType,
    pub(super) origin: Origin,
    pub(super) revision: u64,
    pub(super) kind: String,
    pub(super) key: ObjectKey,
    /// The object in the form that is kept.
    body: Bytes,
    line: Bytes,
    object: Bytes,
    traits: Attributes,
}

impl Mirror {
    /// Reads one event of the watch. A bookmark has neither key nor body.
    ///
    /// # Errors
    /// What makes it no event of this kind.
    pub(crate) fn read_event(
        &self,
        event_type: EventType,
        object: &[u8],
    ) -> Result<Incoming, ObjectError> {
        let meta = ObjectMeta::parse(object)?;
        let mut line = BytesMut::with_capacity(object.len() + 40);
        codec::frame(event_type, object, &mut line);
        let line = line.freeze();
        // The line ends with the object, a brace and a line feed.
        let end = line.len() - 2;
        let shown = line.slice(end - object.len()..end);
        let form = self.kind.form();
        let body = form.map_or_else(
            || Bytes::copy_from_slice(object),
            |form| codec::without_type_meta(object, &form),
        );
        let traits = self.kind.traits(&meta, object);
        Ok(Incoming {
            event_type,
            origin: Origin::Cloud,
            revision: meta.resource_version,
            kind: meta.kind.unwrap_or_default(),
            key: key(&meta.namespace, &meta.name),
            body,
            line,
            object: shown,
            traits,
        })
    }

    /// Takes over events, in their order. Blocks on the store.
    ///
    /// # Errors
    /// If the store takes no write; then none of them was taken.
    pub(crate) fn take(&self, events: Vec<Incoming>) -> Result<()> {
        let _whole = self.whole.write();
        let mut gone: HashSet<ObjectKey> = HashSet::new();
        let mut put: HashMap<ObjectKey, u64> = HashMap::new();
        let mut taken = Vec::new();
        let mut reached = 0;
        for event in events {
            reached = reached.max(event.revision);
            if event.event_type == EventType::Bookmark {
                continue;
            }
            let held = match put.get(&event.key) {
                Some(revision) => Some(*revision),
                None if gone.contains(&event.key) => None,
                None => self.kind.revision_of(self.id, &event.key),
            };
            if event.event_type == EventType::Deleted {
                if held.is_none() {
                    continue;
                }
                put.remove(&event.key);
                gone.insert(event.key.clone());
            } else {
                if held.is_some_and(|held| held >= event.revision) {
                    continue;
                }
                put.insert(event.key.clone(), event.revision);
            }
            taken.push(event);
        }
        self.apply(taken, reached)
    }

    /// Applies events whose `whole` the caller holds; the upstream watch has come to `reached`.
    pub(super) fn apply(&self, events: Vec<Incoming>, reached: u64) -> Result<()> {
        let mut batch = Batch::new();
        let changes: Vec<Change> = events.iter().map(Incoming::change).collect();
        let mut stones = Vec::new();
        for event in events
            .iter()
            .filter(|event| event.event_type == EventType::Deleted)
        {
            let added = self
                .kind
                .added(self.id, &event.key)
                .unwrap_or(event.revision);
            batch.put(
                tombstone_key(self.id, event.revision),
                encode_tombstone(added, &event.key, &event.body),
            );
            stones.push(Tombstone {
                revision: event.revision,
                key: event.key.clone(),
                added,
            });
        }
        let told = self.revision();
        let mut floor = self.trim(stones.len(), &mut batch);
        if events.iter().any(|event| event.revision <= told) {
            // A barrier claimed more than was true. Who was told so resumes in the window, or lists again.
            floor = Some(told + 1);
        }
        let is_local = |event: &Incoming| event.origin != Origin::Cloud;
        if events.is_empty() || floor.is_some() || events.iter().any(is_local) {
            let mut saved = self.saved(&self.state.lock());
            saved.revision = last_order(told, &events).max(reached);
            saved.followed = saved.followed.max(reached);
            saved.floor = floor.unwrap_or(saved.floor);
            batch.put(scope_key(self.id), saved.encode());
        }
        let before = self.kind.apply(self.id, &changes, batch)?;

        let mut state = self.state.lock();
        for (event, before) in events.into_iter().zip(before) {
            let before = before.and_then(|body| self.before(&event.traits, &body));
            let order = order(told, state.revision, &event);
            state.revision = state.revision.max(order);
            state
                .window
                .push(Step::Event(Box::new(event.into_event(order, before))));
        }
        if let Some(floor) = floor {
            state.floor = floor;
            while state
                .tombstones
                .front()
                .is_some_and(|stone| stone.revision <= floor)
            {
                state.tombstones.pop_front();
            }
        }
        state.tombstones.extend(stones);
        state.followed = state.followed.max(reached);
        state.revision = state.revision.max(reached);
        drop(state);
        self.changed.send_replace(());
        Ok(())
    }

    /// Makes room for new deletions: the oldest go. Returns the revision of the last that went.
    fn trim(&self, coming: usize, batch: &mut Batch) -> Option<u64> {
        let state = self.state.lock();
        let over = (state.tombstones.len() + coming).saturating_sub(TOMBSTONES);
        let mut floor = None;
        for stone in state.tombstones.iter().take(over) {
            batch.delete(tombstone_key(self.id, stone.revision));
            floor = Some(stone.revision);
        }
        floor
    }

    /// Returns the object before an event, where selectors could tell the difference.
    fn before(&self, now: &Attributes, body: &Bytes) -> Option<Before> {
        let meta = ObjectMeta::parse(body).ok()?;
        let traits = self.kind.traits(&meta, body);
        if traits == *now {
            return None;
        }
        let object = self
            .kind
            .form()
            .map_or_else(|| body.clone(), |form| codec::with_type_meta(body, &form));
        Some(Before { traits, object })
    }

    /// Returns what is stored of the mirror's own.
    pub(super) fn saved(&self, state: &State) -> SavedScope {
        SavedScope {
            form: self.kind.form().map(|form| (*form).clone()),
            is_synced: matches!(state.phase, Phase::Live | Phase::Behind),
            revision: state.revision,
            followed: state.followed,
            floor: state.floor,
            ..SavedScope::new(&self.scope)
        }
    }
}

/// Returns an event's place in the history that clients are told, after `last`; they had been told `told`.
fn order(told: u64, last: u64, event: &Incoming) -> u64 {
    if event.revision > told {
        event.revision
    } else {
        last + 1
    }
}

fn last_order(told: u64, events: &[Incoming]) -> u64 {
    events
        .iter()
        .fold(told, |last, event| last.max(order(told, last, event)))
}

impl Incoming {
    /// Returns the same event of another origin.
    pub(super) fn from(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    fn change(&self) -> Change {
        let key = self.key.clone();
        match (self.origin, self.event_type) {
            (Origin::Uncover, _) => Change::Uncover { key },
            (Origin::Cover, _) => Change::Cover {
                key,
                revision: self.revision,
                body: self.body.clone(),
            },
            (Origin::Cloud, EventType::Deleted) => Change::Delete { key },
            (Origin::Cloud, _) => Change::Put {
                key,
                revision: self.revision,
                body: self.body.clone(),
            },
        }
    }

    fn into_event(self, order: u64, before: Option<Before>) -> Event {
        Event {
            order,
            revision: self.revision,
            event_type: self.event_type,
            key: self.key,
            line: self.line,
            object: self.object,
            traits: self.traits,
            before,
        }
    }
}
