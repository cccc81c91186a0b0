//! The outsider's store keeps the contract.

use std::path::Path;

use vendor::SqliteStore;

yurt_core::durable_store_conformance!(|path: &Path| {
    SqliteStore::open(path).expect("a database opens")
});
