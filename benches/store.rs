//! The log store against SQLite (WAL, FULL) in the same run: `cargo bench -p benches --bench store`.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use vendor::SqliteStore;
use yurt_cache::store::{LogConfig, LogStore};
use yurt_core::store::{Batch, Store, StoreExt};

const VALUE_LEN: usize = 2048;

/// A 2 KB value that does not compress to nothing and is never the same twice.
fn value(seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut value: Vec<u8> = (0..VALUE_LEN / 8).flat_map(|_| next()).collect();
    value[..16].copy_from_slice(format!("{seed:016}").as_bytes());
    value
}

fn key(number: u64) -> String {
    format!("core.v1.configmaps/default/name-{number:08}")
}

fn batch(numbers: impl Iterator<Item = u64>, round: u64) -> Batch {
    let mut batch = Batch::new();
    for number in numbers {
        batch.put(key(number), value(number ^ (round << 32)));
    }
    batch
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Scrambles a number, for overwrites in no order.
fn scramble(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 8
}

// === Speed ===

/// A store of either kind in a fresh directory.
type Open = dyn Fn(&Path) -> Box<dyn Store>;

/// Returns how long one of `count` durable puts takes.
fn singles(open: &Open, count: u32) -> Duration {
    let directory = tempfile::tempdir_in(place()).expect("a directory");
    let store = open(directory.path());
    let puts: Vec<_> = (0..u64::from(count))
        .map(|number| (key(number), value(number)))
        .collect();
    let start = Instant::now();
    for (key, value) in puts {
        store.put(key, value).expect("a put returns");
    }
    start.elapsed() / count
}

/// Returns how long one of `count` durable batches of 100 takes, over 5,000 keys.
fn batches(open: &Open, count: u32) -> Duration {
    let directory = tempfile::tempdir_in(place()).expect("a directory");
    let store = open(directory.path());
    let numbers = |round: u64| (0..100).map(move |part| (round * 100 + part) % 5000);
    let batches: Vec<_> = (0..u64::from(count))
        .map(|round| batch(numbers(round), round))
        .collect();
    let start = Instant::now();
    for batch in batches {
        store.write(batch).expect("a batch is written");
        store.sync().expect("a sync returns");
    }
    start.elapsed() / count
}

/// Measures both in turns, so that a busy neighbour hits both, and prints the medians.
fn compare(what: &str, per_round: f64, ours: &dyn Fn() -> Duration, theirs: &dyn Fn() -> Duration) {
    let rounds: Vec<_> = (0..7).map(|_| (ours(), theirs())).collect();
    let rate = |duration: Duration| per_round / duration.as_secs_f64();
    let ours = rate(median(rounds.iter().map(|round| round.0).collect()));
    let theirs = rate(median(rounds.iter().map(|round| round.1).collect()));
    println!(
        "{what:26} log {ours:9.0}/s   sqlite {theirs:9.0}/s   ratio {:5.2}",
        ours / theirs
    );
}

fn fill(store: &dyn Store, records: u64) {
    for first in (0..records).step_by(100) {
        store
            .write(batch(first..first + 100, 0))
            .expect("a batch is written");
    }
    store.sync().expect("a sync returns");
}

/// Returns how long a get in no order takes.
fn gets(store: &dyn Store, records: u64) -> Duration {
    let start = Instant::now();
    for number in 0..20_000 {
        let found = store.get(key(scramble(number) % records).as_bytes());
        assert_eq!(
            found.expect("a key is read").map(|value| value.len()),
            Some(VALUE_LEN)
        );
    }
    start.elapsed() / 20_000
}

fn log(path: &Path) -> Box<dyn Store> {
    Box::new(LogStore::open(path, LogConfig::default()).expect("the store opens"))
}

fn sqlite(path: &Path) -> Box<dyn Store> {
    Box::new(SqliteStore::open(path).expect("the database opens"))
}

fn compare_gets() {
    let directories = [0, 1].map(|_| tempfile::tempdir_in(place()).expect("a directory"));
    let (log, sqlite) = (log(directories[0].path()), sqlite(directories[1].path()));
    fill(&*log, 20_000);
    fill(&*sqlite, 20_000);
    compare("gets", 1.0, &|| gets(&*log, 20_000), &|| {
        gets(&*sqlite, 20_000)
    });
}

// === Wear ===

/// Overwrites in batches of 100 and tells what the disk had to take and to hold.
fn wear(keys: u64, overwrites: u64) {
    let directory = tempfile::tempdir_in(place()).expect("a directory");
    let store = LogStore::open(directory.path(), LogConfig::default()).expect("the store opens");
    for first in (0..keys).step_by(100) {
        store
            .write(batch(first..first + 100, 0))
            .expect("a batch is written");
    }
    store.sync().expect("a sync returns");
    let before = store.health();
    let mut most = 0;
    let mut user = 0;
    let start = Instant::now();
    for round in 0..overwrites / 100 {
        let numbers: std::collections::BTreeSet<_> = (0..)
            .map(|part| scramble(round * 1000 + part) % keys)
            .take(100)
            .collect();
        let batch = batch(numbers.into_iter(), round + 1);
        user += batch.operations().len() * (VALUE_LEN + key(0).len());
        store.write(batch).expect("a batch is written");
        if round % 10 == 0 {
            store.sync().expect("a sync returns");
        }
        most = most.max(occupied(directory.path()));
    }
    let (after, took) = (store.health(), start.elapsed());
    let written = (after.written_bytes - before.written_bytes) as f64 / user as f64;
    let bound = 2 * after.live_bytes + 2 * u64::from(LogConfig::default().segment_bytes);
    println!(
        "{overwrites} overwrites of {keys} keys: {written:.3} bytes written per user byte; \
         disk at most {:.1} MB of {:.1} allowed; {:.0} records/s",
        most as f64 / 1e6,
        bound as f64 / 1e6,
        overwrites as f64 / took.as_secs_f64(),
    );
}

fn occupied(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).expect("a directory is read");
    // A segment that is given back while we look is gone.
    entries
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|entry| entry.len())
        .sum()
}

