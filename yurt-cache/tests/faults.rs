//! The fault-injecting wrappers, over the reference store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use yurt_cache::store::MemoryStore;
use yurt_core::store::{Batch, ErrorKind, Result, Store};
use yurt_core::testing::fault::{
    Call, DiskFull, FailNth, Fault, FaultyStore, ReadOnly, SlowStore, TearNth,
};

fn put(store: &dyn Store, key: &'static str) -> Result<(), ErrorKind> {
    let mut batch = Batch::new();
    batch.put(key, "value").put(key, "later value");
    store.write(batch).map_err(|error| error.kind())
}

fn has(store: &dyn Store, key: &str) -> bool {
    store
        .get(key.as_bytes())
        .expect("the store reads")
        .is_some()
}

fn faulty<F: Fault>(fault: F) -> FaultyStore<MemoryStore, F> {
    FaultyStore::new(MemoryStore::new(), fault)
}

mod without_faults {
    use super::*;

    yurt_core::store_conformance!(|_: &std::path::Path| faulty(FailNth(0)));
}

mod slow {
    use super::*;

    yurt_core::store_conformance!(|_: &std::path::Path| SlowStore::new(MemoryStore::new(), drop));
}

#[test]
fn only_the_nth_write_fails() {
    let store = faulty(FailNth(2));
    assert_eq!(put(&store, "a"), Ok(()));
    assert_eq!(put(&store, "b"), Err(ErrorKind::Other));
    assert_eq!(put(&store, "c"), Ok(()));
    assert_eq!(
        [has(&store, "a"), has(&store, "b"), has(&store, "c")],
        [true, false, true]
    );
}

#[test]
fn a_torn_write_fails_and_is_there_wholly_or_not_at_all() {
    let mut outcomes = [0, 0];
    for seed in 0..100 {
        let store = faulty(TearNth { nth: 1, seed });
        assert_eq!(put(&store, "a"), Err(ErrorKind::Other), "seed {seed}");
        outcomes[usize::from(has(&store, "a"))] += 1;
        assert_eq!(put(&store, "b"), Ok(()));
    }
    assert!(outcomes.iter().all(|count| *count > 20), "{outcomes:?}");
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let store = faulty(DiskFull::after(40));
    assert_eq!(put(&store, "a"), Ok(()));
    assert_eq!(put(&store, "b"), Ok(()));
    assert_eq!(put(&store, "c"), Err(ErrorKind::Full));
    assert_eq!([has(&store, "a"), has(&store, "c")], [true, false]);
    store.fault().free(40);
    assert_eq!(put(&store, "c"), Ok(()));
}

#[test]
fn a_read_only_store_refuses_every_write_and_reads_on() {
    let inner = Arc::new(MemoryStore::new());
    put(&inner, "a").unwrap();
    let store = FaultyStore::new(Arc::clone(&inner), ReadOnly);
    assert_eq!(put(&store, "b"), Err(ErrorKind::ReadOnly));
    assert!(has(&store, "a"));
    assert_eq!(store.health(), inner.health());
}

#[test]
fn a_slow_store_waits_before_each_call() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let store = SlowStore::new(MemoryStore::new(), move |call| {
        assert_ne!(call, Call::Keys);
        count.fetch_add(1, Ordering::SeqCst);
    });
    put(&store, "a").unwrap();
    store.sync().unwrap();
    assert!(has(&store, "a"));
    let _ = store.health();
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}
