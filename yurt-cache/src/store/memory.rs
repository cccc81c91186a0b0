//! The reference `Store`: a map behind a lock, as durable as the process.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use parking_lot::RwLock;
use yurt_core::store::{Batch, Health, Operation, Result, Store};

/// Remembers in memory only: for tests, and for nodes without a disk.
#[derive(Default)]
pub struct MemoryStore {
    map: RwLock<BTreeMap<Bytes, Bytes>>,
}

impl MemoryStore {
    /// Returns an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.map.read().get(key).cloned())
    }

    fn write(&self, batch: Batch) -> Result<()> {
        batch.check()?;
        let mut map = self.map.write();
        for operation in batch.operations() {
            match operation {
                Operation::Put(key, value) => map.insert(key.clone(), value.clone()),
                Operation::Delete(key) => map.remove(key),
            };
        }
        Ok(())
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
        let map = self.map.read();
        for (key, value) in map.range::<[u8], _>((lower_bound(prefix, after), Bound::Unbounded)) {
            if !key.starts_with(prefix) || visit(key, value.len()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn health(&self) -> Health {
        let map = self.map.read();
        let bytes = map.iter().map(|(key, value)| key.len() + value.len()).sum();
        let mut health = Health::default();
        health.records = as_u64(map.len());
        health.live_bytes = as_u64(bytes);
        health
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = self.map.read().len();
        f.debug_struct("MemoryStore")
            .field("records", &records)
            .finish_non_exhaustive()
    }
}

/// Returns where a visit of `prefix` above `after` begins.
pub(super) fn lower_bound<'a>(prefix: &'a [u8], after: Option<&'a [u8]>) -> Bound<&'a [u8]> {
    match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    }
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
