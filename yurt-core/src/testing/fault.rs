//! Wrappers that inject faults into a [`Store`], to test what stands on one.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::store::{Batch, Error, ErrorKind, Health, Operation, Result, Store};

/// Decides what becomes of each write.
pub trait Fault: fmt::Debug + Send + Sync + 'static {
    /// Returns the fate of this write, the `number`th since the beginning (from one).
    fn fate(&self, number: u64, batch: &Batch) -> Fate;
}

/// What becomes of a write.
#[derive(Debug)]
pub enum Fate {
    /// It is written.
    Done,
    /// It is refused, and nothing of it was written.
    Refused(Error),
    /// It is refused, and yet all of it was written.
    DoneAndRefused(Error),
}

/// A store whose writes fail as a [`Fault`] decides; reads and syncs go through.
#[derive(Debug)]
pub struct FaultyStore<S, F> {
    store: S,
    fault: F,
    writes: AtomicU64,
}

impl<S: Store, F: Fault> FaultyStore<S, F> {
    /// Returns `store` with the fault.
    pub fn new(store: S, fault: F) -> Self {
        Self {
            store,
            fault,
            writes: AtomicU64::new(0),
        }
    }

    /// Returns the fault.
    pub fn fault(&self) -> &F {
        &self.fault
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Store, F: Fault> Store for FaultyStore<S, F> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.store.get(key)
    }

    fn write(&self, batch: Batch) -> Result<()> {
        let number = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        match self.fault.fate(number, &batch) {
            Fate::Done => self.store.write(batch),
            Fate::Refused(error) => Err(error),
            Fate::DoneAndRefused(error) => self.store.write(batch).and(Err(error)),
        }
    }

    fn sync(&self) -> Result<()> {
        self.store.sync()
    }

    fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], usize) -> ControlFlow<()>,
    ) -> Result<()> {
        self.store.keys(prefix, after, visit)
    }

    fn health(&self) -> Health {
        self.store.health()
    }
}

/// Fails one write, and no other.
#[derive(Clone, Copy, Debug)]
pub struct FailNth(pub u64);

impl Fault for FailNth {
    fn fate(&self, number: u64, _: &Batch) -> Fate {
        if number == self.0 {
            Fate::Refused(broken())
        } else {
            Fate::Done
        }
    }
}

/// Fails one write as a crash in its middle does: by the seed, all or nothing of the batch is there.
#[derive(Clone, Copy, Debug)]
pub struct TearNth {
    /// The write that fails.
    pub nth: u64,
    /// Decides which of the two.
    pub seed: u64,
}

impl Fault for TearNth {
    fn fate(&self, number: u64, _: &Batch) -> Fate {
        // The highest bit of a product with an odd number depends on all bits of the seed.
        let is_done = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 1;
        match (number == self.nth, is_done) {
            (false, _) => Fate::Done,
            (true, false) => Fate::Refused(broken()),
            (true, true) => Fate::DoneAndRefused(broken()),
        }
    }
}

/// Fails every write that would bring the bytes written above a limit.
#[derive(Debug)]
pub struct DiskFull {
    room: Mutex<u64>,
}

impl DiskFull {
    /// Returns a disk with room for so many bytes of keys and values.
    #[must_use]
    pub fn after(bytes: u64) -> Self {
        Self {
            room: Mutex::new(bytes),
        }
    }

    /// Gives room back.
    pub fn free(&self, bytes: u64) {
        *self.room() += bytes;
    }

    fn room(&self) -> std::sync::MutexGuard<'_, u64> {
        self.room.lock().expect("no holder of this lock panics")
    }
}

impl Fault for DiskFull {
    fn fate(&self, _: u64, batch: &Batch) -> Fate {
        let len = |operation: &Operation| match operation {
            Operation::Put(key, value) => key.len() + value.len(),
            Operation::Delete(key) => key.len(),
        };
        let bytes: usize = batch.operations().iter().map(len).sum();
        let mut room = self.room();
        match room.checked_sub(u64::try_from(bytes).unwrap_or(u64::MAX)) {
            Some(left) => {
                *room = left;
                Fate::Done
            }
            None => Fate::Refused(Error::new(ErrorKind::Full, "the injected disk is full")),
        }
    }
}

/// Fails every write.
#[derive(Clone, Copy, Debug)]
pub struct ReadOnly;

impl Fault for ReadOnly {
    fn fate(&self, _: u64, _: &Batch) -> Fate {
        Fate::Refused(Error::new(
            ErrorKind::ReadOnly,
            "the injected disk takes no writes",
        ))
    }
}

fn broken() -> Error {
    Error::new(ErrorKind::Other, "an injected fault")
}

/// A call of a [`SlowStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`Store::get`].
    Get,
    /// [`Store::write`].
    Write,
    /// [`Store::sync`].
    Sync,
    /// [`Store::keys`].
    Keys,
}

/// A store that waits, in whatever way its hook does, before each call but [`Store::health`].
pub struct SlowStore<S, W> {
    store: S,
    wait: W,
}

impl<S: Store, W: Fn(Call) + Send + Sync + 'static> SlowStore<S, W> {
    /// Returns `store` behind `wait`.
    pub fn new(store: S, wait: W) -> Self {
        Self { store, wait }
    }
}

impl<S: fmt::Debug, W> fmt::Debug for SlowStore<S, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlowStore")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Store, W: Fn(Call) + Send + Sync + 'static> Store for SlowStore<S, W> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        (self.wait)(Call::Get);
        self.store.get(key)
    }

    fn write(&self, batch: Batch) -> Result<()> {
        (self.wait)(Call::Write);
        self.store.write(batch)
    }

    fn sync(&self) -> Result<()> {
        (self.wait)(Call::Sync);
        self.store.sync()
    }

    fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], usize) -> ControlFlow<()>,
    ) -> Result<()> {
        (self.wait)(Call::Keys);
        self.store.keys(prefix, after, visit)
    }

    fn health(&self) -> Health {
        self.store.health()
    }
}
