//! A disk in memory that remembers every step, so that its power can be cut at any of them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile};

/// What a torn write leaves whole.
const SECTOR: usize = 512;

/// A disk in memory.
#[derive(Debug, Default)]
pub(in crate::store::log) struct RecordedDisk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    names: BTreeMap<String, FileId>,
    /// What a reader sees.
    contents: Vec<Vec<u8>>,
    steps: Vec<Step>,
    faults: Faults,
}

type FileId = usize;

/// What the disk refuses from now on.
#[derive(Clone, Debug, Default)]
pub(in crate::store::log) struct Faults {
    pub(in crate::store::log) read_only: bool,
    pub(in crate::store::log) fails_syncs: bool,
    /// The bytes that files may have together.
    pub(in crate::store::log) capacity: Option<u64>,
    /// The next write stops after so many bytes.
    pub(in crate::store::log) tears_write_after: Option<usize>,
}

/// What happened to the disk.
#[derive(Clone, Debug)]
pub(in crate::store::log) enum Step {
    Create {
        name: String,
        file: FileId,
        len: usize,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        name: String,
    },
    Write {
        file: FileId,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: FileId,
        len: usize,
    },
    Sync {
        file: FileId,
    },
    /// A sync that failed: of what it was to make safe, some is and the rest never will be.
    FailedSync {
        file: FileId,
    },
    /// Something that the test wants to find again.
    Note(Note),
}

/// What a test notes between the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::log) enum Note {
    /// This batch is about to be written.
    Begun(usize),
    /// A sync after this batch returned.
    Promised(usize),
}

/// How the power cut treats what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::log) enum Cut {
    Keeps,
    Drops,
    /// The steps up to a random one are there, those behind it are not.
    Stops,
    /// Each sector is as it was at a random time since the last sync.
    Scatters,
}

impl RecordedDisk {
    pub(in crate::store::log) fn handle(&self) -> Arc<Self> {
        Arc::new(Self(Arc::clone(&self.0)))
    }

    pub(in crate::store::log) fn note(&self, note: Note) {
        self.0.lock().steps.push(Step::Note(note));
    }

    pub(in crate::store::log) fn steps(&self) -> Vec<Step> {
        self.0.lock().steps.clone()
    }

    pub(in crate::store::log) fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// Returns a disk with these files, all of it safe.
    pub(in crate::store::log) fn with_files(files: BTreeMap<String, Vec<u8>>) -> Self {
        let disk = Self::default();
        let mut inner = disk.0.lock();
        for (name, bytes) in files {
            let (file, len) = (inner.contents.len(), bytes.len());
            inner.names.insert(name.clone(), file);
            inner.contents.push(bytes.clone());
            inner.steps.push(Step::Create { name, file, len });
            inner.steps.push(Step::Write {
                file,
                offset: 0,
                bytes,
            });
            inner.steps.push(Step::Sync { file });
        }
        drop(inner);
        disk
    }

    /// Returns the files as a reader sees them.
    pub(in crate::store::log) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let inner = self.0.lock();
        let content = |(name, id): (&String, &FileId)| (name.clone(), inner.contents[*id].clone());
        inner.names.iter().map(content).collect()
    }
}

/// Returns the files that a power cut within step `at` leaves.
pub(in crate::store::log) fn files_after_cut(
    steps: &[Step],
    at: usize,
    cut: Cut,
    random: &mut impl FnMut(usize) -> usize,
) -> BTreeMap<String, Vec<u8>> {
    let mut names = BTreeMap::new();
    let mut pending = BTreeMap::<FileId, Vec<&Step>>::new();
    let mut safe = BTreeMap::<FileId, Vec<u8>>::new();
    for (number, step) in steps[..=at].iter().enumerate() {
        // The last step was under way: whether it was done is open, and a sync was not.
        let is_open = number == at;
        match step {
            Step::Create { name, file, .. } if !is_open || random(2) == 0 => {
                names.insert(name.clone(), *file);
                safe.insert(*file, Vec::new());
                pending.entry(*file).or_default().push(step);
            }
            Step::Rename { from, to } if !is_open || random(2) == 0 => {
                let file = names.remove(from).expect("what is renamed is there");
                names.insert(to.clone(), file);
            }
            Step::Remove { name } if !is_open || random(2) == 0 => drop(names.remove(name)),
            Step::Write { file, .. } | Step::Truncate { file, .. } => {
                pending.entry(*file).or_default().push(step);
            }
            Step::Sync { file } if !is_open => {
                let steps = pending.remove(file).unwrap_or_default();
                let count = steps.len();
                apply(safe.entry(*file).or_default(), &steps, count, &mut |_| {
                    count
                });
            }
            Step::FailedSync { file } => {
                let steps = pending.remove(file).unwrap_or_default();
                scatter(safe.entry(*file).or_default(), &steps, random);
            }
            Step::Create { .. }
            | Step::Rename { .. }
            | Step::Remove { .. }
            | Step::Sync { .. }
            | Step::Note(_) => {}
        }
    }
    for (file, steps) in pending {
        let count = steps.len();
        let content = safe.entry(file).or_default();
        match cut {
            Cut::Keeps => apply(content, &steps, count, &mut |_| count),
            Cut::Drops => {}
            Cut::Stops => {
                let stop = random(count + 1);
                apply(content, &steps, stop, &mut |_| stop);
            }
            Cut::Scatters => scatter(content, &steps, random),
        }
    }
    let content = |(name, file): (String, FileId)| (name, safe.remove(&file).unwrap_or_default());
    names.into_iter().map(content).collect()
}

