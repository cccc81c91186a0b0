use std::sync::Arc;

use super::EventType::{Added, Deleted, Modified};
use super::plan::TOMBSTONES;
use super::*;
use crate::api::Resource;
use crate::codec::EventType;
use crate::codec::TypeMeta;
use crate::mirror::kind::Kind;
use crate::mirror::remembered::Remembered;
use crate::retention::Budget;
use crate::store::MemoryStore;

const WINDOW: Limit = Limit {
    steps: 100,
    bytes: 1 << 20,
};

/// Keys and orders.
type Told = Vec<(String, u64)>;

/// A scope's history, with what reads its events.
struct Bed {
    kind: Kind,
    history: History,
}

impl Bed {
    /// Begins with a list at a revision.
    fn listed(revision: u64, items: &[(&str, u64)]) -> Self {
        let budget = Budget::new(1_000, 1 << 20);
        let remembered = Arc::new(Remembered::new(budget));
        let store = Arc::new(MemoryStore::new());
        let kind = Kind::new(
            Resource::core("configmaps"),
            store,
            budget,
            (remembered, Arc::default()),
        );
        kind.learn_form(TypeMeta {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            list_kind: "ConfigMapList".into(),
        });
        let mut history = History::new(WINDOW, Era::default());
        let listed = items.iter().map(|(name, at)| listed(name, *at)).collect();
        let first = history.first_list((Era::default(), revision), listed);
        history.commit(first);
        Self { kind, history }
    }

    fn event(&self, event_type: EventType, name: &str, revision: u64) -> Incoming {
        let object = format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","namespace":"a","resourceVersion":"{revision}"}}}}"#
        );
        Incoming::read(&self.kind, event_type, object.as_bytes()).unwrap()
    }

    /// Takes one chunk of events; returns what is told of it.
    fn take(&mut self, events: &[(EventType, &str, u64)]) -> Vec<(EventType, String, u64)> {
        let events = events.iter();
        let events = events.map(|(event_type, name, at)| self.event(*event_type, name, *at));
        let transition = self.history.events(events.collect());
        let told = told(&transition);
        self.history.commit(transition);
        told
    }

    fn prove(&mut self, revision: u64) {
        let proven = self.history.proven(revision);
        self.history.commit(proven);
    }

    fn relist(&mut self, revision: u64, changed: &[(&str, u64)], seen: &[&str]) {
        let changed = changed.iter().map(|(name, at)| listed(name, *at)).collect();
        let seen = seen.iter().map(|name| format!("a/{name}").into()).collect();
        let transition = self
            .history
            .relist((Era::default(), revision), changed, &seen);
        self.history.commit(transition);
    }

    /// Returns names and orders of what a client is told that resumes.
    fn since(&self, revision: u64) -> (Told, Told) {
        let members = self.history.members(Within::Everything);
        let changed = members.filter(|(_, member)| member.order > revision);
        let changed = changed.map(|(key, member)| (key.to_string(), member.order));
        let deleted = self.history.deleted_since(revision);
        let deleted = deleted.map(|stone| (stone.key.to_string(), stone.order));
        (changed.collect(), deleted.collect())
    }
}

fn listed(name: &str, revision: u64) -> Listed {
    Listed {
        key: format!("a/{name}").into(),
        version: Version::cloud(Era::default(), revision),
        len: 10,
    }
}

fn told(transition: &Transition) -> Vec<(EventType, String, u64)> {
    let steps = transition.steps.iter().filter_map(|step| match step {
        Step::Event(event) => Some((event.event_type, event.key.to_string(), event.order)),
        Step::Jump { .. } => None,
    });
    steps.collect()
}

fn named(told: &[(EventType, String, u64)]) -> Vec<(EventType, &str, u64)> {
    let told = told.iter();
    told.map(|(event_type, key, order)| (*event_type, key.as_str(), *order))
        .collect()
}

#[test]
fn orders_ascend_inside_one_chunk_where_a_proof_had_told_more_than_the_watch() {
    let mut bed = Bed::listed(5, &[]);
    bed.prove(10);
    let told = bed.take(&[(Added, "a", 9), (Added, "b", 10), (Added, "c", 11)]);
    assert_eq!(
        named(&told),
        [(Added, "a/a", 11), (Added, "a/b", 12), (Added, "a/c", 13)]
    );
    assert_eq!(bed.history.revision(), 13);
    assert_eq!(
        bed.history.upstream(),
        11,
        "the watch goes on where the cloud is"
    );
    let told = bed.take(&[(Modified, "a", 20)]);
    assert_eq!(
        named(&told),
        [(Modified, "a/a", 20)],
        "the cloud's number where it can be"
    );
}

#[test]
fn what_came_and_went_in_one_chunk_is_told_to_whoever_has_seen_it_and_to_nobody_else() {
    let mut bed = Bed::listed(5, &[]);
    let told = bed.take(&[(Added, "x", 7), (Deleted, "x", 9)]);
    assert_eq!(named(&told), [(Added, "a/x", 7), (Deleted, "a/x", 9)]);
    assert_eq!(bed.since(7).1, [("a/x".to_owned(), 9)]);
    assert_eq!(bed.since(6).1, []);
    assert_eq!(bed.since(9).1, []);
}

