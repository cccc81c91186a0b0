//! A store whose process may die at any write, and whose disk may be full for a while.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;
use parking_lot::Mutex;
use yurt_core::store::{Batch, Error, ErrorKind, Health, Result, Store};

use super::super::saved::{SavedScope, scope_key};
use crate::api::Scope;
use crate::store::MemoryStore;
use crate::store::layout::{LAYOUT, LAYOUT_VERSION};

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
    fate: Mutex<Fate>,
}

impl Disk {
    /// Returns a disk on which these scopes are noted, by number from 1 on.
    pub(super) fn with(scopes: &[Scope]) -> Arc<Self> {
        let disk = Self {
            store: Arc::new(MemoryStore::new()),
            fate: Mutex::new(Fate::Well),
        };
        let mut batch = Batch::new();
        batch.put(LAYOUT, LAYOUT_VERSION);
        disk.write(batch).unwrap();
        for (id, scope) in (1..).zip(scopes) {
            disk.note(id, scope).unwrap();
        }
        Arc::new(disk)
    }

    /// Notes a scope, as who begins a mirror does.
    pub(super) fn note(&self, id: u32, scope: &Scope) -> Result<()> {
        let mut batch = Batch::new();
        batch.put(scope_key(id), SavedScope::new(scope).encode());
        self.write(batch)
    }

    /// The process dies in one of its next writes, after so many at most.
    pub(super) fn arm(&self, rng: &mut Rng, most: u32) -> Fate {
        self.fare(Fate::Dies {
            after: rng.u32(0..most),
            is_written: rng.bool(),
        })
    }

    /// It is full from now on, or no longer.
    pub(super) fn fill(&self) -> Fate {
        let is_full = *self.fate.lock() == Fate::Full;
        self.fare(if is_full { Fate::Well } else { Fate::Full })
    }

    pub(super) fn fare(&self, fate: Fate) -> Fate {
        *self.fate.lock() = fate;
        fate
    }

    pub(super) fn is_dead(&self) -> bool {
        *self.fate.lock() == Fate::Dead
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
