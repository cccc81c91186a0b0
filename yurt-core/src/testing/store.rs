//! The conformance suite of [`Store`]: run it by [`store_conformance!`](crate::store_conformance) and
//! [`durable_store_conformance!`](crate::durable_store_conformance).
//!
//! Each function is a clause of the contract and panics where it is not kept.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;

use crate::store::{Batch, ErrorKind, MAX_KEY_LEN, MAX_VALUE_LEN, Store, StoreExt};

/// Makes a test of each clause that every store keeps; `open` makes a store in an empty directory.
///
/// ```
/// # use yurt_core::store::*;
/// # fn open(_: &std::path::Path) -> std::sync::Arc<dyn Store> { unimplemented!() }
/// yurt_core::store_conformance!(open);
/// ```
#[macro_export]
macro_rules! store_conformance {
    ($open:expr) => {
        $crate::store_clauses! { $open;
            a_get_returns_what_the_latest_write_put,
            a_batch_is_seen_as_a_whole_or_not_at_all,
            keys_of_a_prefix_are_visited_in_order,
            a_refused_write_leaves_everything_as_it_was,
            what_is_over_the_limits_is_refused,
            any_bytes_are_a_key_and_a_value,
            calls_from_many_threads_behave_as_one_after_another,
        }
    };
}

/// Makes a test of each clause that a store on a disk keeps; `open` opens the store in a directory.
#[macro_export]
macro_rules! durable_store_conformance {
    ($open:expr) => {
        $crate::store_conformance!($open);
        $crate::store_clauses! { $open;
            what_was_synced_is_there_after_a_crash,
            what_was_not_synced_is_there_batch_by_batch,
            damage_never_yields_other_bytes,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! store_clauses {
    ($open:expr; $($clause:ident,)*) => {
        $(
            #[test]
            fn $clause() {
                $crate::testing::store::in_a_directory(|path| {
                    $crate::testing::store::$clause(path, &$open);
                });
            }
        )*
    };
}

/// Runs a clause in a directory that goes away with it.
pub fn in_a_directory(clause: impl FnOnce(&Path)) {
    let directory = tempfile::tempdir().expect("a test has a temporary directory");
    clause(directory.path());
}

// === Clauses of every store ===

/// 1. A get returns the bytes that the latest write put under the key, and nothing after a delete.
pub fn a_get_returns_what_the_latest_write_put<S: Store>(path: &Path, open: impl Fn(&Path) -> S) {
    let store = open(path);
    assert_eq!(value(&store, "a"), None, "before a put");
    put(&store, "a", "1");
    put(&store, "ab", "other");
    assert_eq!(value(&store, "a"), bytes("1"));
    put(&store, "a", "a longer value");
    assert_eq!(value(&store, "a"), bytes("a longer value"));
    put(&store, "a", "2");
    assert_eq!(value(&store, "a"), bytes("2"));
    delete(&store, "a");
    assert_eq!(value(&store, "a"), None, "after a delete");
    delete(&store, "a");
    delete(&store, "never there");
    assert_eq!(value(&store, "ab"), bytes("other"), "a neighbour");
    put(&store, "a", "3");
    assert_eq!(value(&store, "a"), bytes("3"), "after a delete and a put");
}

/// 2. A batch is seen as a whole or not at all; of two operations on one key the later one counts.
pub fn a_batch_is_seen_as_a_whole_or_not_at_all<S: Store>(path: &Path, open: impl Fn(&Path) -> S) {
    let store = open(path);
    let mut batch = Batch::new();
    batch
        .put("a", "1")
        .put("b", "1")
        .put("a", "2")
        .put("gone", "1")
        .delete("gone");
    batch.delete("c").put("c", "3");
    store.write(batch).expect("a batch is written");
    assert_eq!(
        listing(&store, "", None),
        listed(&[("a", 1), ("b", 1), ("c", 1)])
    );
    assert_eq!(value(&store, "a"), bytes("2"));
    assert_eq!(value(&store, "gone"), None);
    assert_eq!(value(&store, "c"), bytes("3"));
    store
        .write(Batch::new())
        .expect("a batch of nothing is written");
    a_reader_sees_no_half(&store);
}

/// A writer changes two lengths together; whoever lists sees them equal.
fn a_reader_sees_no_half(store: &impl Store) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..200 {
                let mut batch = Batch::new();
                let text = "x".repeat(round % 7);
                batch.put("left", text.clone()).put("right", text);
                store.write(batch).expect("a batch is written");
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let one = listing(store, "", None);
            let len = |key: &str| {
                one.iter()
                    .find(|(found, _)| found == key.as_bytes())
                    .map(|(_, len)| *len)
            };
            assert_eq!(len("left"), len("right"), "half a batch was seen");
        }
    });
}

