//! The HTTP/2 connections to one API server under one credential, and the streams on them.
//!
//! A peer allows so many streams on a connection and lets further ones wait in silence, so that the
//! pool counts them itself: from the request until its response's body ended or was dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::SendRequest;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::pick;
use crate::body::Body;

/// Beyond this, a stream waits for its turn on the least used connection.
const MAX_CONNECTIONS: usize = 16;

// === Connection ===

/// One HTTP/2 connection.
#[derive(Debug)]
pub(super) struct Connection {
    requests: SendRequest<Body>,
    streams_allowed: Arc<AtomicUsize>,
    in_flight: AtomicUsize,
    was_used: AtomicBool,
    generation: u64,
    closed: CancellationToken,
}

impl Connection {
    /// Wraps what was dialled under the given state of the TLS files; `closed` cuts it.
    pub(super) fn new(
        requests: SendRequest<Body>,
        streams_allowed: Arc<AtomicUsize>,
        generation: u64,
        closed: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            requests,
            streams_allowed,
            in_flight: AtomicUsize::new(0),
            was_used: AtomicBool::new(true),
            generation,
            closed,
        })
    }

    /// Counts one more stream.
    pub(super) fn permit(self: &Arc<Self>) -> Permit {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.was_used.store(true, Ordering::Relaxed);
        Permit(self.clone())
    }

    /// Closes the connection unless it is disarmed.
    pub(super) fn guard(&self) -> DropGuard {
        self.closed.clone().drop_guard()
    }

    /// Ends the connection and everything on it.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn is_open(&self) -> bool {
        !self.requests.is_closed() && !self.closed.is_cancelled()
    }

    fn has_room(&self) -> bool {
        self.in_flight() < pick::stream_limit(self.streams_allowed.load(Ordering::Relaxed))
    }
}

/// The right to one stream; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Permit(Arc<Connection>);

