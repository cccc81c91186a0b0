//! Single stories of a wide and a narrow mirror of one kind, and of what is remembered by name beside them.

use tokio::time::Instant;

use super::cloud::object;
use super::node::{Node, Shown, list, modified};
use crate::api::request::Verb;
use crate::codec::with_resource_version;
use crate::identity::{Caller, Token};

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
    assert_eq!(node.shown("a"), Shown::Content(3));
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
    assert_eq!(node.shown("a"), Shown::Content(4));
}

#[test]
fn who_does_not_follow_a_mirror_any_more_is_not_taken_for_who_may_list_it() {
    let mirror = Node::new().wide;
    let reader = Caller::Token(Token::new("reader"));
    let now = Instant::now();
    let both =
        |caller: &Caller| [Verb::List, Verb::Watch].map(|verb| mirror.fetched_at(caller, verb));
    mirror.note_listed_as(&Caller::Node, now);
    mirror.note_watched_as(&Caller::Node, now);
    assert_eq!(both(&Caller::Node), [Some(now), Some(now)]);
    mirror.note_watched_as(&reader, now);
    assert_eq!(both(&reader), [None, Some(now)]);
    assert_eq!(both(&Caller::Node), [None, None]);
    mirror.note_listed_as(&Caller::Node, now);
    assert_eq!(both(&reader), [None, None]);
    mirror.note_refused_as(&reader);
    assert_eq!(both(&Caller::Node), [Some(now), None]);
    mirror.note_refused_as(&Caller::Node);
    assert_eq!(both(&Caller::Node), [None, None]);
    assert!(mirror.was_watched());
}