/// 3. Keys of a prefix are visited in ascending byte order, each once, with the length of its value.
pub fn keys_of_a_prefix_are_visited_in_order<S: Store>(path: &Path, open: impl Fn(&Path) -> S) {
    let store = open(path);
    let keys: [&[u8]; 8] = [
        b"a",
        b"a/1",
        b"a/10",
        b"a/2",
        b"a/\xff",
        b"a0",
        b"b",
        b"\xff\xff",
    ];
    for key in keys.iter().rev() {
        put(&store, key, "x".repeat(key.len()));
    }
    put(&store, "a/2", "longer");
    delete(&store, "a0");
    for (prefix, after, expected) in [
        (
            &b""[..],
            None,
            vec![
                (&b"a"[..], 1),
                (b"a/1", 3),
                (b"a/10", 4),
                (b"a/2", 6),
                (b"a/\xff", 3),
                (b"b", 1),
                (b"\xff\xff", 2),
            ],
        ),
        (
            b"a/",
            None,
            vec![(b"a/1", 3), (b"a/10", 4), (b"a/2", 6), (b"a/\xff", 3)],
        ),
        (b"a/", Some(&b"a/10"[..]), vec![(b"a/2", 6), (b"a/\xff", 3)]),
        (b"a/", Some(b"a/11"), vec![(b"a/2", 6), (b"a/\xff", 3)]),
        (
            b"a/",
            Some(b"A"),
            vec![(b"a/1", 3), (b"a/10", 4), (b"a/2", 6), (b"a/\xff", 3)],
        ),
        (b"a/", Some(b"b"), vec![]),
        (b"c", None, vec![]),
        (b"\xff", None, vec![(b"\xff\xff", 2)]),
    ] {
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(key, len)| (key.to_vec(), len))
            .collect();
        let what = format!(
            "{} after {:?}",
            prefix.escape_ascii(),
            after.map(<[u8]>::escape_ascii).map(|text| text.to_string())
        );
        assert_eq!(listing(&store, prefix, after), expected, "{what}");
    }
    let mut visits = 0;
    let stop = &mut |_: &[u8], _| {
        visits += 1;
        if visits == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    store.keys(b"a", None, stop).expect("keys are visited");
    assert_eq!(visits, 2, "a visit ends when it is told to");
}

/// 4. A write that was refused leaves everything as it was, and reads go on.
pub fn a_refused_write_leaves_everything_as_it_was<S: Store>(
    path: &Path,
    open: impl Fn(&Path) -> S,
) {
    let store = open(path);
    put(&store, "a", "1");
    for (name, key, value_len) in [
        ("an empty key", 0, 1),
        ("a long key", MAX_KEY_LEN + 1, 1),
        ("a long value", 1, MAX_VALUE_LEN + 1),
    ] {
        let mut batch = Batch::new();
        batch
            .put("a", "2")
            .put("b", "2")
            .delete("a")
            .put(vec![b'k'; key], vec![0; value_len]);
        store.write(batch).expect_err(name);
        assert_eq!(value(&store, "a"), bytes("1"), "after {name}");
        assert_eq!(
            listing(&store, "", None),
            listed(&[("a", 1)]),
            "after {name}"
        );
    }
    put(&store, "b", "3");
    assert_eq!(
        value(&store, "b"),
        bytes("3"),
        "a write after a refused one"
    );
}

/// 5. A key or a value over the limits, or an empty key, is refused as too large or invalid; one at the limits is not.
pub fn what_is_over_the_limits_is_refused<S: Store>(path: &Path, open: impl Fn(&Path) -> S) {
    let store = open(path);
    let refusal = |key_len: usize, value_len: usize| {
        let mut batch = Batch::new();
        batch.put(vec![b'k'; key_len], vec![b'v'; value_len]);
        store.write(batch).map_err(|error| error.kind())
    };
    assert_eq!(refusal(MAX_KEY_LEN + 1, 1), Err(ErrorKind::TooLarge));
    assert_eq!(refusal(1, MAX_VALUE_LEN + 1), Err(ErrorKind::TooLarge));
    assert_eq!(refusal(0, 1), Err(ErrorKind::Other));
    let mut batch = Batch::new();
    batch.delete(vec![b'k'; MAX_KEY_LEN + 1]);
    assert_eq!(
        store.write(batch).map_err(|error| error.kind()),
        Err(ErrorKind::TooLarge)
    );
    assert_eq!(listing(&store, "", None), [], "nothing was written");
    assert_eq!(refusal(MAX_KEY_LEN, MAX_VALUE_LEN), Ok(()));
    let key = vec![b'k'; MAX_KEY_LEN];
    assert_eq!(
        value(&store, &key).map(|value| value.len()),
        Some(MAX_VALUE_LEN)
    );
}

