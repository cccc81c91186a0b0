//! Makes events of what a mirror holds: its state for a new client, or what changed since a revision.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use yurt_core::store::Store;

use super::super::blocking;
use super::super::weight::{Load, Weight};
use super::super::write::Writer;
use super::PORTION;
use super::told::{Untold, tell};
use crate::api::{ObjectKey, Selection};
use crate::codec::fields::Attributes;
use crate::codec::{EventType, ObjectMeta, Status, with_type_meta};
use crate::filter::seen::Seen;
use crate::mirror::Snapshot;
use crate::mirror::saved::{decode_tombstone, tombstone_key};
use crate::mirror::version::Version;
use crate::mirror::{Mirror, Since, View};

/// Events that are being made.
pub(super) struct Replay {
    source: Arc<Source>,
    entries: VecDeque<Entry>,
    revision: u64,
    place: u64,
    since: Option<u64>,
    ends_initial_events: bool,
    is_told: bool,
    load: Load,
}

/// Where the events' objects are read, and how they are written.
struct Source {
    snapshot: Snapshot,
    store: Arc<dyn Store>,
    mirror: u32,
    selection: Selection,
}

#[derive(Clone)]
struct Entry {
    event_type: EventType,
    key: ObjectKey,
    /// Which bytes; `None` of what was deleted.
    version: Option<Version>,
    /// Where in the history it is told.
    order: u64,
}

impl Replay {
    /// Makes the state into events; `ends` asks for the bookmark that ends initial events.
    pub(super) fn state(mut view: View, ends: bool, selection: &Selection) -> Self {
        let items = std::mem::take(&mut view.snapshot.items);
        let entries = items.into_iter().map(|item| Entry {
            event_type: EventType::Added,
            key: item.key,
            version: Some(item.version),
            order: item.order,
        });
        let entries: VecDeque<Entry> = entries.collect();
        Self {
            load: Load::of::<Entry>(entries.len()),
            entries,
            revision: view.revision,
            place: view.place,
            since: None,
            ends_initial_events: ends,
            is_told: ends,
            source: Arc::new(Source::new(view.snapshot, None, selection)),
        }
    }

    /// Makes what changed since `revision` into events; `None` if that is no longer known.
    pub(super) fn since(
        mirror: &Arc<Mirror>,
        revision: u64,
        selection: &Selection,
    ) -> Option<Self> {
        let Since { mut view, deleted } = mirror.since(revision, selection.within())?;
        let changed = std::mem::take(&mut view.snapshot.items)
            .into_iter()
            .map(|item| {
                let event_type = if item.added > revision {
                    EventType::Added
                } else {
                    EventType::Modified
                };
                Entry {
                    event_type,
                    key: item.key,
                    version: Some(item.version),
                    order: item.order,
                }
            });
        let gone = deleted.into_iter().map(|stone| Entry {
            event_type: EventType::Deleted,
            key: stone.key,
            version: None,
            order: stone.order,
        });
        let mut entries: Vec<Entry> = changed.chain(gone).collect();
        entries.sort_by_key(|entry| entry.order);
        Some(Self {
            load: Load::of::<Entry>(entries.len()),
            entries: entries.into(),
            revision: view.revision,
            place: view.place,
            since: Some(revision),
            ends_initial_events: false,
            is_told: false,
            source: Arc::new(Source::new(view.snapshot, Some(mirror), selection)),
        })
    }

    /// Tells how much it holds.
    pub(super) fn weight(&self) -> Weight {
        self.load.weight()
    }

    /// Returns the revision that the client has reached after the last event.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns whether a bookmark tells the client its revision.
    pub(super) fn is_told(&self) -> bool {
        self.is_told
    }

    /// Returns whether it begins with what is there, and not where the client had been.
    pub(super) fn is_state(&self) -> bool {
        self.since.is_none()
    }

    /// Returns where the window goes on.
    pub(super) fn place(&self) -> u64 {
        self.place
    }

    /// Returns the next bytes, `None` after the last; takes note of what the client has `seen` with them.
    pub(super) async fn next(
        &mut self,
        writer: &Writer,
        seen: &mut Option<Seen>,
    ) -> Result<Option<Bytes>, Status> {
        while !self.entries.is_empty() {
            let (source, since, writer) = (self.source.clone(), self.since, writer.clone());
            let mut entries = std::mem::take(&mut self.entries);
            let mut known = seen.take();
            let (chunk, entries, known) = blocking(move || {
                let chunk = source.portion(&mut entries, since, &writer, &mut known)?;
                Ok((chunk, entries, known))
            })
            .await?;
            self.entries = entries;
            *seen = known;
            let chunk = chunk.map_err(|untold| match untold {
                Untold::Expired => Status::expired_watch(self.since.unwrap_or(0), self.revision),
                Untold::Undecided(error) => error.into(),
            })?;
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        if std::mem::take(&mut self.ends_initial_events) {
            let mut out = BytesMut::new();
            writer.bookmark(self.revision, true, &mut out);
            return Ok(Some(out.freeze()));
        }
        Ok(None)
    }
}

impl Source {
    fn new(snapshot: Snapshot, mirror: Option<&Arc<Mirror>>, selection: &Selection) -> Self {
        let store = snapshot.kind().store().clone();
        let mirror = mirror.map_or(0, |mirror| mirror.id);
        Self {
            snapshot,
            store,
            mirror,
            selection: selection.clone(),
        }
    }

    /// Writes the next events, if what the client may know of each object can still be told.
    fn portion(
        &self,
        entries: &mut VecDeque<Entry>,
        since: Option<u64>,
        writer: &Writer,
        seen: &mut Option<Seen>,
    ) -> yurt_core::store::Result<Result<Bytes, Untold>> {
        let mut out = BytesMut::new();
        while out.len() < PORTION {
            let Some(entry) = entries.pop_front() else {
                break;
            };
            let Some(body) = self.body(&entry)? else {
                return Ok(Err(Untold::Expired));
            };
            match self.is_selected(&entry, &body) {
                Some(true) => {}
                // A new object that is not selected is nothing to the client; of another nobody knows
                // whether it was selected before.
                Some(false)
                    if self.selection.is_by_key()
                        || since.is_none()
                        || entry.event_type == EventType::Added =>
                {
                    continue;
                }
                Some(false) | None => return Ok(Err(Untold::Expired)),
            }
            let object = with_type_meta(&body, &writer.form);
            let event = (&entry.key, entry.order, &object);
            if let Err(untold) = tell(writer, seen, entry.event_type, event, &mut out) {
                return Ok(Err(untold));
            }
        }
        Ok(Ok(out.freeze()))
    }

    fn body(&self, entry: &Entry) -> yurt_core::store::Result<Option<Bytes>> {
        if let Some(version) = entry.version {
            return self.snapshot.kind().read(&entry.key, version);
        }
        let stored = self.store.get(&tombstone_key(self.mirror, entry.order))?;
        let read = stored.and_then(|stored| decode_tombstone(entry.order, stored));
        // Of one whose record was damaged nobody knows what it was.
        let body = read.map(|(_, body)| body);
        Ok(body.filter(|body| !body.is_empty()))
    }

    /// Returns whether an object is selected, `None` if it cannot be read.
    fn is_selected(&self, entry: &Entry, body: &Bytes) -> Option<bool> {
        if self.selection.is_by_key() {
            return Some(self.selection.matches(&entry.key, &Attributes::default()));
        }
        let meta = ObjectMeta::parse(body).ok()?;
        let traits = self.snapshot.kind().traits(&meta, body);
        Some(self.selection.matches(&entry.key, &traits))
    }
}
