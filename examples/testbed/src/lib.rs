//! API servers, links to cut, bad networks and nodes for tests.

pub mod api;
pub mod cluster;
pub mod drill;
pub mod endpoint;
pub mod help;
pub mod link;
pub mod node;
pub mod pki;
pub mod semantics;
pub mod system;
pub mod tokens;
pub mod wan;
pub mod workload;

pub use semantics::client;