/// 6. Any bytes are a key, and any bytes, none included, are a value.
pub fn any_bytes_are_a_key_and_a_value<S: Store>(path: &Path, open: impl Fn(&Path) -> S) {
    let store = open(path);
    let every: Vec<u8> = (0..=255).collect();
    for byte in 0..=255 {
        put(&store, [byte], [byte, 0, byte]);
    }
    put(&store, every.clone(), every.clone());
    put(&store, "empty", "");
    put(&store, [0, 0], "zeros");
    for byte in 0..=255 {
        assert_eq!(value(&store, [byte]).as_deref(), Some(&[byte, 0, byte][..]));
    }
    assert_eq!(value(&store, &every).as_deref(), Some(&every[..]));
    assert_eq!(
        value(&store, "empty"),
        bytes(""),
        "an empty value is not an absent one"
    );
    assert_eq!(value(&store, [0, 0]), bytes("zeros"));
    assert_eq!(listing(&store, "empty", None), listed(&[("empty", 0)]));
}

/// 7. Calls from many threads behave as if made one after another.
pub fn calls_from_many_threads_behave_as_one_after_another<S: Store>(
    path: &Path,
    open: impl Fn(&Path) -> S,
) {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 50;
    let store = open(path);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = &store;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    // What a thread wrote it reads, whatever the others do.
                    let (own, text) = (format!("own/{writer}"), format!("{round}"));
                    let mut batch = Batch::new();
                    batch.put(own.clone(), text.clone());
                    batch.put("shared/a", format!("{writer}.{round}"));
                    batch.put("shared/b", format!("{writer}.{round}"));
                    store.write(batch).expect("a batch is written");
                    assert_eq!(value(store, &own), bytes(&text));
                    if round % 10 == 0 {
                        store.sync().expect("a sync returns");
                    }
                    let seen = value(store, "shared/a").expect("a shared key is there");
                    assert!(seen.contains(&b'.'), "a whole value");
                }
            });
        }
    });
    assert_eq!(
        value(&store, "shared/a"),
        value(&store, "shared/b"),
        "one batch was the last"
    );
    let last = format!("{}", ROUNDS - 1);
    for writer in 0..WRITERS {
        assert_eq!(value(&store, format!("own/{writer}")), bytes(&last));
    }
}

// === Clauses of a store on a disk ===

/// 8. What was written before a sync that returned is there after a crash.
pub fn what_was_synced_is_there_after_a_crash<S: Store>(path: &Path, open: impl Fn(&Path) -> S) {
    let home = path.join("0");
    fs::create_dir(&home).expect("a directory is made");
    let mut store = open(&home);
    for round in 0..5 {
        for number in 0..20 {
            put(&store, format!("key/{number}"), format!("{round}.{number}"));
        }
        delete(&store, "key/7");
        store.sync().expect("a sync returns");
        let copy = path.join(format!("{}", round + 1));
        crash(store, &path.join(format!("{round}")), &copy);
        store = open(&copy);
        for number in (0..20).filter(|number| *number != 7) {
            let expected = format!("{round}.{number}");
            assert_eq!(value(&store, format!("key/{number}")), bytes(&expected));
        }
        assert_eq!(value(&store, "key/7"), None, "a synced delete");
        assert_eq!(listing(&store, "", None).len(), 19);
        assert_eq!(store.health().damaged, 0, "a crash is no damage");
    }
    store.put("key/7", "put").expect("a put returns");
    drop(store);
    let store = open(&path.join("5"));
    assert_eq!(value(&store, "key/7"), bytes("put"), "after a clean end");
}

/// 9. What was written and not synced is, after a crash, there batch by batch wholly or not at all.
pub fn what_was_not_synced_is_there_batch_by_batch<S: Store>(
    path: &Path,
    open: impl Fn(&Path) -> S,
) {
    let (home, copy) = (path.join("0"), path.join("1"));
    fs::create_dir(&home).expect("a directory is made");
    let store = open(&home);
    store.put("before", "the sync").expect("a put returns");
    for round in 0..30 {
        let mut batch = Batch::new();
        for number in 0..10 {
            batch.put(format!("key/{number}"), format!("{round}"));
        }
        batch.put(format!("round/{round:02}"), "");
        store.write(batch).expect("a batch is written");
    }
    crash(store, &home, &copy);
    let store = open(&copy);
    assert_eq!(value(&store, "before"), bytes("the sync"));
    let rounds = listing(&store, "round/", None).len();
    let last = rounds
        .checked_sub(1)
        .map(|last| Bytes::from(format!("{last}")));
    for number in 0..10 {
        assert_eq!(
            value(&store, format!("key/{number}")),
            last,
            "key {number} of {rounds} rounds"
        );
    }
}

