//! How much memory an answer takes that is under way: what it still has to read, for as long as it has to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Tells of an answer how much it holds now. Goes with a response as an extension.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weight(Arc<AtomicUsize>);

/// What an answer holds; nothing any more when it is dropped.
#[derive(Debug)]
pub(crate) struct Load(Weight);

impl Weight {
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Load {
    /// Returns the load of so many items of a type.
    pub(crate) fn of<T>(items: usize) -> Self {
        let bytes = items.saturating_mul(size_of::<T>());
        Self(Weight(Arc::new(AtomicUsize::new(bytes))))
    }

    pub(crate) fn weight(&self) -> Weight {
        self.0.clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.0.store(0, Ordering::Relaxed);
    }
}
