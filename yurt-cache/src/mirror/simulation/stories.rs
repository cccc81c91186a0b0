//! Single stories of a wide and a narrow mirror of one kind, and of what is remembered by name beside them.

use std::sync::Arc;

use tokio::time::Instant;
use yurt_core::store::{Batch, Store};

use super::super::Mirror;
use super::super::kind::Kind;
use super::super::relist::Finished;
use super::super::saved::{SavedScope, scope_key};
use super::cloud::{content, object};
use super::disk::Disk;
use super::pair::{scopes, start};
use super::world::{item, type_meta};
use crate::api::key;
use crate::api::request::Verb;
use crate::codec::{EventType, with_resource_version};
use crate::identity::{Caller, Token};
use crate::store::layout::{LAYOUT, LAYOUT_VERSION};

/// A disk with a wide and a narrow mirror of a kind, and their process.
struct Node {
    disk: Arc<Disk>,
    kind: Arc<Kind>,
    wide: Arc<Mirror>,
    narrow: Arc<Mirror>,
}

impl Node {
    fn new() -> Self {
        let disk = Disk::new();
        let mut batch = Batch::new();
        batch.put(LAYOUT, LAYOUT_VERSION);
        for (id, scope) in (1..).zip(scopes()) {
            batch.put(scope_key(id), SavedScope::new(&scope).encode());
        }
        disk.write(batch).unwrap();
        Self::on(disk)
    }

    fn on(disk: Arc<Disk>) -> Self {
        let (kind, [wide, narrow], _) = start(&disk);
        Self {
            disk,
            kind,
            wide,
            narrow,
        }
    }

    fn restarted(self) -> Self {
        Self::on(self.disk)
    }

    fn remember(&self, name: &str, revision: u64, content: u64) {
        let body = object(name, revision, content);
        let key = key("a", name);
        let remembered = self.kind.remember(&key, revision, body, Instant::now());
        remembered.unwrap();
    }

    /// Returns what a GET shows.
    fn shown(&self, name: &str) -> Option<u64> {
        let covering = self.wide.covering(&key("a", name));
        let newest = self.kind.newest("a", name, Some(covering)).unwrap();
        newest.map(|(_, body)| content(&body))
    }
}

/// Takes a whole list: of each object the name, its revision and its content.
fn list(mirror: &Mirror, revision: u64, objects: &[(&str, u64, u64)]) {
    mirror.begin_list().unwrap();
    let items = objects.iter();
    let items: Vec<_> = items
        .map(|(name, revision, content)| item(name, (*revision, *content)))
        .collect();
    let seen = items.iter().map(|item| item.key.clone()).collect();
    mirror.take_listed(items).unwrap();
    let finished = mirror.finish_list(revision, type_meta(), &seen);
    assert_eq!(finished.unwrap(), Finished::InPlace);
}

fn modified(mirror: &Mirror, name: &str, revision: u64, content: u64) {
    let object = object(name, revision, content);
    let event = mirror.read_event(EventType::Modified, &object).unwrap();
    mirror.take(vec![event]).unwrap();
}

#[test]
fn what_is_remembered_by_name_alone_says_after_a_restart_that_the_cloud_was_put_back() {
    let node = Node::new();
    list(&node.narrow, 20, &[("b", 20, 2)]);
    // The cloud is put back to 10.
    node.narrow.went_back().unwrap();
    list(&node.narrow, 11, &[]);
    node.remember("a", 12, 1);
    let node = node.restarted();
    list(&node.wide, 13, &[("a", 13, 3)]);
    assert_eq!(node.shown("a"), Some(3));
}

#[test]
fn what_the_cloud_says_anew_is_shown_though_a_narrower_scope_has_not_heard_of_it() {
    let node = Node::new();
    for mirror in [&node.wide, &node.narrow] {
        list(mirror, 10, &[("a", 10, 2)]);
    }
    let local = with_resource_version(&object("a", 0, 1_000), 11).unwrap();
    for mirror in [&node.wide, &node.narrow] {
        assert!(mirror.cover(&local).unwrap());
    }
    modified(&node.wide, "a", 12, 4);
    assert_eq!(node.shown("a"), Some(4));
}

#[test]
fn who_does_not_follow_a_mirror_any_more_is_not_taken_for_who_may_list_it() {
    let mirror = Node::new().wide;
    let reader = Caller::Token(Token::new("reader"));
    mirror.note_listed_as(&Caller::Node);
    mirror.note_watched_as(&Caller::Node);
    assert!(mirror.is_fetched_as(&Caller::Node, Verb::List));
    mirror.note_watched_as(&reader);
    assert!(mirror.is_fetched_as(&reader, Verb::Watch));
    for verb in [Verb::List, Verb::Watch] {
        assert!(!mirror.is_fetched_as(&Caller::Node, verb), "{verb:?}");
    }
}