/// 10. Damage never yields other bytes than were written, never refuses the opening, and is reported.
pub fn damage_never_yields_other_bytes<S: Store>(path: &Path, open: impl Fn(&Path) -> S) {
    const RECORDS: usize = 10;
    let key = |number: usize| format!("key/{number}");
    let content = |number: usize| format!("<value {number}>").repeat(40);
    let home = path.join("0");
    fs::create_dir(&home).expect("a directory is made");
    let store = open(&home);
    for number in 0..RECORDS {
        store
            .put(key(number), content(number))
            .expect("a put returns");
    }
    drop(store);
    for victim in 0..RECORDS {
        let copy = path.join(format!("{}", victim + 1));
        copy_directory(&home, &copy);
        let is_aimed = flip_a_bit_of(&copy, content(victim).as_bytes()) > 0;
        if !is_aimed {
            flip_a_bit_anywhere(&copy, victim, RECORDS);
        }
        let store = open(&copy);
        for number in 0..RECORDS {
            let is_lost = match store.get(key(number).as_bytes()) {
                Ok(Some(found)) => {
                    assert_eq!(found, content(number), "other bytes");
                    false
                }
                Ok(None) => true,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
                    true
                }
            };
            let may_be_lost = number == victim || !is_aimed;
            assert!(may_be_lost || !is_lost, "damage of {victim} cost {number}");
            let damaged = store.health().damaged;
            assert!(
                !is_lost || damaged > 0,
                "the loss of {number} is not reported"
            );
        }
        store
            .put(key(victim), "anew")
            .expect("a put over damage returns");
        assert_eq!(value(&store, key(victim)), bytes("anew"));
    }
}

// === Means ===

/// Ends a store as a killed process does: what it left in its files goes on in `copy`.
fn crash<S: Store>(store: S, home: &Path, copy: &Path) {
    copy_directory(home, copy);
    drop(store);
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory is made");
    for entry in fs::read_dir(from).expect("a directory is read") {
        let entry = entry.expect("a directory is read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("an entry has a type").is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file is copied");
        }
    }
}

/// Flips a bit in the middle of each place where `text` stands; returns how many.
fn flip_a_bit_of(directory: &Path, text: &[u8]) -> usize {
    let mut hits = 0;
    for path in files(directory) {
        let mut content = fs::read(&path).expect("a file is read");
        let places: Vec<_> = places(&content, text).collect();
        for at in &places {
            content[at + text.len() / 2] ^= 0x10;
        }
        if !places.is_empty() {
            overwrite(&path, content);
        }
        hits += places.len();
    }
    hits
}

/// Flips a bit of each file, in the `part`th of `parts`: for stores that do not keep values as they are.
fn flip_a_bit_anywhere(directory: &Path, part: usize, parts: usize) {
    for path in files(directory) {
        let mut content = fs::read(&path).expect("a file is read");
        let at = content.len() * part / parts;
        if let Some(byte) = content.get_mut(at) {
            *byte ^= 0x10;
            overwrite(&path, content);
        }
    }
}

fn places<'a>(content: &'a [u8], text: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let candidates = content
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == text[0]);
    candidates
        .map(|(at, _)| at)
        .filter(|at| content[*at..].starts_with(text))
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory is read") {
        let path = entry.expect("a directory is read").path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[expect(clippy::disallowed_methods, reason = "the file is damaged on purpose")]
fn overwrite(path: &Path, content: Vec<u8>) {
    fs::write(path, content).expect("a file is written");
}

fn put(store: &impl Store, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
    let mut batch = Batch::new();
    batch.put(key.as_ref().to_vec(), value.as_ref().to_vec());
    store.write(batch).expect("a put is written");
}

fn delete(store: &impl Store, key: &str) {
    let mut batch = Batch::new();
    batch.delete(key.to_owned());
    store.write(batch).expect("a delete is written");
}

fn value(store: &impl Store, key: impl AsRef<[u8]>) -> Option<Bytes> {
    store.get(key.as_ref()).expect("a key is read")
}

fn bytes(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

fn listing(
    store: &impl Store,
    prefix: impl AsRef<[u8]>,
    after: Option<&[u8]>,
) -> Vec<(Vec<u8>, usize)> {
    let mut found = Vec::new();
    let visit = &mut |key: &[u8], len| {
        found.push((key.to_vec(), len));
        ControlFlow::Continue(())
    };
    store
        .keys(prefix.as_ref(), after, visit)
        .expect("keys are visited");
    found
}

fn listed(keys: &[(&str, usize)]) -> Vec<(Vec<u8>, usize)> {
    keys.iter()
        .map(|(key, len)| (key.as_bytes().to_vec(), *len))
        .collect()
}
