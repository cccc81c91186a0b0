//! A node with a wide and a narrow mirror of one kind, whose story a test tells step by step.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use yurt_core::store::Result;

use super::super::Mirror;
use super::super::kind::{Kind, Known};
use super::super::relist::Finished;
use super::cloud::{content, item, object, scopes, type_meta};
use super::disk::Disk;
use super::process::start;
use crate::api::{ListAt, key};
use crate::codec::EventType;

/// A disk with a wide and a narrow mirror of a kind, and their process.
pub(super) struct Node {
    pub(super) disk: Arc<Disk>,
    pub(super) kind: Arc<Kind>,
    pub(super) wide: Arc<Mirror>,
    pub(super) narrow: Arc<Mirror>,
}

impl Node {
    pub(super) fn new() -> Self {
        let disk = Disk::with(&scopes());
        Self::on(disk)
    }

    fn on(disk: Arc<Disk>) -> Self {
        let process = start(&disk, scopes());
        let [wide, narrow] = process.mirrors;
        Self {
            disk,
            kind: process.kind,
            wide,
            narrow,
        }
    }

    pub(super) fn restarted(self) -> Self {
        Self::on(self.disk)
    }

    pub(super) fn remember(&self, name: &str, revision: u64, content: u64) {
        let body = object(name, revision, content);
        remember(&self.kind, name, revision, &body).unwrap();
    }

    /// Returns what a GET shows while cut off.
    pub(super) fn shown(&self, name: &str) -> Shown {
        let is_covering = self.wide.is_synced() && !self.wide.is_suspect();
        let covering = is_covering.then(|| self.wide.covering(&key("a", name)));
        match self.kind.known("a", name, covering).unwrap() {
            Known::There(_, body) => Shown::Content(content(&body)),
            Known::Absent => Shown::Absent,
            Known::Unknown => Shown::Unknown,
        }
    }
}

/// Reads an object by name: once more, if something newer is known, as it is now.
pub(super) fn remember(kind: &Kind, name: &str, revision: u64, body: &Bytes) -> Result<()> {
    let (key, now) = (key("a", name), Instant::now());
    if !kind.remember(&key, revision, body.clone(), now)? {
        kind.note_read(kind.seen(&key), revision)?;
        let is_newest = kind.remember(&key, revision, body.clone(), now)?;
        assert!(is_newest, "{name} at {revision} is the last word");
    }
    Ok(())
}

/// What a GET shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Content(u64),
    Absent,
    Unknown,
}

/// Takes a whole list: of each object the name, its revision and its content.
pub(super) fn list(mirror: &Mirror, revision: u64, objects: &[(&str, u64, u64)]) {
    mirror.begin_list(ListAt::Latest).unwrap();
    let items = objects.iter();
    let items: Vec<_> = items
        .map(|(name, revision, content)| item(name, (*revision, *content)))
        .collect();
    let seen = items.iter().map(|item| item.key.clone()).collect();
    mirror.take_listed(items).unwrap();
    let finished = mirror.finish_list(revision, type_meta(), &seen);
    if finished.unwrap() != Finished::InPlace {
        list(mirror, revision, objects);
    }
}

pub(super) fn modified(mirror: &Mirror, name: &str, revision: u64, content: u64) {
    hears(mirror, EventType::Modified, name, (revision, content));
}

pub(super) fn hears(
    mirror: &Mirror,
    event_type: EventType,
    name: &str,
    (revision, content): (u64, u64),
) {
    let object = object(name, revision, content);
    let event = mirror.read_event(event_type, &object).unwrap();
    mirror.take(vec![event]).unwrap();
}
