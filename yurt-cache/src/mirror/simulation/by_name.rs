//! Stories of what is known of an object that was read by name.

use std::sync::Arc;

use tokio::time::Instant;

use super::cloud::object;
use super::node::{Node, Shown, hears, list};
use crate::api::key;
use crate::codec::{EventType, with_resource_version};

#[test]
fn who_leaves_a_selector_is_not_taken_for_gone_by_who_read_it_by_name() {
    let node = Node::new();
    list(&node.wide, 10, &[]);
    list(&node.narrow, 10, &[]);
    node.remember("a", 12, 2);
    hears(&node.narrow, EventType::Added, "a", (12, 2));
    hears(&node.narrow, EventType::Deleted, "a", (14, 2));
    assert_ne!(node.shown("a"), Shown::Absent);
    let node = node.restarted();
    assert_ne!(node.shown("a"), Shown::Absent);
    hears(&node.wide, EventType::Added, "a", (14, 3));
    assert_eq!(node.shown("a"), Shown::Content(3));
}

#[test]
fn a_deletion_that_is_known_counts_though_it_left_a_selector_first() {
    let node = Node::new();
    list(&node.wide, 10, &[]);
    list(&node.narrow, 10, &[]);
    node.remember("a", 12, 2);
    hears(&node.narrow, EventType::Added, "a", (12, 2));
    hears(&node.narrow, EventType::Deleted, "a", (14, 2));
    hears(&node.wide, EventType::Added, "a", (12, 2));
    assert_ne!(node.shown("a"), Shown::Absent);
    hears(&node.wide, EventType::Deleted, "a", (14, 2));
    assert_eq!(node.shown("a"), Shown::Absent);
    assert!(node.kind.keys_by_name().is_empty());
}

#[test]
fn what_was_read_by_name_after_it_left_a_selector_stays() {
    let node = Node::new();
    list(&node.wide, 10, &[]);
    list(&node.narrow, 10, &[("a", 9, 2)]);
    node.remember("a", 12, 3);
    hears(&node.narrow, EventType::Deleted, "a", (12, 2));
    assert_eq!(node.shown("a"), Shown::Content(3));
    // And what is read later is known again.
    hears(&node.narrow, EventType::Added, "a", (13, 4));
    hears(&node.narrow, EventType::Deleted, "a", (15, 4));
    node.remember("a", 15, 5);
    assert_eq!(node.shown("a"), Shown::Content(5));
}

#[test]
fn a_list_that_no_longer_finds_an_object_does_not_say_when_it_left() {
    let node = Node::new();
    list(&node.wide, 10, &[]);
    list(&node.narrow, 10, &[]);
    node.remember("a", 12, 2);
    hears(&node.narrow, EventType::Added, "a", (12, 2));
    // It left at 14, as another reader sees.
    list(&node.narrow, 20, &[]);
    node.remember("a", 14, 3);
    assert!(!node.wide.is_suspect(), "etcd was not put back");
    assert_eq!(node.shown("a"), Shown::Content(3));
}

#[test]
fn an_earlier_deletion_does_not_end_what_was_read_by_name_since() {
    let node = Node::new();
    list(&node.wide, 10, &[("a", 5, 1)]);
    node.remember("a", 15, 3);
    hears(&node.wide, EventType::Deleted, "a", (12, 1));
    assert_eq!(node.shown("a"), Shown::Content(3));
}

#[test]
fn what_left_a_selector_is_forgotten_once_nobody_would_take_it_for_absent() {
    let node = Node::new();
    list(&node.wide, 10, &[]);
    list(&node.narrow, 10, &[("a", 9, 2)]);
    node.remember("a", 12, 4);
    hears(&node.narrow, EventType::Deleted, "a", (14, 4));
    let [wide, narrow] = [&node.wide, &node.narrow].map(Arc::clone);
    node.kind.forget_left(&[wide, narrow.clone()]).unwrap();
    assert_eq!(node.shown("a"), Shown::Unknown);
    node.kind.forget_left(&[narrow]).unwrap();
    assert!(node.kind.keys_by_name().is_empty());
}

#[test]
fn what_is_read_after_the_cloud_was_put_back_is_shown_and_not_what_was_read_before() {
    for later in [12, 18] {
        let node = Node::new();
        node.remember("a", 18, 1);
        node.remember("a", later, 3);
        assert_eq!(node.shown("a"), Shown::Content(3), "at {later}");
        let node = node.restarted();
        assert_eq!(node.shown("a"), Shown::Content(3), "at {later}");
    }
}

#[test]
fn what_is_read_after_the_cloud_was_put_back_is_shown_though_it_had_left_a_selector() {
    let node = Node::new();
    list(&node.narrow, 10, &[("a", 9, 2)]);
    node.remember("a", 12, 4);
    hears(&node.narrow, EventType::Deleted, "a", (14, 4));
    node.remember("a", 9, 2);
    assert_eq!(node.shown("a"), Shown::Content(2));
    assert!(node.narrow.is_suspect());
}

#[test]
fn a_read_that_was_under_way_for_long_ends_no_era() {
    let node = Node::new();
    let (key, now) = (key("a", "a"), Instant::now());
    for (revision, content) in [(18, 3), (12, 1)] {
        let before = node.kind.seen("a/other");
        node.kind.note_read(before, revision).unwrap();
        let body = object("a", revision, content);
        let is_newest = node.kind.remember(&key, revision, body, now).unwrap();
        assert_eq!(is_newest, revision == 18);
    }
    assert_eq!(node.shown("a"), Shown::Content(3));
}

#[test]
fn when_an_object_left_a_selector_is_known_though_its_mirror_has_heard_more_since() {
    let node = Node::new();
    list(&node.wide, 10, &[]);
    list(&node.narrow, 10, &[("a", 9, 2)]);
    node.remember("a", 12, 4);
    // What is local in front of it is not selected either.
    let local = with_resource_version(&object("a", 0, 1_001), 11).unwrap();
    assert!(node.narrow.cover(&local).unwrap());
    let chunk = [
        (EventType::Deleted, object("a", 14, 4)),
        (EventType::Bookmark, object("", 20, 0)),
    ];
    let read = |(event_type, object)| node.narrow.read_event(event_type, object).unwrap();
    let chunk = chunk
        .iter()
        .map(|(event_type, object)| read((*event_type, object)));
    node.narrow.take(chunk.collect()).unwrap();
    hears(&node.wide, EventType::Added, "a", (14, 3));
    assert_eq!(node.shown("a"), Shown::Content(3));
}
