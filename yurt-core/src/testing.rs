//! Conformance suites, one function per numbered clause of a contract, small honest implementations to test
//! what stands on a contract, and wrappers that inject faults.

pub mod fault;
pub mod store;
pub mod transport;

#[doc(hidden)]
pub use tempfile;
