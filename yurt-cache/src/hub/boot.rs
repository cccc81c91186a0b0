//! Whether the machine was started again since a hub was there, and what follows.

use std::path::Path;

use yurt_core::name::NodeName;
use yurt_core::store::{Batch, Result, Store};

use crate::follow::registry::Registry;
use crate::overlay::local_pods::LocalPods;
use crate::overlay::unheard::Unheard;
use crate::store::layout::BOOT;

/// Takes up again what was known of the node's pods before the hub stopped. Blocks on the store.
pub(super) fn recall(
    registry: &Registry,
    store: &dyn Store,
    node: &NodeName,
    boot_id_file: &Path,
) -> LocalPods {
    let local_pods = LocalPods::recall(registry, &Unheard::read(store));
    let taken_in = if_another(store, boot_id_file, || {
        tracing::info!("the machine was started again: no pod is ready until the kubelet says so");
        let taken_in = local_pods.start_anew(registry, node);
        taken_in
            .inspect_err(|error| tracing::warn!(%error, "endpoints may lead to pods of before"))
            .ok()
    });
    if let Err(error) = taken_in {
        tracing::warn!(%error, "whether the machine was started again is not known");
    }
    local_pods
}

/// Does what a start of the machine since the last call asks for, and then remembers this start and the pods that it
/// concerns, if that is done: a hub that ends before does it again.
/// What cannot be read is no start, and neither is the first. Blocks on the store.
///
/// # Errors
/// If the store cannot be read, or does not remember this start.
fn if_another(
    store: &dyn Store,
    boot_id_file: &Path,
    take_in: impl FnOnce() -> Option<Unheard>,
) -> Result<()> {
    let Ok(now) = std::fs::read_to_string(boot_id_file) else {
        return Ok(());
    };
    let now = now.trim().as_bytes();
    let before = store.get(BOOT.as_bytes())?;
    if before.as_deref() == Some(now) {
        return Ok(());
    }
    let mut batch = Batch::new();
    if before.is_some() {
        let Some(unheard) = take_in() else {
            return Ok(());
        };
        unheard.write(&mut batch);
    }
    batch.put(BOOT, now.to_vec());
    store.write(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn another_boot_id_is_another_start_and_each_is_taken_in_once() {
        let store = MemoryStore::new();
        let file = tempfile::NamedTempFile::new().unwrap();
        let look = |id: &str| {
            write(file.path(), id);
            taken_in(&store, file.path(), true)
        };
        assert!(!look("one\n"), "nothing was there before");
        assert!(!look("one\n"));
        assert!(look("two\n"));
        assert!(!look("two\n"));
        assert!(!taken_in(&store, Path::new("/nowhere"), true));
        write(file.path(), "three");
        for _ in 0..2 {
            assert!(
                taken_in(&store, file.path(), false),
                "it is not done until it can be"
            );
        }
        assert!(look("three"));
        assert!(!look("three"));
    }

    fn taken_in(store: &MemoryStore, file: &Path, can_be: bool) -> bool {
        let mut is_asked = false;
        let take_in = || {
            is_asked = true;
            can_be.then(Unheard::default)
        };
        if_another(store, file, take_in).unwrap();
        is_asked
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a test's file needs not survive a crash"
    )]
    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
    }
}
