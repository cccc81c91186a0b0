//! How much of the hub one caller may hold. Whoever takes more than its share is refused and costs the others
//! nothing; the node itself is not bounded.

mod connections;
mod shares;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub(crate) use self::connections::{ConnectionGuard, Connections, Entered, TooManyConnections};
pub(crate) use self::shares::{Admission, RequestClass, RequestGuard, Shares};

/// Limits on the node's clients. The node itself, identified by its certificate, is not limited.
///
/// A caller is an authenticated identity. Connections that are not authenticated yet, and requests with a token that
/// the API server has not recognised yet, are counted by their source address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Maximum number of unauthenticated connections in total. Another one replaces the oldest connection of the address
    /// with the most, so that idle connections cannot lock anyone out.
    pub anonymous_connections: usize,
    /// Maximum number of authenticated connections in total.
    pub connections: usize,
    /// Maximum number of connections of one caller.
    pub caller_connections: usize,
    /// Maximum number of concurrent requests of one caller.
    pub caller_requests: usize,
    /// Maximum number of watches and other long-running requests of one caller: logs, exec, port-forward, proxy.
    pub caller_watches: usize,
    /// Maximum number of mirrors in total. A quarter of them is reserved for the node; of the others, those of the
    /// caller with the most go first.
    pub mirrors: usize,
    /// Maximum number of mirrors of one caller; what it lists or watches beyond is only forwarded.
    pub caller_mirrors: usize,
    /// Maximum number of positive authorization decisions of one caller; beyond, its least recently used goes.
    pub caller_verdicts: usize,
    /// Maximum number of documents of one caller; beyond, its least recently used goes.
    pub caller_documents: usize,
    /// How long an answer waits for a client that does not read on, before it is ended. Watches that have told their
    /// initial state, logs and other streams of pods may wait longer.
    pub unread: Duration,
    /// Requests per second of one caller; further requests are delayed.
    pub caller_rate: u32,
    /// Maximum size of a request body, in bytes; by default the API server's own limit.
    pub body_bytes: u64,
}

impl Default for Limits {
    /// A node has at most 110 pods; client-go opens one connection for each and asks 5 to 50 times a second. Who
    /// speaks HTTP/1.1 needs a connection for each watch and request. Who watches whole clusters opens some hundred
    /// watches; all of their mirrors may be its own.
    fn default() -> Self {
        Self {
            anonymous_connections: 256,
            connections: 2_048,
            caller_connections: 160,
            caller_requests: 32,
            caller_watches: 512,
            mirrors: 2_000,
            caller_mirrors: 200,
            caller_verdicts: 1_000,
            caller_documents: 100,
            unread: Duration::from_secs(60),
            caller_rate: 500,
            body_bytes: 3 << 20,
        }
    }
}

/// Whose share is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Tenant {
    /// The node itself.
    Node,
    /// A caller whom the cloud has recognised, by its id.
    Caller(Arc<str>),
    /// Who at this address is not recognised yet.
    Anonymous(IpAddr),
}

impl Tenant {
    /// How the node is called where callers have ids.
    const NODE: &str = "node";

    /// Returns the tenant that is remembered as this.
    pub(crate) fn of(id: &str) -> Self {
        match id {
            Self::NODE => Self::Node,
            id => Self::Caller(id.into()),
        }
    }

    /// Returns as what it is remembered.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Node => Self::NODE.to_owned(),
            Self::Caller(id) => id.to_string(),
            Self::Anonymous(address) => address.to_string(),
        }
    }
}

/// Who makes a request, and over what.
#[derive(Clone, Debug)]
pub(crate) struct Requester {
    pub(crate) tenant: Tenant,
    /// Ends the requester's connection.
    pub(crate) end: CancellationToken,
}
