//! Bits flip, pages vanish, files shrink: never other bytes, never a refused opening, never more lost than was hit.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use yurt_cache::store::{LogConfig, LogStore};
use yurt_core::store::{Batch, ErrorKind, Store, StoreExt};

const RECORDS: usize = 2000;
const SEGMENT: u32 = 64 << 10;

/// The same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).expect("a bound fits")).expect("it is below")
    }
}

fn key(number: usize) -> String {
    format!("core.v1.configmaps/default/{number:05}")
}

fn content(number: usize) -> String {
    format!("<the latest value of {number}>").repeat(3 + number % 7)
}

fn open(path: &Path) -> LogStore {
    LogStore::open(
        path,
        LogConfig {
            segment_bytes: SEGMENT,
        },
    )
    .expect("damage refuses no opening")
}

/// Writes all records twice, so that an older value of each might come back, and deletes some.
fn build(path: &Path, batch_size: usize) {
    let store = open(path);
    for round in 0..2 {
        for first in (0..RECORDS).step_by(batch_size) {
            let mut batch = Batch::new();
            for number in first..first + batch_size {
                match round {
                    0 => batch.put(key(number), "<old>"),
                    _ if number % 50 == 7 => batch.delete(key(number)),
                    _ => batch.put(key(number), content(number)),
                };
            }
            store.write(batch).expect("a batch is written");
        }
        store.sync().expect("a sync returns");
    }
}

fn expected(number: usize) -> Option<String> {
    (number % 50 != 7).then(|| content(number))
}

/// Returns how many records are not as they were written; each of them must say so.
fn lost(store: &LogStore, what: &str) -> usize {
    let is_lost = |number: &usize| match store.get(key(*number).as_bytes()) {
        Ok(found) => {
            let found = found.map(|found| String::from_utf8(found.to_vec()).expect("text"));
            assert_eq!(found, expected(*number), "{what}: other bytes for {number}");
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error}");
            true
        }
    };
    (0..RECORDS).filter(is_lost).count()
}

/// Returns a directory in memory, where there is one: a thousand openings sync a thousand times.
fn memory_directory() -> tempfile::TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm");
    in_memory
        .or_else(|_| tempfile::tempdir())
        .expect("a temporary directory")
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).expect("a directory is read");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "segment")
    });
    paths.sort();
    paths
}

#[expect(clippy::disallowed_methods, reason = "the file is damaged on purpose")]
fn overwrite(path: &Path, content: &[u8]) {
    fs::write(path, content).expect("a file is written");
}

fn used(content: &[u8]) -> usize {
    content
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1)
}

fn a_flipped_bit_costs_one_record(batch_size: usize, flips: usize) {
    let directory = memory_directory();
    let path = directory.path();
    build(path, batch_size);
    let files: BTreeMap<_, _> = segments(path)
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).expect("a file is read")))
        .collect();
    let mut random = Random(0x5eed + u64::try_from(batch_size).expect("small"));
    let mut costs = [0; 2];
    for flip in 0..flips {
        let (file, content) = files.iter().nth(random.below(files.len())).expect("a file");
        let (at, bit) = (random.below(used(content)), random.below(8));
        let mut damaged = content.clone();
        damaged[at] ^= 1 << bit;
        overwrite(file, &damaged);
        let what = format!("flip {flip}: bit {bit} of byte {at} of {}", file.display());
        let store = open(path);
        let cost = lost(&store, &what);
        assert!(cost <= 1, "{what} cost {cost}");
        assert!(
            cost == 0 || store.health().damaged == 1,
            "{what}: {:?}",
            store.health()
        );
        costs[cost] += 1;
        drop(store);
        // The clean end marked its sync: as it was before, for the next flip.
        for (file, content) in &files {
            overwrite(file, content);
        }
    }
    assert!(costs[1] > flips / 4, "flips hit values: {costs:?}");
}

#[test]
fn a_flipped_bit_in_a_store_of_batches_costs_one_record() {
    a_flipped_bit_costs_one_record(100, 600);
}

