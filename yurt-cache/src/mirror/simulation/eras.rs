//! Stories of a cloud that is put back to an earlier state, as when its etcd is restored.

use std::time::Duration;

use tokio::time::timeout;
use yurt_core::store::{Batch, Store};

use super::super::saved::{SavedScope, scope_key};
use super::cloud::item;
use super::disk::Fate;
use super::node::{Node, Shown, hears, list, modified};
use crate::api::ListAt;
use crate::codec::{EventType, Status};

#[test]
fn who_lists_before_its_sibling_notices_that_the_cloud_was_put_back_tells_it() {
    let node = Node::new();
    list(&node.wide, 20, &[("a", 18, 2), ("b", 19, 1)]);
    // The cloud is put back to 10, and goes on.
    list(&node.narrow, 12, &[("a", 12, 4)]);
    assert_eq!(node.shown("a"), Shown::Content(4));
    assert_eq!(node.shown("b"), Shown::Unknown);
    assert!(node.wide.is_suspect() && !node.narrow.is_suspect());
    list(&node.wide, 13, &[("a", 12, 4)]);
    assert_eq!(node.shown("b"), Shown::Absent);
    assert!(!node.wide.is_suspect());
}

#[test]
fn who_has_listed_before_its_sibling_noticed_lists_again() {
    let node = Node::new();
    list(&node.wide, 20, &[("a", 15, 2)]);
    // The cloud is put back to 10, and goes on: 15 names another content, and 21 is later than all that was seen.
    list(&node.narrow, 21, &[("a", 15, 4)]);
    node.wide.went_back().unwrap();
    list(&node.wide, 22, &[("a", 15, 4)]);
    assert!(node.narrow.is_suspect() && !node.wide.is_suspect());
    list(&node.narrow, 23, &[("a", 15, 4)]);
    assert!(!node.narrow.is_suspect());
    assert_eq!(node.shown("a"), Shown::Content(4));
}

#[test]
fn an_empty_sibling_knows_after_a_restart_that_the_cloud_was_put_back() {
    for left in [&[][..], &[("b", 11, 3)]] {
        let node = Node::new();
        list(&node.wide, 20, &[("a", 18, 1)]);
        list(&node.narrow, 20, &[]);
        node.wide.went_back().unwrap();
        list(&node.wide, 11, left);
        let node = node.restarted();
        assert!(node.narrow.is_suspect(), "beside {left:?}");
        assert!(!node.wide.is_suspect(), "beside {left:?}");
    }
}

#[test]
fn that_the_cloud_was_put_back_is_known_though_who_noticed_is_gone() {
    let node = Node::new();
    list(&node.wide, 20, &[("a", 18, 2)]);
    list(&node.narrow, 20, &[("a", 18, 2)]);
    node.wide.went_back().unwrap();
    node.wide.end(Status::expired_list());
    node.wide.erase().unwrap();
    assert!(node.narrow.is_suspect());
    assert_eq!(node.shown("a"), Shown::Unknown);
    let node = node.restarted();
    assert!(node.narrow.is_suspect());
    assert_eq!(node.shown("a"), Shown::Unknown);
}

#[test]
fn what_was_read_by_name_or_listed_in_vain_tells_too_that_the_cloud_was_put_back() {
    let node = Node::new();
    node.remember("a", 18, 1);
    list(&node.wide, 12, &[]);
    assert_eq!(node.shown("a"), Shown::Absent);

    let node = Node::new();
    node.wide.begin_list(ListAt::Latest).unwrap();
    node.wide.take_listed(vec![item("a", (18, 2))]).unwrap();
    list(&node.narrow, 12, &[]);
    node.remember("a", 18, 3);
    assert_eq!(node.shown("a"), Shown::Content(3));
}

#[test]
fn bytes_that_a_crash_has_left_are_not_those_of_a_revision_that_counts_again() {
    let node = Node::new();
    node.remember("a", 12, 1);
    list(&node.narrow, 12, &[]);
    node.wide.begin_list(ListAt::Latest).unwrap();
    node.disk.fare(Fate::Dies {
        after: 0,
        is_written: true,
    });
    let taken = node.wide.take_listed(vec![item("a", (18, 2))]);
    assert!(taken.is_err());
    node.disk.fare(Fate::Well);
    let node = node.restarted();
    // The cloud was put back, and has come as far again.
    hears(&node.narrow, EventType::Added, "a", (18, 4));
    assert_eq!(node.shown("a"), Shown::Content(4));
}

#[tokio::test(start_paused = true)]
async fn who_follows_hears_at_once_that_its_sibling_has_noticed() {
    let node = Node::new();
    list(&node.wide, 20, &[("a", 18, 2)]);
    list(&node.narrow, 20, &[("a", 18, 2)]);
    let noticing = async { node.wide.went_back().unwrap() };
    let both = async { tokio::join!(node.narrow.suspect(), noticing) };
    timeout(Duration::from_secs(1), both).await.unwrap();
}

#[test]
fn what_comes_to_a_mirror_of_an_earlier_state_is_not_mixed_with_it() {
    let node = Node::new();
    list(&node.wide, 20, &[("a", 18, 2)]);
    list(&node.narrow, 20, &[("a", 18, 2)]);
    node.wide.went_back().unwrap();
    list(&node.wide, 11, &[]);
    modified(&node.narrow, "a", 21, 4);
    assert_eq!(node.narrow.followed(), 20);
    assert_eq!(node.shown("a"), Shown::Absent);
}

#[test]
fn what_an_earlier_hub_has_noted_of_a_cloud_that_was_put_back_counts_for_all() {
    let node = Node::new();
    list(&node.wide, 20, &[("a", 18, 2)]);
    list(&node.narrow, 20, &[("a", 18, 2)]);
    let stored = node.disk.get(&scope_key(node.wide.id)).unwrap().unwrap();
    let saved = SavedScope {
        went_back: true,
        ..SavedScope::decode(&stored).unwrap()
    };
    let mut batch = Batch::new();
    batch.put(scope_key(node.wide.id), saved.encode());
    node.disk.write(batch).unwrap();
    let node = node.restarted();
    assert!(node.wide.is_suspect() && node.narrow.is_suspect());
}
