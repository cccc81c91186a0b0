//! The power is cut at every kind of moment; what is found afterwards is what was promised.

use std::collections::BTreeMap;

use yurt_core::store::{Batch, Store};

use super::disk::recorded::{Cut, Faults, Note, RecordedDisk, Step, files_after_cut};
use super::{LogConfig, LogStore};

/// What a store holds: the model.
type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// A generator of random numbers, the same for the same seed on every machine.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(bound).unwrap()).unwrap()
    }
}

const KEYS: usize = 24;

/// What happened to a disk, and what the store held after each batch.
struct History {
    steps: Vec<Step>,
    contents: Vec<Content>,
}

fn open(disk: &RecordedDisk) -> LogStore {
    LogStore::open_on(
        disk.handle(),
        &LogConfig {
            segment_bytes: 4096,
        },
    )
    .unwrap()
}

/// Writes random batches over `disk`, syncing now and then, and sometimes failing to.
fn live(disk: &RecordedDisk, random: &mut Random, batches: usize, failing: bool) -> History {
    let mut store = open(disk);
    let mut content = content_of(&store);
    let mut contents = vec![content.clone()];
    disk.note(Note::Promised(0));
    for number in 1..=batches {
        let batch = random_batch(random, &mut content);
        contents.push(content.clone());
        disk.note(Note::Begun(number));
        let fails_syncs = failing && random.below(12) == 0;
        disk.set_faults(Faults {
            fails_syncs,
            ..Faults::default()
        });
        let mut is_written = store.write(batch.clone()).is_ok();
        disk.set_faults(Faults::default());
        if !is_written {
            is_written = store.write(batch).is_ok();
        }
        assert!(is_written, "a second attempt on a good disk");
        if random.below(5) == 0 {
            let fails_syncs = failing && random.below(4) == 0;
            disk.set_faults(Faults {
                fails_syncs,
                ..Faults::default()
            });
            if store.sync().is_ok() {
                disk.note(Note::Promised(number));
            }
            disk.set_faults(Faults::default());
        }
        if random.below(12) == 0 && !store.shared.is_suspect() {
            // Killed: it syncs nothing any more, and its successor finds what it wrote. (After a failed
            // sync the successor would be deceived: the system shows it pages that the disk never got.)
            std::mem::forget(store);
            store = open(disk);
        }
        assert_eq!(content_of(&store), content, "what was written is seen");
    }
    History {
        steps: disk.steps(),
        contents,
    }
}

fn random_batch(random: &mut Random, content: &mut Content) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..=random.below(6) {
        let key = format!("key/{}", random.below(KEYS)).into_bytes();
        if random.below(4) == 0 {
            content.remove(&key);
            batch.delete(key);
        } else {
            let value = vec![u8::try_from(random.below(256)).unwrap(); random.below(700)];
            content.insert(key.clone(), value.clone());
            batch.put(key, value);
        }
    }
    batch
}

fn content_of(store: &LogStore) -> Content {
    let mut keys = Vec::new();
    store
        .keys(b"", None, &mut |key, len| {
            keys.push((key.to_vec(), len));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let mut content = Content::new();
    for (key, len) in keys {
        let value = store.get(&key).unwrap().expect("a visited key has a value");
        assert_eq!(value.len(), len);
        content.insert(key, value.to_vec());
    }
    content
}

/// Returns which states the contract allows after a cut within step `at`.
fn allowed(history: &History, at: usize) -> std::ops::RangeInclusive<usize> {
    let notes = || {
        history.steps[..at].iter().filter_map(|step| match step {
            Step::Note(note) => Some(*note),
            _ => None,
        })
    };
    let promised = notes().filter_map(|note| match note {
        Note::Promised(number) => Some(number),
        Note::Begun(_) => None,
    });
    let begun = notes().filter_map(|note| match note {
        Note::Begun(number) => Some(number),
        Note::Promised(_) => None,
    });
    promised.max().unwrap_or(0)..=begun.max().unwrap_or(0)
}

const CUTS: [Cut; 4] = [Cut::Keeps, Cut::Drops, Cut::Stops, Cut::Scatters];

/// Cuts the power somewhere in a history and checks what is there.
fn cut_and_check(history: &History, random: &mut Random, what: &str) -> RecordedDisk {
    let first = history
        .steps
        .iter()
        .position(|step| matches!(step, Step::Note(_)))
        .unwrap();
    let at = first + random.below(history.steps.len() - first);
    let cut = CUTS[random.below(CUTS.len())];
    let files = files_after_cut(&history.steps, at, cut, &mut |bound| random.below(bound));
    let disk = RecordedDisk::with_files(files);
    let store = open(&disk);
    let found = content_of(&store);
    let states = allowed(history, at);
    let is_allowed = history.contents[states.clone()].contains(&found);
    assert!(
        is_allowed,
        "{what}, {cut:?} at step {at} of states {states:?}: {:?}",
        sizes(&found)
    );
    disk
}

fn sizes(content: &Content) -> Vec<(String, usize)> {
    let size = |(key, value): (&Vec<u8>, &Vec<u8>)| {
        (String::from_utf8_lossy(key).into_owned(), value.len())
    };
    content.iter().map(size).collect()
}

/// Runs lives with cuts: each ends in a cut, after which the store lives on and is cut again.
fn lives_with_cuts(seeds: std::ops::Range<u64>, cuts: usize, failing: bool) {
    for seed in seeds {
        let mut random = Random(seed);
        let disk = RecordedDisk::default();
        let first = live(&disk, &mut random, 60, failing);
        for number in 0..cuts {
            let what = format!("seed {seed}, cut {number}");
            let disk = cut_and_check(&first, &mut random, &what);
            let second = live(&disk, &mut random, 12, failing);
            let _ = cut_and_check(&second, &mut random, &format!("{what}, second life"));
        }
    }
}

#[test]
fn a_power_cut_leaves_what_was_promised_and_no_half_batches() {
    lives_with_cuts(0..30, 25, false);
}

#[test]
fn a_power_cut_after_failed_syncs_leaves_what_was_promised() {
    lives_with_cuts(1000..1030, 25, true);
}

#[test]
fn a_crash_of_the_process_loses_nothing() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let disk = RecordedDisk::default();
        let history = live(&disk, &mut random, 80, false);
        let copy = RecordedDisk::with_files(disk.files());
        let store = open(&copy);
        assert_eq!(
            Some(&content_of(&store)),
            history.contents.last(),
            "seed {seed}"
        );
        assert_eq!(store.health().damaged, 0, "seed {seed}");
    }
}