// === Opening ===

const OPENED: u64 = 100_000;

fn opening() {
    let directory = tempfile::tempdir_in(place()).expect("a directory");
    fill(
        &LogStore::open(directory.path(), LogConfig::default()).expect("it opens"),
        OPENED,
    );
    // In a process of its own: memory that was used before would be used again and not be seen.
    let program = std::env::current_exe().expect("a program knows itself");
    let status = std::process::Command::new(program)
        .arg("measure")
        .arg(directory.path())
        .status();
    assert!(status.expect("a child runs").success());
}

fn measure_opening(path: &Path) {
    let open = || LogStore::open(path, LogConfig::default()).expect("it opens");
    let before = resident();
    let store = open();
    let grown = resident().saturating_sub(before);
    assert_eq!(store.health().records, OPENED);
    drop(store);
    let times = (0..7).map(|_| {
        let start = Instant::now();
        let store = open();
        let took = start.elapsed();
        drop(store);
        took
    });
    let took = median(times.collect());
    let keys = key(0).len() as u64 * OPENED;
    println!(
        "opening {OPENED} records: {:.3} s; memory {} bytes per record beside its key",
        took.as_secs_f64(),
        grown.saturating_sub(keys) / OPENED,
    );
}

/// Returns the resident memory of this process.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.expect("Linux tells in kB") * 1024
}

/// Returns where the stores are put: `STORE_BENCH_DIR`, else the temporary directory.
fn place() -> std::path::PathBuf {
    std::env::var_os("STORE_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into)
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'));
    let only = arguments.next();
    if only.as_deref() == Some("measure") {
        return measure_opening(Path::new(&arguments.next().expect("a path follows")));
    }
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    if wanted("open") {
        opening();
    }
    if wanted("singles") {
        let (ours, theirs) = (|| singles(&log, 2000), || singles(&sqlite, 2000));
        compare("durable single puts", 1.0, &ours, &theirs);
    }
    if wanted("batches") {
        let (ours, theirs) = (|| batches(&log, 200), || batches(&sqlite, 200));
        compare("records in batches of 100", 100.0, &ours, &theirs);
    }
    if wanted("gets") {
        compare_gets();
    }
    if wanted("wear") {
        for keys in [2_000, 10_000, 100_000] {
            wear(keys, 1_000_000);
        }
    }
}
