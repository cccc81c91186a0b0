use super::*;
use crate::codec::{FieldSelector, LabelSelector};
use crate::retention::Budget;
use crate::store::MemoryStore;

#[test]
fn the_end_of_an_older_mirror_of_a_scope_does_not_hide_the_newer_one() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let budget = Budget::new(10, 10);
    let resource = Resource::core("pods");
    let remembered = Arc::new(Remembered::new(budget));
    let kind = Kind::new(resource.clone(), store.clone(), budget, remembered);
    let (kind, scope) = (Arc::new(kind), Scope::all(resource));
    let window = Limit { steps: 1, bytes: 1 };
    let mut mirrors = Mirrors::default();
    let [older, newer] = [1, 2].map(|id| {
        let (kind, store, now) = (kind.clone(), store.clone(), Instant::now());
        let mirror = Arc::new(Mirror::new(id, scope.clone(), kind, store, window, now));
        mirrors.insert(Kept {
            mirror: mirror.clone(),
            following: Arc::default(),
            stop: CancellationToken::new(),
        });
        mirror
    });
    mirrors.remove(&older);
    let found = mirrors.find(&Identity::of(&scope));
    assert_eq!(found.map(|mirror| mirror.id), Some(newer.id));
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
