//! A log on a disk that refuses: nothing is harmed, nothing is promised that is not so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;

use yurt_core::store::StoreExt;

use super::disk::recorded::{Faults, RecordedDisk, Step};
use super::*;

const SMALL: LogConfig = LogConfig {
    segment_bytes: 4096,
};

fn open(disk: &RecordedDisk) -> LogStore {
    LogStore::open_on(disk.handle(), &SMALL).unwrap()
}

fn put(store: &LogStore, key: &str, len: usize) -> Result<(), ErrorKind> {
    let mut batch = Batch::new();
    batch.put(key.to_owned(), vec![b'v'; len]);
    store.write(batch).map_err(|error| error.kind())
}

fn len_of(store: &LogStore, key: &str) -> Option<usize> {
    store.get(key.as_bytes()).unwrap().map(|value| value.len())
}

#[test]
fn a_full_disk_refuses_the_write_and_harms_nothing() {
    let disk = RecordedDisk::default();
    let store = open(&disk);
    disk.set_faults(Faults {
        capacity: Some(12 << 10),
        ..Faults::default()
    });
    let mut written = 0;
    while put(&store, &format!("key/{written}"), 500) == Ok(()) {
        written += 1;
    }
    assert!(written > 15, "{written} fit");
    assert_eq!(put(&store, "one more", 500), Err(ErrorKind::Full));
    for number in 0..written {
        assert_eq!(len_of(&store, &format!("key/{number}")), Some(500));
    }
    assert_eq!(len_of(&store, "one more"), None);
    store.sync().unwrap();
    disk.set_faults(Faults::default());
    assert_eq!(put(&store, "one more", 500), Ok(()));
    drop(store);
    let store = open(&disk);
    assert_eq!(
        (store.health().records, store.health().damaged),
        (written + 1, 0)
    );
}

#[test]
fn the_room_that_is_left_is_told_where_the_disk_says() {
    let disk = RecordedDisk::default();
    let store = open(&disk);
    assert_eq!(store.health().free_bytes, None, "this one has no end");
    disk.set_faults(Faults {
        capacity: Some(12 << 10),
        ..Faults::default()
    });
    let before = store.health().free_bytes.unwrap();
    for number in 0..6 {
        put(&store, &number.to_string(), 1000).unwrap();
    }
    assert!(store.health().free_bytes.unwrap() < before);
    let folder = tempfile::tempdir().unwrap();
    let store = LogStore::open(folder.path(), LogConfig::default()).unwrap();
    assert!(store.health().free_bytes.unwrap() > 0, "a real one says");
}

#[test]
fn a_full_disk_takes_writes_again_after_deletes() {
    let disk = RecordedDisk::default();
    let store = open(&disk);
    disk.set_faults(Faults {
        capacity: Some(12 << 10),
        ..Faults::default()
    });
    while put(&store, "the same", 1500) == Ok(()) && store.health().written_bytes < 100_000 {}
    assert_eq!(len_of(&store, "the same"), Some(1500));
    assert!(
        store.health().written_bytes >= 100_000,
        "space is given back in time"
    );
}

#[test]
fn a_read_only_disk_serves_reads_and_refuses_writes() {
    let disk = RecordedDisk::default();
    open(&disk).put("a", "1").unwrap();
    disk.set_faults(Faults {
        read_only: true,
        ..Faults::default()
    });
    let before = disk.files();
    let store = open(&disk);
    assert_eq!(len_of(&store, "a"), Some(1));
    assert_eq!(put(&store, "b", 1), Err(ErrorKind::ReadOnly));
    assert_eq!(len_of(&store, "b"), None);
    drop(store);
    assert_eq!(disk.files(), before, "an opening writes nothing");
}

#[test]
fn a_torn_write_is_not_visible_and_does_not_come_back() {
    for after in [0, 20, 40, 300, 1000, 1100, 10_000] {
        let disk = RecordedDisk::default();
        let store = open(&disk);
        put(&store, "a", 100).unwrap();
        disk.set_faults(Faults {
            tears_write_after: Some(after),
            ..Faults::default()
        });
        let mut batch = Batch::new();
        batch
            .put("a", "")
            .put("b", vec![0; 500])
            .put("c", vec![0; 400]);
        assert_eq!(
            store.write(batch).map_err(|error| error.kind()),
            Err(ErrorKind::Other)
        );
        for reopened in [false, true] {
            let crashed = RecordedDisk::with_files(disk.files());
            let second;
            let store = if reopened {
                second = open(&crashed);
                &second
            } else {
                &store
            };
            let lens = ["a", "b", "c"].map(|key| len_of(store, key));
            assert_eq!(
                lens,
                [Some(100), None, None],
                "torn after {after}, reopened: {reopened}"
            );
        }
        put(&store, "d", 10).unwrap();
        store.sync().unwrap();
        let store = open(&RecordedDisk::with_files(disk.files()));
        let lens = ["a", "b", "c", "d"].map(|key| len_of(&store, key));
        assert_eq!(
            lens,
            [Some(100), None, None, Some(10)],
            "torn after {after}, written on"
        );
        assert_eq!(store.health().damaged, 0, "torn after {after}");
    }
}

#[test]
fn a_failed_sync_is_told_to_every_caller_until_the_rescue() {
    let disk = RecordedDisk::default();
    let store = open(&disk);
    put(&store, "a", 10).unwrap();
    disk.set_faults(Faults {
        fails_syncs: true,
        ..Faults::default()
    });
    for _ in 0..2 {
        assert_eq!(store.sync().unwrap_err().kind(), ErrorKind::Other);
        assert_eq!(
            len_of(&store, "a"),
            Some(10),
            "what was written stays visible"
        );
    }
    disk.set_faults(Faults::default());
    let segments = store.health().segments;
    store.sync().unwrap();
    assert_eq!(
        store.health().segments,
        segments + 1,
        "written once more, elsewhere"
    );
    assert_eq!(len_of(&store, "a"), Some(10));
}

