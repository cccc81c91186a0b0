//! Whatever is done to a log store, reopened now and then, it answers as the reference does.

use std::ops::ControlFlow;

use proptest::collection::vec;
use proptest::prelude::*;
use yurt_cache::store::{LogConfig, LogStore, MemoryStore};
use yurt_core::store::{Batch, Store};

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Change>),
    Sync,
    Reopen,
    List {
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
    },
}

#[derive(Clone, Debug)]
enum Change {
    Put(Vec<u8>, u8, usize),
    Delete(Vec<u8>),
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    vec(
        prop_oneof![Just(b'a'), Just(b'b'), Just(0), Just(0xff)],
        1..4,
    )
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (keys(), any::<u8>(), 0_usize..600).prop_map(|(key, byte, len)| Change::Put(key, byte, len)),
        1 => keys().prop_map(Change::Delete),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => vec(changes(), 0..6).prop_map(Step::Write),
        2 => Just(Step::Sync),
        1 => Just(Step::Reopen),
        2 => (vec(prop_oneof![Just(b'a'), Just(0xff)], 0..2), proptest::option::of(keys()))
            .prop_map(|(prefix, after)| Step::List { prefix, after }),
    ]
}

fn batch(changes: &[Change]) -> Batch {
    let mut batch = Batch::new();
    for change in changes {
        match change {
            Change::Put(key, byte, len) => batch.put(key.clone(), vec![*byte; *len]),
            Change::Delete(key) => batch.delete(key.clone()),
        };
    }
    batch
}

fn listing(store: &dyn Store, prefix: &[u8], after: Option<&[u8]>) -> Vec<(Vec<u8>, usize)> {
    let mut found = Vec::new();
    let visit = &mut |key: &[u8], len| {
        found.push((key.to_vec(), len));
        ControlFlow::Continue(())
    };
    store.keys(prefix, after, visit).expect("keys are visited");
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_log_store_answers_as_the_reference(steps in vec(steps(), 1..150)) {
        let directory = tempfile::tempdir().unwrap();
        let open = || LogStore::open(directory.path(), LogConfig { segment_bytes: 4096 }).unwrap();
        let model = MemoryStore::new();
        let mut store = open();
        for step in &steps {
            match step {
                Step::Write(changes) => {
                    store.write(batch(changes)).unwrap();
                    model.write(batch(changes)).unwrap();
                }
                Step::Sync => store.sync().unwrap(),
                Step::Reopen => {
                    drop(store);
                    store = open();
                }
                Step::List { prefix, after } => prop_assert_eq!(
                    listing(&store, prefix, after.as_deref()),
                    listing(&model, prefix, after.as_deref())
                ),
            }
        }
        let keys = listing(&model, b"", None);
        prop_assert_eq!(&listing(&store, b"", None), &keys);
        for (key, _) in keys {
            prop_assert_eq!(store.get(&key).unwrap(), model.get(&key).unwrap());
        }
        let (ours, theirs) = (store.health(), model.health());
        prop_assert_eq!((ours.records, ours.live_bytes, ours.damaged), (theirs.records, theirs.live_bytes, 0));
    }
}
