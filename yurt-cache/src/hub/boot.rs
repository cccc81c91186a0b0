//! Whether the machine was started again since a hub was there, and what follows.

use std::path::Path;

use yurt_core::name::NodeName;
use yurt_core::store::{Batch, Result, Store};

use crate::follow::registry::Registry;
use crate::overlay::truth::Truth;
use crate::store::layout::BOOT;

/// Takes up again what was known of the node's pods before the hub stopped. Blocks on the store.
pub(super) fn recall(
    registry: &Registry,
    store: &dyn Store,
    node: &NodeName,
    boot_id_file: &Path,
) -> Truth {
    let truth = Truth::recall(registry);
    match is_another(store, boot_id_file) {
        Ok(false) => {}
        Ok(true) => {
            tracing::info!(
                "the machine was started again: no pod is ready until the kubelet says so"
            );
            if let Err(error) = truth.start_anew(registry, node) {
                tracing::warn!(%error, "endpoints may lead to pods of before");
            }
        }
        Err(error) => {
            tracing::warn!(%error, "whether the machine was started again is not known");
        }
    }
    truth
}

/// Returns whether the machine was started again since the last call, and remembers this start. What cannot be read
/// says no, and so does the first call. Blocks on the store.
///
/// # Errors
/// If this start is not remembered: the next call would say yes without one.
fn is_another(store: &dyn Store, boot_id_file: &Path) -> Result<bool> {
    let Ok(now) = std::fs::read_to_string(boot_id_file) else {
        return Ok(false);
    };
    let now = now.trim().as_bytes();
    let before = store.get(BOOT.as_bytes())?;
    if before.as_deref() == Some(now) {
        return Ok(false);
    }
    let mut batch = Batch::new();
    batch.put(BOOT, now.to_vec());
    store.write(batch)?;
    Ok(before.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn another_boot_id_is_another_start_and_each_is_told_once() {
        let store = MemoryStore::new();
        let file = tempfile::NamedTempFile::new().unwrap();
        let look = |id: &str| {
            write(file.path(), id);
            is_another(&store, file.path()).unwrap()
        };
        assert!(!look("one\n"), "nothing was there before");
        assert!(!look("one\n"));
        assert!(look("two\n"));
        assert!(!look("two\n"));
        assert!(!is_another(&store, Path::new("/nowhere")).unwrap());
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a test's file needs not survive a crash"
    )]
    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
    }
}