#[test]
fn what_is_known_already_and_bookmarks_tell_nothing() {
    let mut bed = Bed::listed(5, &[("a", 4)]);
    let told = bed.take(&[(Added, "a", 4), (Deleted, "b", 5)]);
    assert_eq!(told, []);
    let bookmark = bed.event(EventType::Bookmark, "", 30);
    let transition = bed.history.events(vec![bookmark]);
    assert!(transition.is_silent(&bed.history) && !transition.needs_record(&bed.history));
    bed.history.commit(transition);
    assert_eq!((bed.history.revision(), bed.history.upstream()), (5, 30));
}

#[test]
fn deletions_of_a_relist_have_numbers_that_nothing_else_has() {
    let mut bed = Bed::listed(10, &[("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
    bed.relist(13, &[("d", 12), ("e", 13)], &["d", "e"]);
    let (changed, deleted) = bed.since(10);
    assert_eq!(changed, [("a/d".to_owned(), 12), ("a/e".to_owned(), 13)]);
    let orders: Vec<u64> = deleted.iter().map(|(_, order)| *order).collect();
    assert_eq!(
        orders,
        [11, 14, 15],
        "beyond the list's where there is no room below"
    );
    assert_eq!(bed.history.revision(), 15);
    assert_eq!(bed.history.upstream(), 13);
}

#[test]
fn a_relist_behind_what_was_told_is_told_all_the_same() {
    let mut bed = Bed::listed(10, &[("a", 1)]);
    bed.prove(100);
    bed.relist(60, &[("a", 59)], &["a"]);
    assert_eq!(bed.since(100).0, [("a/a".to_owned(), 101)]);
}

#[test]
fn a_local_version_stays_until_it_is_taken_away_or_the_cloud_has_another() {
    let mut bed = Bed::listed(10, &[("a", 1), ("b", 2)]);
    for name in ["a", "b"] {
        let local = bed.event(Modified, name, bed.history.revision() + 1);
        let covered = bed.history.cover(local, true).unwrap();
        bed.history.commit(covered);
    }
    assert_eq!(bed.history.revision(), 12);
    assert!(bed.history.member("a/a").unwrap().version.is_local());
    let taken = bed.take(&[(Modified, "a", 11)]);
    assert_eq!(
        named(&taken),
        [(Modified, "a/a", 13)],
        "later than all that was told"
    );
    let back = vec![bed.event(Modified, "a", 11), bed.event(Modified, "b", 2)];
    let uncovered = bed.history.uncover(back);
    assert_eq!(named(&told(&uncovered)), [(Modified, "a/b", 14)]);
    bed.history.commit(uncovered);
    assert!(bed.history.behind().next().is_none());
    let nobody = bed.event(Modified, "nobody", 20);
    assert!(
        bed.history.cover(nobody, true).is_none(),
        "what is not held is not covered"
    );
}

#[test]
fn what_a_local_version_moves_out_of_the_selection_is_gone_until_it_comes_back() {
    let mut bed = Bed::listed(10, &[("a", 1)]);
    let local = bed.event(Modified, "a", 11);
    let hidden = bed.history.cover(local, false).unwrap();
    assert_eq!(named(&told(&hidden)), [(Deleted, "a/a", 11)]);
    bed.history.commit(hidden);
    assert_eq!(bed.since(0).0, []);
    let back = vec![bed.event(Modified, "a", 1)];
    let shown = bed.history.uncover(back);
    assert_eq!(named(&told(&shown)), [(Added, "a/a", 12)]);
}

#[test]
fn remembered_deletions_are_bounded_and_whoever_is_older_lists_again() {
    let names: Vec<String> = (0..TOMBSTONES + 5).map(|at| format!("n{at:05}")).collect();
    let items: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let mut bed = Bed::listed(10, &items);
    bed.relist(5_000, &[], &[]);
    assert_eq!(bed.since(10).1.len(), TOMBSTONES);
    assert!(!bed.history.reaches_back_to(10));
    assert!(bed.history.reaches_back_to(15) && !bed.history.reaches_back_to(5_001));
}

#[test]
fn after_a_cloud_went_back_nobody_goes_on_and_no_number_is_told_again() {
    let mut bed = Bed::listed(50, &[("a", 40)]);
    let seen = HashSet::from(["a/a".into()]);
    let later = Era::default().next();
    let listed = Listed {
        version: Version::cloud(later, 40),
        ..listed("a", 40)
    };
    let transition = bed.history.relist((later, 45), vec![listed], &seen);
    assert!(transition.restarts && transition.needs_record(&bed.history));
    bed.history.commit(transition);
    assert!(bed.history.revision() > 50 && bed.history.upstream() == 45);
    assert!(!bed.history.reaches_back_to(50));
}
