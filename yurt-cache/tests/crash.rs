//! A process that writes is killed at random points, 200 times over one store: what it was told is safe is there.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use yurt_cache::store::{LogConfig, LogStore};
use yurt_core::store::{Batch, Operation, Store};

const ROUNDS: u64 = 200;
const STORE: &str = "YURT_CRASH_STORE";
const TEST: &str = "what_a_killed_process_was_promised_is_there";

fn open(path: &Path) -> LogStore {
    LogStore::open(
        path,
        LogConfig {
            segment_bytes: 16 << 10,
        },
    )
    .expect("the store opens")
}

/// Scrambles a number: the same everywhere.
fn scramble(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// Returns the batch with this number, the same in parent and child.
fn batch(number: u64) -> Batch {
    let mut batch = Batch::new();
    for part in 0..scramble(number) % 8 {
        let random = scramble(number * 8 + part);
        let key = format!("key/{}", random % 40);
        if random.is_multiple_of(5) {
            batch.delete(key);
        } else {
            let len = usize::try_from(random % 900).expect("small");
            batch.put(key, format!("{number}.{part}/").repeat(len / 8));
        }
    }
    batch.put("number", number.to_string());
    batch
}

fn number_in(store: &LogStore) -> u64 {
    let text = store.get(b"number").expect("a key is read");
    text.map_or(0, |text| {
        String::from_utf8(text.to_vec())
            .expect("text")
            .parse()
            .expect("number")
    })
}

/// Writes batch after batch until it is killed, and says after each sync what is safe.
fn write_until_killed(path: &Path) -> ! {
    let store = open(path);
    let mut out = std::io::stdout();
    for number in number_in(&store) + 1.. {
        store.write(batch(number)).expect("a batch is written");
        if scramble(number).is_multiple_of(3) {
            store.sync().expect("a sync returns");
            writeln!(out, "safe {number}").expect("the parent listens");
        }
    }
    unreachable!("there is always a next number");
}

/// The killed process cannot outlive the test.
struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a writer and kills it some time after the `count`th promise; returns the last promise seen.
fn run_and_kill(path: &Path, count: u64) -> u64 {
    let child = Command::new(env::current_exe().expect("a test knows its program"))
        .args(["--exact", TEST, "--nocapture"])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the writer starts");
    let mut writer = Writer(child);
    let out = writer
        .0
        .stdout
        .take()
        .expect("the writer's output is a pipe");
    let mut last = 0;
    let mut heard = 0;
    let mut lines = BufReader::new(out).lines();
    while heard < count {
        let line = lines
            .next()
            .expect("the writer goes on")
            .expect("its output is text");
        // The harness may have begun the line.
        if let Some((_, number)) = line.split_once("safe ") {
            last = number.parse().expect("a number");
            heard += 1;
        }
    }
    writer.0.kill().expect("the writer is killed");
    writer.0.wait().expect("the writer ends");
    // What it said before the kill took effect was promised, too.
    for line in lines.map_while(Result::ok) {
        if let Some((_, number)) = line.split_once("safe ") {
            // The last line may be cut off.
            last = number.parse().map_or(last, |number: u64| number.max(last));
        }
    }
    last
}

fn apply(content: &mut BTreeMap<Vec<u8>, Vec<u8>>, number: u64) {
    for operation in batch(number).operations() {
        match operation {
            Operation::Put(key, value) => drop(content.insert(key.to_vec(), value.to_vec())),
            Operation::Delete(key) => drop(content.remove(&key[..])),
        }
    }
}

fn content_of(store: &LogStore) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut keys = Vec::new();
    let visit = &mut |key: &[u8], _| {
        keys.push(key.to_vec());
        ControlFlow::Continue(())
    };
    store.keys(b"", None, visit).expect("keys are visited");
    let value = |key: Vec<u8>| {
        let value = store
            .get(&key)
            .expect("a key is read")
            .expect("a visited key is there");
        (key, value.to_vec())
    };
    keys.into_iter().map(value).collect()
}

#[test]
fn what_a_killed_process_was_promised_is_there() {
    if let Some(path) = env::var_os(STORE) {
        write_until_killed(Path::new(&path));
    }
    let directory = tempfile::tempdir().unwrap();
    let mut expected = BTreeMap::new();
    let mut applied = 0;
    for round in 0..ROUNDS {
        let promised = run_and_kill(directory.path(), scramble(round) % 12);
        let store = open(directory.path());
        let number = number_in(&store);
        assert!(
            number >= promised,
            "round {round}: {promised} was promised, {number} is there"
        );
        for next in applied + 1..=number {
            apply(&mut expected, next);
        }
        applied = number;
        assert_eq!(
            content_of(&store),
            expected,
            "round {round}: not as after batch {number}"
        );
        assert_eq!(
            store.health().damaged,
            0,
            "round {round}: a crash is no damage"
        );
    }
    assert!(applied > ROUNDS, "the writers wrote");
}
