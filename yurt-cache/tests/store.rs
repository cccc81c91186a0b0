//! Both stores keep the contract.

use std::path::Path;

use yurt_cache::store::{LogConfig, LogStore, MemoryStore};

mod memory {
    use super::*;

    yurt_core::store_conformance!(|_: &Path| MemoryStore::new());
}

mod log {
    use super::*;

    yurt_core::durable_store_conformance!(|path: &Path| {
        LogStore::open(path, LogConfig::default()).unwrap()
    });
}

mod log_of_small_segments {
    use super::*;

    yurt_core::durable_store_conformance!(|path: &Path| {
        LogStore::open(
            path,
            LogConfig {
                segment_bytes: 4096,
            },
        )
        .unwrap()
    });
}
