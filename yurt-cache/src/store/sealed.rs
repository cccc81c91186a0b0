//! A store in which Secrets and tokens are sealed, if there is a key.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use yurt_core::store::{Batch, Error, ErrorKind, Health, Operation, Result, Store};

use super::layout::{SEALED, is_sealed};
use super::seal::{SealError, SealKeys};

/// Values that are sealed anew by one write.
const PORTION: usize = 100;

/// Seals what goes into the places that [`is_sealed`] names, and opens what comes out of them.
#[derive(Debug)]
pub(crate) struct SealedStore {
    store: Arc<dyn Store>,
    keys: SealKeys,
    /// Values that none of the keys opened at the start.
    unopened: AtomicU64,
}

impl SealedStore {
    pub(crate) fn new(store: Arc<dyn Store>, keys: SealKeys) -> Self {
        Self {
            store,
            keys,
            unopened: AtomicU64::new(0),
        }
    }

    /// Returns whether there is a key to seal with.
    pub(crate) fn can_seal(&self) -> bool {
        self.keys.can_seal()
    }

    /// Seals what is clear or sealed with an older key, and counts as damaged what no key opens. Before anybody else
    /// writes. Blocks on the store.
    ///
    /// # Errors
    /// If the store cannot be read; one that takes no writes is read as it is.
    pub(crate) fn reseal(&self) -> Result<()> {
        let (mut unopened, mut resealed) = (0, 0);
        for keys in self.sealed_keys()?.chunks(PORTION) {
            let mut batch = Batch::new();
            for key in keys {
                let Ok(Some(value)) = self.store.get(key) else {
                    continue;
                };
                let is_current = self.keys.is_current(&value);
                match self.keys.open(key, value) {
                    Err(_) => unopened += 1,
                    Ok(value) if !is_current => {
                        batch.put(key.clone(), value);
                    }
                    Ok(_) => {}
                }
            }
            let count = batch.operations().len();
            if batch.is_empty() {
                continue;
            }
            match self.write(batch) {
                Ok(()) => resealed += count,
                Err(error) => tracing::warn!(%error, "records are not sealed with the new key"),
            }
        }
        self.unopened.store(unopened, Ordering::Relaxed);
        if resealed > 0 {
            tracing::info!(records = resealed, "records are sealed with the new key");
        }
        if unopened > 0 {
            let why = if self.can_seal() {
                "no key in the seal key file opens them"
            } else {
                "no seal key file is given"
            };
            tracing::warn!(
                records = unopened,
                why,
                "sealed records cannot be read: they are fetched anew"
            );
        }
        Ok(())
    }

    fn sealed_keys(&self) -> Result<Vec<Bytes>> {
        let mut keys = Vec::new();
        for prefix in SEALED {
            self.store.keys(prefix.as_bytes(), None, &mut |key, _| {
                keys.push(Bytes::copy_from_slice(key));
                ControlFlow::Continue(())
            })?;
        }
        Ok(keys)
    }

    fn seal(&self, batch: &Batch) -> Result<Batch> {
        let mut sealed = Batch::new();
        for operation in batch.operations() {
            match operation {
                Operation::Put(key, value) if is_sealed(key) => {
                    let value = self.keys.seal(key, value);
                    sealed.put(key.clone(), value.map_err(|error| failed(key, error))?);
                }
                Operation::Put(key, value) => {
                    sealed.put(key.clone(), value.clone());
                }
                Operation::Delete(key) => {
                    sealed.delete(key.clone());
                }
            }
        }
        Ok(sealed)
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for SealedStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let value = self.store.get(key)?;
        match value {
            Some(value) if is_sealed(key) => {
                let opened = self.keys.open(key, value);
                opened.map(Some).map_err(|error| failed(key, error))
            }
            value => Ok(value),
        }
    }

    fn write(&self, batch: Batch) -> Result<()> {
        let has_any =
            |operation: &Operation| matches!(operation, Operation::Put(key, _) if is_sealed(key));
        if self.can_seal() && batch.operations().iter().any(has_any) {
            self.store.write(self.seal(&batch)?)
        } else {
            self.store.write(batch)
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
        let mut health = self.store.health();
        health.damaged += self.unopened.load(Ordering::Relaxed);
        health
    }
}

fn failed(key: &[u8], error: SealError) -> Error {
    let kind = match error {
        SealError::NoRandom => ErrorKind::Other,
        SealError::UnknownKey | SealError::Broken => ErrorKind::Damaged,
    };
    Error::new(kind, format!("open {}", key.escape_ascii())).with_source(error)
}

#[cfg(test)]
mod tests {
    use yurt_core::store::StoreExt;

    use super::super::MemoryStore;
    use super::super::seal::tests::keys;
    use super::*;

    const SECRET: &[u8] = b"o//v1/secrets/shop/till";
    const PLACES: [&[u8]; 3] = [SECRET, b"t/00000001/0000000000000007", b"i/request/ab"];
    const CLEAR: [&[u8]; 3] = [
        b"o//v1/configmaps/shop/till",
        b"o//v1/secretsx/a",
        b"s/00000001",
    ];

    fn sealed(store: &Arc<MemoryStore>, bytes: &[u8]) -> SealedStore {
        let keys = if bytes.is_empty() {
            SealKeys::default()
        } else {
            keys(bytes)
        };
        let sealed = SealedStore::new(store.clone(), keys);
        sealed.reseal().unwrap();
        sealed
    }

