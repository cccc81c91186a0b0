//! Conformance suites, one function per numbered clause of a contract, and wrappers that inject faults.

pub mod fault;
pub mod store;

#[doc(hidden)]
pub use tempfile;
