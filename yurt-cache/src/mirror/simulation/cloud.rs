//! A model of the API server: one counter of revisions, objects, and the events of one scope.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::relist::Item;
use crate::api::{Resource, Scope, key};
use crate::codec::{EventType, LabelSelector, TypeMeta, without_type_meta};

pub(super) const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// One event of the scope.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) revision: u64,
    pub(super) event_type: EventType,
    pub(super) object: Bytes,
}

/// The API server.
#[derive(Clone, Debug, Default)]
pub(super) struct Cloud {
    pub(super) revision: u64,
    /// By name: the revision and a number that says which content.
    pub(super) objects: BTreeMap<String, (u64, u64)>,
    pub(super) events: Vec<Event>,
    /// Events up to this revision are no longer known.
    pub(super) compacted: u64,
    /// Every content that an object had, by name and revision.
    written: BTreeMap<(String, u64), u64>,
    /// When an object was deleted last, by name.
    deleted: BTreeMap<String, u64>,
    content: u64,
}

/// Writes an object as the server does; its label says whether its content is even.
pub(super) fn object(name: &str, revision: u64, content: u64) -> Bytes {
    let is_even = content.is_multiple_of(2);
    format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","namespace":"a","resourceVersion":"{revision}","labels":{{"even":"{is_even}"}}}},"data":{{"k":"{content}"}}}}"#
    )
    .into()
}

/// Reads the content of an object.
pub(super) fn content(object: &[u8]) -> u64 {
    let text = std::str::from_utf8(object).unwrap();
    let (_, rest) = text.split_once(r#""k":""#).unwrap();
    rest.split('"').next().unwrap().parse().unwrap()
}

impl Cloud {
    /// Something happens elsewhere.
    pub(super) fn pass(&mut self, count: u64) {
        self.revision += count;
    }

    pub(super) fn write(&mut self, name: &str) {
        self.revision += 1;
        self.content += 1;
        let now = (self.revision, self.content);
        self.written
            .insert((name.to_owned(), self.revision), self.content);
        let event_type = match self.objects.insert(name.to_owned(), now) {
            Some(_) => EventType::Modified,
            None => EventType::Added,
        };
        self.say(event_type, name, self.content);
    }

    pub(super) fn delete(&mut self, name: &str) {
        if let Some((_, content)) = self.objects.remove(name) {
            self.revision += 1;
            self.deleted.insert(name.to_owned(), self.revision);
            self.say(EventType::Deleted, name, content);
        }
    }

    fn say(&mut self, event_type: EventType, name: &str, content: u64) {
        self.events.push(Event {
            revision: self.revision,
            event_type,
            object: object(name, self.revision, content),
        });
    }

    /// Forgets the events up to now.
    pub(super) fn compact(&mut self) {
        self.compacted = self.revision;
        self.events.clear();
    }

    /// Is put back to an earlier copy; what it writes then has other content.
    pub(super) fn restore(&mut self, earlier: &Self) {
        let content = self.content + 1_000;
        *self = earlier.clone();
        self.content = content;
        self.compact();
    }

    /// Returns when an object was deleted last.
    pub(super) fn deleted_at(&self, name: &str) -> Option<u64> {
        self.deleted.get(name).copied()
    }

    /// Returns the content that an object had at a revision.
    pub(super) fn content_at(&self, name: &str, revision: u64) -> Option<u64> {
        self.written.get(&(name.to_owned(), revision)).copied()
    }

    /// Returns the events after a revision, `None` if they are no longer known.
    pub(super) fn since(&self, revision: u64) -> Option<&[Event]> {
        if revision < self.compacted {
            return None;
        }
        let at = self
            .events
            .partition_point(|event| event.revision <= revision);
        Some(&self.events[at..])
    }

    /// Returns names and contents.
    pub(super) fn state(&self) -> BTreeMap<String, u64> {
        let objects = self.objects.iter();
        objects
            .map(|(name, (_, content))| (name.clone(), *content))
            .collect()
    }
}

pub(super) fn scope() -> Scope {
    Scope::all(Resource::core("configmaps"))
}

/// A wide one and a narrow one, of the objects with even contents.
pub(super) fn scopes() -> [Scope; 2] {
    let narrow = Scope {
        labels: LabelSelector::parse("even=true").unwrap(),
        ..scope()
    };
    [scope(), narrow]
}

pub(super) fn type_meta() -> TypeMeta {
    TypeMeta {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        list_kind: "ConfigMapList".into(),
    }
}

pub(super) fn item(name: &str, (revision, content): (u64, u64)) -> Item {
    Item {
        key: key("a", name),
        revision,
        body: without_type_meta(&object(name, revision, content), &type_meta()),
    }
}
