use std::collections::HashSet;
use std::time::Duration;

use super::*;
use crate::codec::{FieldSelector, LabelSelector, TypeMeta};
use crate::retention::Budget;
use crate::store::MemoryStore;

/// Mirrors of these scopes of one kind, by number from 1 on.
fn mirrors_of(scopes: impl IntoIterator<Item = Scope>) -> (Mirrors, Vec<Arc<Mirror>>) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let budget = Budget::new(10, 10);
    let remembered = Arc::new(Remembered::new(budget));
    let kind = Kind::new(
        Resource::core("pods"),
        store.clone(),
        budget,
        (remembered, Arc::default()),
    );
    let kind = Arc::new(kind);
    let window = Limit { steps: 1, bytes: 1 };
    let mut mirrors = Mirrors::default();
    let all = (1..).zip(scopes).map(|(id, scope)| {
        let (kind, store, now) = (kind.clone(), store.clone(), Instant::now());
        let mirror = Arc::new(Mirror::new(id, scope, kind, store, window, now));
        mirrors.insert(Kept {
            mirror: mirror.clone(),
            following: Arc::default(),
            stop: CancellationToken::new(),
        });
        mirror
    });
    let all = all.collect();
    (mirrors, all)
}

#[test]
fn the_end_of_an_older_mirror_of_a_scope_does_not_hide_the_newer_one() {
    let scope = Scope::all(Resource::core("pods"));
    let (mut mirrors, all) = mirrors_of([scope.clone(), scope.clone()]);
    mirrors.remove(&all[0]);
    let found = mirrors.find(&Identity::of(&scope));
    assert_eq!(found.map(|mirror| mirror.id), Some(all[1].id));
}

#[test]
fn of_two_mirrors_that_can_answer_the_one_is_asked_that_is_not_outdated() {
    let all = Scope::all(Resource::core("pods"));
    let one = all.clone().in_namespace(Some("a".to_owned()));
    for outdated in 0..2 {
        let (mirrors, both) = mirrors_of([all.clone(), one.clone()]);
        list(&both[0], 20);
        list(&both[1], 20);
        both[outdated].went_back().unwrap();
        list(&both[1 - outdated], 11);
        let found = mirrors.find(&Identity::of(&one));
        let found = found.map(|mirror| mirror.id);
        assert_eq!(found, Some(both[1 - outdated].id), "not {outdated}");
    }
}

/// Lists nothing at all.
fn list(mirror: &Mirror, revision: u64) {
    let form = TypeMeta {
        api_version: "v1".into(),
        kind: "Pod".into(),
        list_kind: "PodList".into(),
    };
    mirror.begin_list(ListAt::Latest).unwrap();
    let finished = mirror.finish_list(revision, form, &HashSet::new());
    finished.unwrap();
}

fn scope(namespace: Option<&str>, labels: &str, fields: &str) -> Identity {
    Identity::of(&Scope {
        labels: LabelSelector::parse(labels).unwrap(),
        fields: FieldSelector::parse(fields).unwrap(),
        ..Scope::all(Resource::core("pods")).in_namespace(namespace.map(str::to_owned))
    })
}

#[test]
fn a_wider_scope_contains_a_narrower_one_and_never_the_other_way() {
    let all = scope(None, "", "");
    let one = scope(Some("a"), "", "");
    let selected = scope(Some("a"), "app=x", "");
    let named = scope(Some("a"), "", "metadata.name=n");
    let contains = |wide: &Identity, narrow: &Identity| narrow.containing().any(|it| it == *wide);
    for (wide, narrow) in [
        (&all, &one),
        (&all, &selected),
        (&one, &selected),
        (&one, &named),
        (&all, &named),
    ] {
        assert!(contains(wide, narrow), "{wide:?} contains {narrow:?}");
        assert!(!contains(narrow, wide), "{narrow:?} is in {wide:?}");
    }
    assert!(!contains(&selected, &scope(Some("a"), "app=y", "")));
    assert!(!contains(&one, &scope(Some("b"), "", "")));
    assert!(contains(&selected, &selected));
    assert_eq!(all.containing().count(), 1);
    assert_eq!(selected.containing().count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_definition_is_due_again_after_ten_minutes() {
    let (_, mirrors) = mirrors_of([Scope::all(Resource::core("pods"))]);
    let kind = &mirrors[0].kind;
    let now = Instant::now();
    assert!(kind.is_definition_due(now));
    kind.note_definition(now);
    assert!(!kind.is_definition_due(now + Duration::from_secs(599)));
    assert!(kind.is_definition_due(now + Duration::from_secs(600)));
}
