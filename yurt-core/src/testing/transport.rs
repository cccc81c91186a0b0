//! The conformance suite of [`Transport`](crate::transport::Transport), and a network in memory that passes it.

mod memory;

use std::time::{Duration, SystemTime};

pub use self::memory::{MemoryNetwork, MemoryTransport, memory_pair};
use crate::transport::Peer;

/// Returns the identity of a node, as its kubelet's certificate has it.
#[must_use]
pub fn node(name: &str) -> Peer {
    peer(&format!("system:node:{name}"), "system:nodes", name)
}

/// Returns the identity of a server that is known by `name`.
#[must_use]
pub fn server(name: &str) -> Peer {
    peer(name, "yurt:tunnel-servers", name)
}

fn peer(user: &str, group: &str, name: &str) -> Peer {
    Peer {
        user: user.to_owned(),
        groups: vec![group.to_owned()],
        names: vec![name.to_owned()],
        // Far enough, and the same in every run.
        expires: SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800),
    }
}
