//! A store whose process may die at any write, and whose disk may be full for a while.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use yurt_core::store::{Batch, Error, ErrorKind, Health, Result, Store};

use crate::store::MemoryStore;

/// What comes next of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Well,
    /// Nothing can be written.
    Full,
    /// The process dies in the write after so many: its batch is there or not.
    Dies {
        after: u32,
        is_written: bool,
    },
    /// It is dead: nothing of it reaches the disk any more.
    Dead,
}

/// The disk, which outlives processes.
#[derive(Debug)]
pub(super) struct Disk {
    store: Arc<MemoryStore>,
    pub(super) fate: Mutex<Fate>,
}

impl Disk {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            store: Arc::new(MemoryStore::new()),
            fate: Mutex::new(Fate::Well),
        })
    }
}

impl Store for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.store.get(key)
    }

    fn write(&self, batch: Batch) -> Result<()> {
        let mut fate = self.fate.lock();
        match *fate {
            Fate::Well => self.store.write(batch),
            Fate::Full => Err(Error::new(ErrorKind::Full, "the disk is full")),
            Fate::Dies {
                after: 0,
                is_written,
            } => {
                *fate = Fate::Dead;
                if is_written {
                    self.store.write(batch)?;
                }
                Err(Error::new(ErrorKind::Other, "the process dies"))
            }
            Fate::Dies { after, is_written } => {
                *fate = Fate::Dies {
                    after: after - 1,
                    is_written,
                };
                self.store.write(batch)
            }
            Fate::Dead => Err(Error::new(ErrorKind::Other, "the process is dead")),
        }
    }

    fn sync(&self) -> Result<()> {
        Ok(())
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