#[test]
fn a_flipped_bit_in_a_store_of_single_puts_costs_one_record() {
    a_flipped_bit_costs_one_record(1, 400);
}

#[test]
fn a_damaged_value_found_late_is_counted_once_and_cured_by_a_put() {
    let directory = memory_directory();
    let path = directory.path();
    build(path, 100);
    let store = open(path);
    let text = content(3);
    for file in segments(path) {
        let mut content = fs::read(&file).unwrap();
        if let Some(at) = content
            .windows(text.len())
            .position(|window| window == text.as_bytes())
        {
            content[at + 5] ^= 1;
            overwrite(&file, &content);
        }
    }
    for _ in 0..3 {
        let error = store.get(key(3).as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert_eq!(store.health().damaged, 1);
    }
    store.put(key(3), content(3)).unwrap();
    assert_eq!(lost(&store, "after a put"), 0);
}

#[test]
fn a_zeroed_page_never_yields_other_bytes() {
    let directory = memory_directory();
    let path = directory.path();
    build(path, 100);
    let mut random = Random(77);
    for trial in 0..60 {
        let files = segments(path);
        let file = &files[random.below(files.len())];
        let content = fs::read(file).unwrap();
        let mut damaged = content.clone();
        let page = random.below(used(&content)) / 4096 * 4096;
        let end = (page + 4096).min(content.len());
        damaged[page..end].fill(0);
        overwrite(file, &damaged);
        let store = open(path);
        assert!(store.health().damaged > 0, "trial {trial}");
        let cost = (0..RECORDS)
            .filter(|number| is_harmed(&store, *number))
            .count();
        assert!(cost <= 60, "trial {trial} cost {cost}");
        drop(store);
        overwrite(file, &content);
    }
}

/// Returns whether a record is not as it was written; what it is then is an older value or none.
fn is_harmed(store: &LogStore, number: usize) -> bool {
    match store.get(key(number).as_bytes()) {
        Ok(found) => {
            let found = found.map(|found| String::from_utf8(found.to_vec()).expect("text"));
            let is_known =
                found.is_none() || found == expected(number) || found.as_deref() == Some("<old>");
            assert!(is_known, "{number}: {found:?}");
            found != expected(number)
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
            true
        }
    }
}

#[test]
fn a_shortened_file_is_reported_and_refuses_nothing() {
    let directory = memory_directory();
    let path = directory.path();
    build(path, 100);
    let mut random = Random(78);
    for trial in 0..40 {
        let files = segments(path);
        let (last, sealed) = files.split_last().unwrap();
        let file = if trial % 4 == 0 {
            last
        } else {
            &sealed[random.below(sealed.len())]
        };
        let content = fs::read(file).unwrap();
        let kept = random.below(used(&content));
        overwrite(file, &content[..kept]);
        let what = format!(
            "trial {trial}: {kept} bytes left of {} in {}",
            content.len(),
            file.display()
        );
        let store = open(path);
        // Nobody can tell a shortened last segment from one that was never written further.
        assert!(store.health().damaged > 0 || file == last, "{what}");
        for number in 0..RECORDS {
            is_harmed(&store, number);
        }
        store.put("new", "value").unwrap();
        drop(store);
        assert_eq!(
            open(path).get(b"new").unwrap().as_deref(),
            Some(&b"value"[..])
        );
        overwrite(file, &content);
    }
}

#[test]
fn foreign_files_are_left_alone() {
    let directory = memory_directory();
    let path = directory.path();
    let garbage: Vec<u8> = (0..9000_u32)
        .map(|number| number.to_le_bytes()[0] ^ 0x5a)
        .collect();
    overwrite(&path.join("0000000500.segment"), &garbage);
    overwrite(&path.join("notes.txt"), b"not ours");
    fs::create_dir(path.join("0000000001.segment")).unwrap();
    let store = open(path);
    store.put("a", "1").unwrap();
    drop(store);
    let store = open(path);
    assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(fs::read(path.join("0000000500.segment")).unwrap(), garbage);
    assert_eq!(fs::read(path.join("notes.txt")).unwrap(), b"not ours");
}