    fn is_clear(store: &MemoryStore, key: &[u8]) -> bool {
        store
            .get(key)
            .unwrap()
            .is_some_and(|value| value[..] == b"hunter2"[..])
    }

    fn read(store: &SealedStore) -> std::result::Result<Bytes, ErrorKind> {
        let read = store.get(SECRET).map_err(|error| error.kind());
        read.map(|value| value.expect("it is there"))
    }

    #[test]
    fn secrets_deletions_and_tokens_are_sealed_and_nothing_else_is() {
        let store = Arc::new(MemoryStore::new());
        let sealed = sealed(&store, &[1]);
        for key in PLACES.into_iter().chain(CLEAR) {
            sealed.put(key, "hunter2").unwrap();
            assert_eq!(sealed.get(key).unwrap().as_deref(), Some(&b"hunter2"[..]));
        }
        assert!(PLACES.iter().all(|key| !is_clear(&store, key)));
        assert!(CLEAR.iter().all(|key| is_clear(&store, key)));
        let mut batch = Batch::new();
        batch.put(SECRET, "new").delete(SECRET);
        sealed.write(batch).unwrap();
        assert_eq!(sealed.get(SECRET).unwrap(), None);
    }

    #[test]
    fn what_was_clear_or_of_an_older_key_is_sealed_anew_at_the_start() {
        let store = Arc::new(MemoryStore::new());
        sealed(&store, &[]).put(SECRET, "hunter2").unwrap();
        assert!(is_clear(&store, SECRET));
        for keys in [&[1][..], &[2, 1], &[2]] {
            let sealed = sealed(&store, keys);
            assert_eq!(read(&sealed).as_deref(), Ok(&b"hunter2"[..]), "{keys:?}");
            assert!(!is_clear(&store, SECRET), "{keys:?}");
            assert_eq!(sealed.health().damaged, 0);
        }
    }

    #[test]
    fn with_another_key_or_none_a_sealed_value_is_damaged_until_it_is_written_anew() {
        for keys in [&[2][..], &[]] {
            let store = Arc::new(MemoryStore::new());
            sealed(&store, &[1]).put(SECRET, "hunter2").unwrap();
            let other = sealed(&store, keys);
            assert_eq!(read(&other), Err(ErrorKind::Damaged));
            assert_eq!(other.health().damaged, 1);
            other.put(SECRET, "anew").unwrap();
            assert_eq!(read(&other).as_deref(), Ok(&b"anew"[..]));
        }
    }

    #[test]
    fn a_record_cannot_be_moved_to_another_key() {
        let store = Arc::new(MemoryStore::new());
        let sealed = sealed(&store, &[1]);
        sealed.put("o//v1/secrets/shop/boss", "hunter2").unwrap();
        let moved = store.get(b"o//v1/secrets/shop/boss").unwrap().unwrap();
        store.put(SECRET, moved).unwrap();
        assert_eq!(read(&sealed), Err(ErrorKind::Damaged));
    }
}

/// What sealing costs.
#[cfg(test)]
mod cost {
    use std::io::Write;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::super::seal::tests::keys;
    use super::super::{LogConfig, LogStore};
    use super::*;

    const SECRETS: usize = 100;
    const BYTES: usize = 4_096;

    fn key(number: usize) -> String {
        format!("o//v1/secrets/shop/{number}")
    }

    /// The least times that something took.
    #[derive(Clone, Copy, Debug)]
    struct Least {
        write: Duration,
        write_and_sync: Duration,
        read: Duration,
    }

    impl Least {
        const NONE: Self = Self {
            write: Duration::MAX,
            write_and_sync: Duration::MAX,
            read: Duration::MAX,
        };

        /// Writes a batch of Secrets, syncs it and reads each.
        fn measure(&mut self, store: &dyn Store, round: u8) {
            let mut batch = Batch::new();
            for number in 0..SECRETS {
                batch.put(key(number), vec![round; BYTES]);
            }
            let began = Instant::now();
            store.write(batch).unwrap();
            self.write = self.write.min(began.elapsed());
            store.sync().unwrap();
            self.write_and_sync = self.write_and_sync.min(began.elapsed());
            for number in 0..SECRETS {
                let began = Instant::now();
                store.get(key(number).as_bytes()).unwrap().unwrap();
                self.read = self.read.min(began.elapsed());
            }
        }
    }

    #[test]
    #[ignore = "a measurement: run it alone, on a quiet machine"]
    fn sealing_costs_little() {
        let (dir, sealed_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let clear = LogStore::open(dir.path(), LogConfig::default()).unwrap();
        let sealed = LogStore::open(sealed_dir.path(), LogConfig::default()).unwrap();
        let sealed = SealedStore::new(Arc::new(sealed), keys(&[1]));
        let (mut of_clear, mut of_sealed) = (Least::NONE, Least::NONE);
        // In turn, so that a busy machine slows both.
        for round in 0..100 {
            of_clear.measure(&clear, round);
            of_sealed.measure(&sealed, round);
        }
        writeln!(
            std::io::stderr(),
            "{SECRETS} Secrets of {BYTES} bytes: clear {of_clear:?}, sealed {of_sealed:?}"
        )
        .unwrap();
        assert!(of_sealed.read.saturating_sub(of_clear.read) <= Duration::from_micros(15));
    }
}

#[cfg(test)]
mod conformance {
    use super::super::MemoryStore;
    use super::super::seal::tests::keys;
    use super::*;

    yurt_core::store_conformance!(|_: &std::path::Path| SealedStore::new(
        Arc::new(MemoryStore::new()),
        keys(&[1])
    ));
}