impl Permit {
    /// Sends a request; an error holds the request if nothing of it left.
    pub(super) async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        let mut requests = self.0.requests.clone();
        requests.try_send_request(request).await
    }

    /// Cancelled when nothing comes over the connection any more.
    pub(super) fn closed(&self) -> CancellationToken {
        self.0.closed.clone()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

// === Pool ===

/// The open connections, and whether another one is being dialled.
#[derive(Debug, Default)]
pub(super) struct Pool {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    connections: Vec<Arc<Connection>>,
    is_dialing: bool,
    /// How many connections have come so far.
    added: u64,
    /// How many dials have ended without one.
    failed_dials: u64,
}

impl Pool {
    /// A stream on a connection with room, dialled since the TLS files last changed.
    pub(super) fn take(&self, generation: u64) -> Option<Permit> {
        let mut inner = self.inner.lock();
        inner.connections.retain(|connection| connection.is_open());
        let current = || {
            let connections = inner.connections.iter();
            connections.filter(move |connection| connection.generation >= generation)
        };
        // The oldest first, so that the younger ones run empty and can be closed.
        if let Some(connection) = current().find(|connection| connection.has_room()) {
            return Some(connection.permit());
        }
        if inner.connections.len() < MAX_CONNECTIONS {
            return None;
        }
        let least_used = current().min_by_key(|connection| connection.in_flight())?;
        Some(least_used.permit())
    }

    /// Resolves when a connection came or the dial ended; to be made before `take` is asked.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// The right to dial, unless somebody has it.
    pub(super) fn begin_dial(self: &Arc<Self>) -> Option<Dialing> {
        let mut inner = self.inner.lock();
        if inner.is_dialing {
            return None;
        }
        inner.is_dialing = true;
        Some(Dialing {
            pool: self.clone(),
            added: inner.added,
        })
    }

    /// How many dials have ended without a connection.
    pub(super) fn failed_dials(&self) -> u64 {
        self.inner.lock().failed_dials
    }

    /// Adds a connection.
    pub(super) fn add(&self, connection: Arc<Connection>) {
        let mut inner = self.inner.lock();
        inner.connections.push(connection);
        inner.added += 1;
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Forgets a connection that takes no more requests.
    pub(super) fn remove(&self, gone: &Arc<Connection>) {
        let mut inner = self.inner.lock();
        inner.connections.retain(|one| !Arc::ptr_eq(one, gone));
    }

    /// Closes what was idle since the last sweep, except for the given number of connections.
    pub(super) fn sweep(&self, keep: usize, generation: u64) {
        let mut inner = self.inner.lock();
        let mut kept = 0;
        inner.connections.retain(|connection| {
            let was_used = connection.was_used.swap(false, Ordering::Relaxed);
            let is_current = connection.generation >= generation;
            if connection.in_flight() > 0 || (is_current && (was_used || kept < keep)) {
                kept += usize::from(is_current);
                return true;
            }
            connection.close();
            false
        });
    }
}

/// The right to dial for a pool, given back when dropped.
#[derive(Debug)]
pub(super) struct Dialing {
    pool: Arc<Pool>,
    /// How many connections had come when it began.
    added: u64,
}

impl Drop for Dialing {
    fn drop(&mut self) {
        let mut inner = self.pool.inner.lock();
        inner.is_dialing = false;
        inner.failed_dials += u64::from(inner.added == self.added);
        drop(inner);
        self.pool.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::DuplexStream;

    use super::*;

    /// A connection to nobody, which allows five streams of which four are used.
    async fn connection(generation: u64) -> (Arc<Connection>, impl Sized) {
        let (near, far): (_, DuplexStream) = tokio::io::duplex(1024);
        let (requests, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(near))
            .await
            .unwrap();
        let closed = CancellationToken::new();
        let allowed = Arc::new(AtomicUsize::new(5));
        let connection = Connection::new(requests, allowed, generation, closed);
        (connection, (driver, far))
    }

    fn is_same(permit: Option<&Permit>, connection: &Arc<Connection>) -> bool {
        permit.is_some_and(|permit| Arc::ptr_eq(&permit.0, connection))
    }

    #[tokio::test]
    async fn the_oldest_connection_with_room_is_taken() {
        let pool = Arc::new(Pool::default());
        let ((first, _first), (second, _second)) = (connection(0).await, connection(0).await);
        pool.add(first.clone());
        pool.add(second.clone());
        let mut permits: Vec<_> = (0..4).map(|_| pool.take(0)).collect();
        assert!(
            permits
                .iter()
                .all(|permit| is_same(permit.as_ref(), &first))
        );
        assert!(is_same(pool.take(0).as_ref(), &second));
        permits.pop();
        assert!(is_same(pool.take(0).as_ref(), &first));
    }

    #[tokio::test]
    async fn a_full_pool_shares_its_least_used_connection() {
        let pool = Arc::new(Pool::default());
        let mut held = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            assert!(pool.take(0).is_none());
            let (connection, peer) = connection(0).await;
            pool.add(connection);
            let permits: Vec<_> = (0..4).map(|_| pool.take(0).unwrap()).collect();
            held.push((permits, peer));
        }
        held[7].0.clear();
        let spare: Vec<_> = (0..6).map(|_| pool.take(0).unwrap()).collect();
        let used: Vec<_> = spare.iter().map(|permit| permit.0.in_flight()).collect();
        // Four fill the empty one, the others are spread.
        assert_eq!(used, [4, 4, 4, 4, 5, 5]);
    }

    #[tokio::test]
    async fn a_connection_of_a_replaced_certificate_takes_no_more_requests() {
        let pool = Arc::new(Pool::default());
        let (old, _old) = connection(0).await;
        pool.add(old.clone());
        let permit = pool.take(0).unwrap();
        assert!(pool.take(1).is_none());
        pool.sweep(1, 1);
        assert!(old.is_open(), "a request is still in flight");
        drop(permit);
        pool.sweep(1, 1);
        assert!(!old.is_open());
    }

    #[tokio::test]
    async fn a_sweep_closes_what_was_idle_since_the_last_one() {
        let pool = Arc::new(Pool::default());
        let ((first, _first), (second, _second)) = (connection(0).await, connection(0).await);
        pool.add(first.clone());
        pool.add(second.clone());
        pool.sweep(1, 0);
        assert!(second.is_open(), "it was used since the last sweep");
        pool.sweep(1, 0);
        assert!(first.is_open() && !second.is_open());
        pool.sweep(0, 0);
        assert!(!first.is_open());
        assert!(pool.take(0).is_none());
    }

    #[tokio::test]
    async fn one_dial_at_a_time_and_one_without_a_connection_has_failed() {
        let pool = Arc::new(Pool::default());
        let dialing = pool.begin_dial();
        assert!(dialing.is_some() && pool.begin_dial().is_none());
        drop(dialing);
        assert_eq!(pool.failed_dials(), 1);
        let dialing = pool.begin_dial();
        assert!(dialing.is_some());
        let (connection, _peer) = connection(0).await;
        pool.add(connection);
        drop(dialing);
        assert_eq!(pool.failed_dials(), 1);
    }
}
