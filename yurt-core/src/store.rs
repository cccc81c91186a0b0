//! A durable map from keys to bytes: what a node remembers while the cloud is away.
//!
//! What was written and synced is there after a power cut at any instant; what was not is there wholly
//! or not at all; and nothing that comes back is ever other bytes than what was written.

use std::error::Error as StdError;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

/// The longest key that every store takes, in bytes.
pub const MAX_KEY_LEN: usize = 4 << 10;

/// The longest value that every store takes, in bytes.
pub const MAX_VALUE_LEN: usize = 16 << 20;

/// Maps keys to bytes, durably.
///
/// # Contract
///
/// Of every store:
///
/// 1. A get returns the bytes that the latest write put under the key, and nothing after a delete.
/// 2. A batch is seen as a whole or not at all; of two operations on one key the later one counts.
/// 3. Keys of a prefix are visited in ascending byte order, each once, with the length of its value.
/// 4. A write that was refused leaves everything as it was, and reads go on.
/// 5. A key or a value over the limits, or an empty key, is refused as too large or invalid; one at the limits is not.
/// 6. Any bytes are a key, and any bytes, none included, are a value.
/// 7. Calls from many threads behave as if made one after another.
///
/// Of a store on a disk:
///
/// 8. What was written before a sync that returned is there after a crash.
/// 9. What was written and not synced is, after a crash, there batch by batch wholly or not at all.
/// 10. Damage never yields other bytes than were written, never refuses the opening, and is reported.
///
/// # For implementers
///
/// Calls block, and may be made from any thread; the hub makes them where blocking is allowed. A call
/// cannot be cancelled half-way, so crash safety is one argument and not two. Run
/// `yurt_core::store_conformance!` (and `yurt_core::durable_store_conformance!`) over your store.
///
/// # For callers
///
/// A write is visible to every reader when it returns and safe from a crash of the *process* in a store
/// on a disk; it is safe from a *power cut* after the next [`sync`](Self::sync). [`StoreExt::put`] does both.
///
/// # Example
///
/// ```
/// use yurt_core::store::{Batch, Result, Store};
///
/// fn remember(store: &dyn Store) -> Result<()> {
///     let mut batch = Batch::new();
///     batch.put("config/site", "north").delete("config/old");
///     store.write(batch)?;
///     store.sync()
/// }
/// ```
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Returns the bytes under `key`, or `None` if there are none.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if bytes are there but not as they were written; only this key is affected,
    /// until it is written again. [`ErrorKind::Other`] if the disk fails.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;

    /// Applies a batch: visible as a whole when it returns, durable after the next [`sync`](Self::sync).
    ///
    /// # Errors
    /// [`ErrorKind::Full`], [`ErrorKind::ReadOnly`], [`ErrorKind::TooLarge`], [`ErrorKind::Other`]; in
    /// each case nothing of the batch was applied.
    fn write(&self, batch: Batch) -> Result<()>;

    /// Returns when everything that was written before the call is safe from a power cut.
    ///
    /// # Errors
    /// [`ErrorKind::Other`] if the disk cannot promise it. What was written stays visible, and later
    /// syncs promise it again only if they return.
    fn sync(&self) -> Result<()>;

    /// Visits each key that starts with `prefix` and is above `after` (all, if `None`), in ascending
    /// order, with the length of its value, until `visit` breaks.
    ///
    /// `visit` must not call the store.
    ///
    /// # Errors
    /// [`ErrorKind::Other`] if the disk fails.
    fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], usize) -> ControlFlow<()>,
    ) -> Result<()>;

    /// Returns what the store can say of itself; cheap enough to be asked every second.
    fn health(&self) -> Health;
}

#[deny(clippy::missing_trait_methods)]
impl<T: Store + ?Sized> Store for Arc<T> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        (**self).get(key)
    }

    fn write(&self, batch: Batch) -> Result<()> {
        (**self).write(batch)
    }

    fn sync(&self) -> Result<()> {
        (**self).sync()
    }

    fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], usize) -> ControlFlow<()>,
    ) -> Result<()> {
        (**self).keys(prefix, after, visit)
    }

    fn health(&self) -> Health {
        (**self).health()
    }
}

/// What callers make of the contract's methods.
pub trait StoreExt: Store {
    /// Writes one value and syncs.
    ///
    /// # Errors
    /// As [`Store::write`] and [`Store::sync`].
    fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let mut batch = Batch::new();
        batch.put(key, value);
        self.write(batch)?;
        self.sync()
    }
}

impl<T: Store + ?Sized> StoreExt for T {}

/// Puts and deletes that are applied together.
#[derive(Clone, Debug, Default)]
pub struct Batch(Vec<Operation>);

impl Batch {
    /// Returns a batch of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put of `value` under `key`.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> &mut Self {
        self.0.push(Operation::Put(key.into(), value.into()));
        self
    }

    /// Adds a delete of `key`; it need not exist.
    pub fn delete(&mut self, key: impl Into<Bytes>) -> &mut Self {
        self.0.push(Operation::Delete(key.into()));
        self
    }

    /// Returns whether there is nothing to apply.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the operations in the order of their adding.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.0
    }

    /// Checks the limits of the contract, for implementers.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] for a key or value over the limits, [`ErrorKind::Other`] for an empty key.
    pub fn check(&self) -> Result<()> {
        for operation in &self.0 {
            let (key, value_len) = match operation {
                Operation::Put(key, value) => (key, value.len()),
                Operation::Delete(key) => (key, 0),
            };
            if key.is_empty() {
                return Err(Error::new(ErrorKind::Other, "a key is empty"));
            }
            if key.len() > MAX_KEY_LEN || value_len > MAX_VALUE_LEN {
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    format!("a key of {} bytes with a value of {value_len}", key.len()),
                ));
            }
        }
        Ok(())
    }
}

/// One step of a [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Puts the value (second) under the key (first).
    Put(Bytes, Bytes),
    /// Deletes the key.
    Delete(Bytes),
}

/// What a store says of itself. Counters start at zero when the store is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Keys that have a value.
    pub records: u64,
    /// Bytes of the keys and values that are there.
    pub live_bytes: u64,
    /// Bytes that the store occupies.
    pub disk_bytes: u64,
    /// Bytes given to the disk since the opening, compaction included.
    pub written_bytes: u64,
    /// Syncs of the disk since the opening.
    pub syncs: u64,
    /// Files that hold records.
    pub segments: u64,
    /// Damaged records found at the opening or since.
    pub damaged: u64,
    /// Bytes that the medium still has for the store, if it can say.
    pub free_bytes: Option<u64>,
}

/// What failed in a store.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of a call to a store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a store failed, as far as a caller acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The disk is full.
    Full,
    /// The disk takes no writes.
    ReadOnly,
    /// A key or a value is over the limits.
    TooLarge,
    /// The bytes under a key are not as they were written.
    Damaged,
    /// Anything else; the source says more.
    Other,
}

impl Error {
    /// Returns an error of this kind; `message` names the step and the object.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns why the call failed.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