/// Applies each sector's steps up to a time of its own.
fn scatter(content: &mut Vec<u8>, steps: &[&Step], random: &mut impl FnMut(usize) -> usize) {
    let size = random(steps.len() + 1);
    let mut times = BTreeMap::new();
    apply(content, steps, size, &mut |sector| {
        *times
            .entry(sector)
            .or_insert_with(|| random(steps.len() + 1))
    });
}

/// Applies steps: the length as after the first `size` of them, each sector as after `time` of them.
fn apply(
    content: &mut Vec<u8>,
    steps: &[&Step],
    size: usize,
    time: &mut impl FnMut(usize) -> usize,
) {
    let mut len = content.len();
    for (number, step) in steps.iter().enumerate() {
        let counts = number < size;
        match step {
            Step::Create { len: created, .. } if counts => len = *created,
            Step::Truncate { len: cut, .. } => {
                if counts {
                    len = *cut;
                }
                // What is cut off reads as zeros if the file grows again.
                let end = content.len();
                content[(*cut).min(end)..].fill(0);
            }
            Step::Write { offset, bytes, .. } => {
                let end = offset + bytes.len();
                if counts {
                    len = len.max(end);
                }
                content.resize(content.len().max(end), 0);
                for at in *offset..end {
                    if number < time(at / SECTOR) {
                        content[at] = bytes[at - offset];
                    }
                }
            }
            _ => {}
        }
    }
    content.resize(len, 0);
}

impl Disk for RecordedDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let id = *self
            .0
            .lock()
            .names
            .get(name)
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(RecordedFile {
            id,
            disk: Arc::clone(&self.0),
        }))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.0.lock();
        inner.allow(len)?;
        let (file, len) = (inner.contents.len(), usize::try_from(len).unwrap());
        if inner.names.insert(name.to_owned(), file).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        inner.contents.push(vec![0; len]);
        inner.steps.push(Step::Create {
            name: name.to_owned(),
            file,
            len,
        });
        Ok(Arc::new(RecordedFile {
            id: file,
            disk: Arc::clone(&self.0),
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.allow(0)?;
        let file = inner.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.names.insert(to.to_owned(), file);
        let (from, to) = (from.to_owned(), to.to_owned());
        inner.steps.push(Step::Rename { from, to });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.allow(0)?;
        inner.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        inner.steps.push(Step::Remove {
            name: name.to_owned(),
        });
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let inner = self.0.lock();
        let capacity = inner.faults.capacity.ok_or(io::ErrorKind::Unsupported)?;
        Ok(capacity.saturating_sub(inner.used()))
    }
}

impl Inner {
    fn allow(&self, more: u64) -> io::Result<()> {
        if self.faults.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let wanted = self.used() + more;
        match self.faults.capacity {
            Some(capacity) if more > 0 && wanted > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        let used: usize = self.names.values().map(|id| self.contents[*id].len()).sum();
        u64::try_from(used).unwrap()
    }
}

#[derive(Debug)]
struct RecordedFile {
    id: FileId,
    disk: Arc<Mutex<Inner>>,
}

impl DiskFile for RecordedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.disk.lock().contents[self.id].len()).unwrap())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let inner = self.disk.lock();
        let content = &inner.contents[self.id];
        let start = usize::try_from(offset).unwrap().min(content.len());
        let count = buffer.len().min(content.len() - start);
        buffer[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let torn = inner.faults.tears_write_after.take();
        let offset = usize::try_from(offset).unwrap();
        let bytes = &bytes[..torn.unwrap_or(bytes.len()).min(bytes.len())];
        let end = offset + bytes.len();
        let growth = end.saturating_sub(inner.contents[self.id].len());
        inner.allow(u64::try_from(growth).unwrap())?;
        let content = &mut inner.contents[self.id];
        content.resize(content.len().max(end), 0);
        content[offset..end].copy_from_slice(bytes);
        inner.steps.push(Step::Write {
            file: self.id,
            offset,
            bytes: bytes.to_vec(),
        });
        match torn {
            Some(_) => Err(io::Error::other("torn")),
            None => Ok(()),
        }
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let len = usize::try_from(len).unwrap();
        let growth = len.saturating_sub(inner.contents[self.id].len());
        inner.allow(u64::try_from(growth).unwrap())?;
        if growth > 0 {
            inner.contents[self.id].resize(len, 0);
            inner.steps.push(Step::Truncate { file: self.id, len });
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.allow(0)?;
        let len = usize::try_from(len).unwrap();
        inner.contents[self.id].resize(len, 0);
        inner.steps.push(Step::Truncate { file: self.id, len });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        if inner.faults.fails_syncs {
            inner.steps.push(Step::FailedSync { file: self.id });
            return Err(io::Error::other("the sync failed"));
        }
        inner.steps.push(Step::Sync { file: self.id });
        Ok(())
    }
}