#[test]
fn a_sync_of_nothing_new_does_not_touch_the_disk() {
    let disk = RecordedDisk::default();
    let store = open(&disk);
    store.sync().unwrap();
    assert_eq!(store.health().syncs, 0);
    store.put("a", "1").unwrap();
    store.sync().unwrap();
    store.sync().unwrap();
    assert_eq!(store.health().syncs, 1);
}

#[test]
fn what_a_killed_writer_left_is_synced_by_the_first_sync() {
    let disk = RecordedDisk::default();
    let store = open(&disk);
    put(&store, "a", 10).unwrap();
    let crashed = RecordedDisk::with_files(disk.files());
    let store = open(&crashed);
    assert_eq!(len_of(&store, "a"), Some(10));
    store.sync().unwrap();
    let last = crashed
        .steps()
        .into_iter()
        .rfind(|step| !matches!(step, Step::Write { .. }));
    assert!(matches!(last, Some(Step::Sync { .. })), "{last:?}");
    assert_eq!(store.health().syncs, 1);
}

#[test]
fn deleted_keys_stay_deleted_and_are_forgotten_in_the_end() {
    let disk = RecordedDisk::default();
    let store = open(&disk);
    for round in 0..200 {
        let keys = || (0..8).map(|number| format!("short/{round}/{number}"));
        for key in keys() {
            put(&store, &key, 200).unwrap();
        }
        put(&store, "long", 100 + round).unwrap();
        let mut batch = Batch::new();
        for key in keys() {
            batch.delete(key);
        }
        store.write(batch).unwrap();
        let copy = open(&RecordedDisk::with_files(disk.files()));
        assert_eq!(
            (copy.health().records, copy.health().damaged),
            (1, 0),
            "round {round}"
        );
        let health = store.health();
        assert!(health.disk_bytes <= 6 * 4096, "round {round}: {health:?}");
    }
}

/// A disk whose syncs wait until they are let go.
#[derive(Debug)]
struct SlowDisk {
    inner: Arc<RecordedDisk>,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct Gate {
    entered: Barrier,
    left: Barrier,
    is_closed: AtomicBool,
}

#[derive(Debug)]
struct SlowFile(Arc<dyn DiskFile>, Arc<Gate>);

impl Disk for SlowDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        self.inner.names()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SlowFile(
            self.inner.open(name)?,
            Arc::clone(&self.gate),
        )))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SlowFile(
            self.inner.create(name, len)?,
            Arc::clone(&self.gate),
        )))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }
}

impl DiskFile for SlowFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.0.reserve(len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        if self.1.is_closed.swap(false, Ordering::SeqCst) {
            self.1.entered.wait();
            self.1.left.wait();
        }
        self.0.sync()
    }
}

#[test]
fn a_running_sync_stops_neither_readers_nor_writers_and_those_who_wait_share_the_next() {
    let gate = Arc::new(Gate {
        entered: Barrier::new(2),
        left: Barrier::new(2),
        is_closed: AtomicBool::new(false),
    });
    let disk = SlowDisk {
        inner: Arc::default(),
        gate: Arc::clone(&gate),
    };
    let store = LogStore::open_on(Arc::new(disk), &LogConfig::default()).unwrap();
    put(&store, "a", 1).unwrap();
    gate.is_closed.store(true, Ordering::SeqCst);
    thread::scope(|scope| {
        scope.spawn(|| store.sync().unwrap());
        gate.entered.wait();
        // The sync is under way and will not end before we let it.
        put(&store, "b", 2).unwrap();
        assert_eq!(
            [len_of(&store, "a"), len_of(&store, "b")],
            [Some(1), Some(2)]
        );
        let (started, waits) = mpsc::channel();
        for _ in 0..8 {
            let (store, started) = (&store, started.clone());
            scope.spawn(move || {
                started.send(()).unwrap();
                store.sync().unwrap();
            });
        }
        for _ in 0..8 {
            waits.recv().unwrap();
        }
        gate.left.wait();
    });
    assert_eq!(
        store.health().syncs,
        2,
        "one for the first, one for all who came after"
    );
}

#[test]
fn a_second_opening_fails_and_names_the_place() {
    let directory = tempfile::tempdir().unwrap();
    let store = LogStore::open(directory.path(), SMALL).unwrap();
    let error = LogStore::open(directory.path(), SMALL).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other);
    assert!(
        error
            .to_string()
            .contains(directory.path().to_str().unwrap()),
        "{error}"
    );
    drop(store);
    LogStore::open(directory.path(), SMALL).unwrap();
}

#[test]
fn the_layout_on_the_disk_does_not_change_unnoticed() {
    let mut bytes = Vec::new();
    let place = record::Place {
        sequence: 0x0807_0605_0403_0201,
        index: 1,
        count: 2,
    };
    record::append(
        &mut bytes,
        0x4433_2211,
        record::Kind::Put,
        place,
        b"key",
        b"value",
    );
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN_RECORD);
    let header = segment::Header::new(0x4433_2211, 3, Some((2, 0x1000)), 9).encode();
    let hex: String = header.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN_SEGMENT);
}

const GOLDEN_RECORD: &str = "4732b9d2112233440101030005000000010203040506070801000000020000006d75a440448900e86b657976616c7565";
const GOLDEN_SEGMENT: &str = "d50a3689797572746c6f6731112233440300000002000000001000000900000000000000000000000000000000000000";
