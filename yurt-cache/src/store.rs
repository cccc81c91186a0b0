//! Implementations of the `Store` contract, and what the hub keeps where in one.

pub(crate) mod layout;
mod log;
mod memory;
pub(crate) mod seal;
pub(crate) mod sealed;
pub(crate) mod synced;
pub(crate) mod table;

pub use log::{LogConfig, LogStore};
pub use memory::MemoryStore;
