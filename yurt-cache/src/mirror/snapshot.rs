//! What a scope held at one moment.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use yurt_core::store::{Error, ErrorKind, Result};

use super::kind::Kind;
use super::version::Version;
use crate::api::ObjectKey;

/// One object of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) key: ObjectKey,
    pub(crate) version: Version,
    /// Where in the history that clients are told it became this version.
    pub(crate) order: u64,
    /// Where in the history it appeared.
    pub(crate) added: u64,
}

/// What a scope held at one moment. Its versions stay readable while it lives, unless so much changes that the
/// node cannot keep what was replaced: then reading fails.
pub(crate) struct Snapshot {
    kind: Arc<Kind>,
    number: u64,
    pub(crate) items: Vec<Item>,
}

impl Snapshot {
    /// Takes these items, which the caller sees to be so at the moment.
    pub(super) fn new(kind: Arc<Kind>, items: Vec<Item>) -> Self {
        let number = kind.bodies.pins().lock().open();
        Self {
            kind,
            number,
            items,
        }
    }

    /// Returns the kind of its objects.
    pub(crate) fn kind(&self) -> &Arc<Kind> {
        &self.kind
    }

    /// Returns the bytes of an item. Blocks on the store.
    ///
    /// # Errors
    /// If they cannot be had: whoever makes a list of the items has to fail then, and never leaves one out.
    pub(crate) fn read(&self, item: &Item) -> Result<Bytes> {
        let body = self.kind.read(&item.key, item.version)?;
        body.ok_or_else(|| {
            let what = format!("a version of {} is not there any more", item.key);
            Error::new(ErrorKind::Other, what)
        })
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("items", &self.items.len())
            .finish_non_exhaustive()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.kind.bodies.pins().lock().close(self.number);
    }
}
