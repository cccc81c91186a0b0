//! Implementations of the `Store` contract.

mod log;
mod memory;
pub(crate) mod synced;

pub use log::{LogConfig, LogStore};
pub use memory::MemoryStore;
