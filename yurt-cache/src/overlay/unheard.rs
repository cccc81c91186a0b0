//! The pods that were there when the machine was started again, remembered over restarts of the hub: of each, the
//! version that was the newest then. While it still is, the kubelet has not said anything of the pod since.

use std::collections::BTreeMap;

use yurt_core::store::{Batch, Result, Store};

use crate::store::layout::UNHEARD;

/// Pods by key, each with the number of its newest version at the machine's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unheard(BTreeMap<String, u64>);

impl Unheard {
    /// Reads what was remembered; what cannot be read is not known. Blocks on the store.
    pub(crate) fn read(store: &dyn Store) -> Self {
        match store.get(UNHEARD.as_bytes()) {
            Ok(text) => text
                .and_then(|text| serde_json::from_slice(&text).ok())
                .map(Self)
                .unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "cannot read which pods the kubelet has not reported since the reboot");
                Self::default()
            }
        }
    }

    /// Adds a pod.
    pub(crate) fn insert(&mut self, key: &str, newest: u64) {
        self.0.insert(key.to_owned(), newest);
    }

    /// Returns whether the kubelet has not said anything of a pod whose newest version is this.
    pub(crate) fn has(&self, key: &str, newest: u64) -> bool {
        self.0.get(key) == Some(&newest)
    }

    /// Returns their keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Remembers these instead of others.
    pub(crate) fn write(&self, batch: &mut Batch) {
        match serde_json::to_vec(&self.0) {
            Ok(text) if !self.0.is_empty() => batch.put(UNHEARD, text),
            _ => batch.delete(UNHEARD),
        };
    }

    /// Remembers none any more: the cloud's word counts. Blocks on the store.
    pub(crate) fn forget(store: &dyn Store) -> Result<()> {
        if store.get(UNHEARD.as_bytes())?.is_none() {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.delete(UNHEARD);
        store.write(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn a_pod_is_unheard_of_as_long_as_its_newest_version_is_that_of_the_start() {
        let store = MemoryStore::new();
        let write = |unheard: &Unheard| {
            let mut batch = Batch::new();
            unheard.write(&mut batch);
            store.write(batch).unwrap();
        };
        assert_eq!(Unheard::read(&store), Unheard::default());
        let mut unheard = Unheard::default();
        unheard.insert("default/a", 7);
        write(&unheard);
        let read = Unheard::read(&store);
        assert!(read.has("default/a", 7) && !read.has("default/a", 8) && !read.has("default/b", 7));
        write(&Unheard::default());
        assert_eq!(Unheard::read(&store), Unheard::default());
        write(&unheard);
        Unheard::forget(&store).unwrap();
        assert_eq!(Unheard::read(&store), Unheard::default());
    }

    #[test]
    fn what_cannot_be_read_is_not_known() {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        batch.put(UNHEARD, &b"[1"[..]);
        store.write(batch).unwrap();
        assert_eq!(Unheard::read(&store), Unheard::default());
    }
}
