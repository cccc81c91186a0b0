//! How much of the hub one caller may hold. Whoever takes more than its share is refused and costs the others
//! nothing; the node itself is not bounded.

mod door;
mod shares;

use std::net::IpAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub(crate) use self::door::{Door, Entered, Entry, TooManyConnections};
pub(crate) use self::shares::{Begun, Place, Shares, What};

/// What the node's clients may hold. The node itself, by its certificate, may hold more.
///
/// A caller is who it has proven to be. Connections that have proven nothing yet, and the requests of a token
/// that nobody has recognised so far, are counted by the address that they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections of strangers, all together. One more takes the place of the oldest of the address that has
    /// the most, so that who only holds places keeps nobody out.
    pub strangers: usize,
    /// Connections of all callers together.
    pub connections: usize,
    /// Connections of one caller.
    pub caller_connections: usize,
    /// Requests of one caller at a time.
    pub caller_requests: usize,
    /// Watches of one caller, and its other requests that last: logs, exec, port-forward, proxy.
    pub caller_watches: usize,
    /// Requests of one caller in a second; further ones wait for their turn.
    pub caller_rate: u32,
    /// Bytes of a request's body: as many as the API server takes.
    pub body_bytes: u64,
}

impl Default for Limits {
    /// A node has at most 110 pods; client-go opens one connection for each and asks 5 to 50 times a second. Who
    /// speaks HTTP/1.1 needs a connection for each watch and request.
    fn default() -> Self {
        Self {
            strangers: 256,
            connections: 2_048,
            caller_connections: 160,
            caller_requests: 32,
            caller_watches: 128,
            caller_rate: 500,
            body_bytes: 3 << 20,
        }
    }
}

/// Whose share is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// The node itself.
    Node,
    /// A caller whom the cloud has recognised, by its id.
    Caller(Arc<str>),
    /// Who at this address is not recognised yet.
    Stranger(IpAddr),
}

/// Who makes a request, and over what.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) holder: Holder,
    /// Ends the guest's connection.
    pub(crate) end: CancellationToken,
}
