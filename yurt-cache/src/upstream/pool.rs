//! The connections to one API server under one credential, and the requests on them.
//!
//! A peer of HTTP/2 allows so many streams on a connection and lets further ones wait in silence, so that the
//! pool counts them itself: from the request until its response's body ended or was dropped. A peer of HTTP/1.1
//! takes one request at a time: a connection is a stream. Streams that last have shares, so that there is always room for
//! those that end soon.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::pick;
use super::sender::Sender;
use super::streams::{Lasting, Purpose};
use crate::body::Body;
use crate::limits::Tenant;

/// With 80 streams on each, all mirrors of a hub can be watched, and an eighth of the streams is left.
const MAX_CONNECTIONS: usize = 32;

/// Beyond this, a request waits until one of HTTP/1.1 is free.
const MAX_HTTP1: usize = 512;

/// Dials at a time to a server of HTTP/1.1, where a connection does for one request only.
const HTTP1_DIALS: usize = 32;

/// The same where no request shares a connection.
const EXCLUSIVE_DIALS: usize = 8;

// === Connection ===

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    sender: Sender,
    in_flight: AtomicUsize,
    was_used: AtomicBool,
    /// Its server takes no more requests on it.
    is_retired: AtomicBool,
    generation: u64,
    closed: CancellationToken,
    /// Told when a request has ended on a connection of HTTP/1.1.
    changed: Arc<Notify>,
}

impl Connection {
    /// Wraps what was dialled under the given state of the TLS files; `closed` cuts it.
    pub(super) fn new(
        sender: Sender,
        generation: u64,
        closed: CancellationToken,
        changed: Arc<Notify>,
    ) -> Arc<Self> {
        Arc::new(Self {
            sender,
            in_flight: AtomicUsize::new(0),
            was_used: AtomicBool::new(true),
            is_retired: AtomicBool::new(false),
            generation,
            closed,
            changed,
        })
    }

    /// Counts one more request.
    pub(super) fn permit(self: &Arc<Self>) -> Permit {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.was_used.store(true, Ordering::Relaxed);
        Permit {
            connection: self.clone(),
            is_over: false,
            place: None,
        }
    }

    pub(super) fn is_http1(&self) -> bool {
        self.sender.is_http1()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight() == 0
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
        let takes_requests = !self.is_retired.load(Ordering::Relaxed);
        takes_requests && !self.sender.is_closed() && !self.closed.is_cancelled()
    }

    fn has_room(&self) -> bool {
        self.sender.has_room(self.in_flight())
    }
}

/// The right to one request; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    connection: Arc<Connection>,
    is_over: bool,
    /// Dropped after the connection is free.
    place: Option<Place>,
}

/// A stream's place in its pool.
#[derive(Debug)]
struct Place {
    pool: Arc<Pool>,
    /// Whose share it is of, if it lasts.
    holder: Option<Tenant>,
}

/// What a pool gives to who wants a stream.
#[derive(Debug)]
pub(super) enum Taken {
    Stream(Permit),
    /// There is none on any connection: another one is to be dialled.
    Dial,
    /// There can be none until one ends.
    Full,
    /// So many last already that the others are for requests that end soon, or for others.
    NoShare,
}

impl Permit {
    /// Sends a request; an error holds the request if nothing of it left.
    pub(super) async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        self.connection.sender.send(request).await
    }

    pub(super) fn is_http1(&self) -> bool {
        self.connection.is_http1()
    }

    /// Cancelled when nothing comes over the connection any more.
    pub(super) fn closed(&self) -> CancellationToken {
        self.connection.closed.clone()
    }

    /// Gives the right back after the whole answer.
    pub(super) fn finish(mut self) {
        self.is_over = true;
    }

    /// Keeps further requests from a connection whose server has said that it takes none.
    pub(super) fn retire(&self) {
        self.connection.is_retired.store(true, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let connection = &self.connection;
        if connection.is_http1() && !self.is_over {
            // The rest of the answer is in the way of the next one.
            connection.close();
        }
        connection.in_flight.fetch_sub(1, Ordering::Relaxed);
        if connection.is_http1() {
            connection.changed.notify_waiters();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(holder) = &self.holder {
            self.pool.inner.lock().lasting.end(holder);
        }
        self.pool.changed.notify_waiters();
    }
}

// === Pool ===

/// The open connections, and how many more are being dialled.
#[derive(Debug, Default)]
pub(super) struct Pool {
    inner: Mutex<Inner>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    connections: Vec<Arc<Connection>>,
    lasting: Lasting,
    /// Each request has a connection of its own: a server ends that of one whose token it refuses.
    is_exclusive: bool,
    dialing: usize,
    /// The server speaks HTTP/1.1, as far as the last connection says.
    is_http1: bool,
    /// How many connections have come so far.
    added: u64,
    /// How many dials have ended without one.
    failed_dials: u64,
}

impl Pool {
    /// Makes one whose requests share no connection.
    pub(super) fn exclusive() -> Self {
        let inner = Inner {
            is_exclusive: true,
            ..Inner::default()
        };
        Self {
            inner: Mutex::new(inner),
            changed: Arc::default(),
        }
    }

    /// A stream on a connection with room, dialled since the TLS files last changed.
    pub(super) fn take(self: &Arc<Self>, generation: u64, purpose: &Purpose) -> Taken {
        let mut inner = self.inner.lock();
        inner.connections.retain(|connection| connection.is_open());
        let holder = match purpose {
            Purpose::Request => None,
            Purpose::Lasting(tenant) if inner.lasting.has_room(tenant, inner.streams()) => {
                Some(tenant)
            }
            Purpose::Lasting(_) => return Taken::NoShare,
        };
        let Some(connection) = inner.choose(generation).cloned() else {
            return match inner.connections.len() < inner.max_connections() {
                true => Taken::Dial,
                false => Taken::Full,
            };
        };
        if let Some(holder) = holder {
            inner.lasting.begin(holder);
        }
        let mut permit = connection.permit();
        permit.place = Some(Place {
            pool: self.clone(),
            holder: holder.cloned(),
        });
        Taken::Stream(permit)
    }

    /// Returns how many streams last, and how many may.
    pub(super) fn lasting(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.lasting.total(), Lasting::limit(inner.streams()))
    }

    /// Resolves when a connection came, or a dial or a stream ended; to be made before `take` is asked.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// What connections tell when they are free.
    pub(super) fn notify(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    /// Whether there is a connection that takes requests.
    pub(super) fn has_open(&self) -> bool {
        let inner = self.inner.lock();
        inner
            .connections
            .iter()
            .any(|connection| connection.is_open())
    }

    /// Whether the server speaks HTTP/1.1, as far as it is known.
    pub(super) fn is_http1(&self) -> bool {
        self.inner.lock().is_http1
    }

    /// The right to dial, unless others have it or there are connections enough.
    pub(super) fn begin_dial(self: &Arc<Self>) -> Option<Dialing> {
        let mut inner = self.inner.lock();
        let (dials, connections) = if inner.is_http1 {
            (HTTP1_DIALS, MAX_HTTP1)
        } else if inner.is_exclusive {
            (EXCLUSIVE_DIALS, MAX_CONNECTIONS)
        } else {
            (1, usize::MAX)
        };
        let are_enough = inner.connections.len() + inner.dialing >= connections;
        if inner.dialing >= dials || are_enough {
            return None;
        }
        inner.dialing += 1;
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
        inner.is_http1 = connection.is_http1();
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

impl Inner {
    /// Returns the connection for the next stream. The oldest with room, so that the younger ones run empty and can be
    /// closed; when there can be no more of them, the least used on which the peer still allows one.
    fn choose(&self, generation: u64) -> Option<&Arc<Connection>> {
        let current = || {
            let connections = self.connections.iter();
            connections.filter(move |connection| connection.generation >= generation)
        };
        let is_free = |connection: &&Arc<Connection>| {
            connection.has_room() && (!self.is_exclusive || connection.in_flight() == 0)
        };
        if let Some(connection) = current().find(is_free) {
            return Some(connection);
        }
        if self.is_http1 || self.is_exclusive || self.connections.len() < MAX_CONNECTIONS {
            return None;
        }
        let allows = |connection: &&Arc<Connection>| {
            !connection.is_http1() && connection.in_flight() < connection.sender.streams_allowed()
        };
        current()
            .filter(allows)
            .min_by_key(|connection| connection.in_flight())
    }

    fn max_connections(&self) -> usize {
        if self.is_http1 {
            MAX_HTTP1
        } else {
            MAX_CONNECTIONS
        }
    }

    /// Returns how many streams there can be.
    fn streams(&self) -> usize {
        if self.is_http1 || self.is_exclusive {
            return self.max_connections();
        }
        let connections = self.connections.iter();
        let limits =
            connections.map(|connection| pick::stream_limit(connection.sender.streams_allowed()));
        MAX_CONNECTIONS * limits.min().unwrap_or(pick::MAX_STREAMS)
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
        inner.dialing -= 1;
        inner.failed_dials += u64::from(inner.added == self.added);
        drop(inner);
        self.pool.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use hyper::client::conn::{http1, http2};
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
        let sender = Sender::Http2 {
            requests,
            streams_allowed: Arc::new(AtomicUsize::new(5)),
        };
        let connection = Connection::new(sender, generation, closed, Arc::default());
        (connection, (driver, far))
    }

    fn take(pool: &Arc<Pool>, generation: u64) -> Option<Permit> {
        match pool.take(generation, &Purpose::Request) {
            Taken::Stream(permit) => Some(permit),
            Taken::Dial | Taken::Full | Taken::NoShare => None,
        }
    }

    fn is_same(permit: Option<&Permit>, connection: &Arc<Connection>) -> bool {
        permit.is_some_and(|permit| Arc::ptr_eq(&permit.connection, connection))
    }

    #[tokio::test]
    async fn the_oldest_connection_with_room_is_taken() {
        let pool = Arc::new(Pool::default());
        let ((first, _first), (second, _second)) = (connection(0).await, connection(0).await);
        pool.add(first.clone());
        pool.add(second.clone());
        let mut permits: Vec<_> = (0..4).map(|_| take(&pool, 0)).collect();
        assert!(
            permits
                .iter()
                .all(|permit| is_same(permit.as_ref(), &first))
        );
        assert!(is_same(take(&pool, 0).as_ref(), &second));
        permits.pop();
        assert!(is_same(take(&pool, 0).as_ref(), &first));
    }

    #[tokio::test]
    async fn a_full_pool_shares_its_least_used_connection() {
        let pool = Arc::new(Pool::default());
        let mut held = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            assert!(take(&pool, 0).is_none());
            let (connection, peer) = connection(0).await;
            pool.add(connection);
            let permits: Vec<_> = (0..4).map(|_| take(&pool, 0).unwrap()).collect();
            held.push((permits, peer));
        }
        held[7].0.clear();
        let spare: Vec<_> = (0..6).map(|_| take(&pool, 0).unwrap()).collect();
        let used: Vec<_> = spare
            .iter()
            .map(|permit| permit.connection.in_flight())
            .collect();
        // Four fill the empty one, the others are spread.
        assert_eq!(used, [4, 4, 4, 4, 5, 5]);
    }

    #[tokio::test]
    async fn in_an_exclusive_pool_no_request_shares_a_connection() {
        let pool = Arc::new(Pool::exclusive());
        let (first, _first) = connection(0).await;
        pool.add(first.clone());
        let permit = take(&pool, 0);
        assert!(is_same(permit.as_ref(), &first));
        assert!(matches!(pool.take(0, &Purpose::Request), Taken::Dial));
        let dialing = [(); EXCLUSIVE_DIALS].map(|()| pool.begin_dial());
        assert!(dialing.iter().all(Option::is_some) && pool.begin_dial().is_none());
        drop(permit);
        assert!(is_same(take(&pool, 0).as_ref(), &first));
    }

    #[tokio::test]
    async fn a_full_pool_gives_no_stream_until_one_ends_and_then_wakes_who_waits() {
        let pool = Arc::new(Pool::default());
        let (mut peers, mut held) = (Vec::new(), Vec::new());
        for _ in 0..MAX_CONNECTIONS {
            let (connection, peer) = connection(0).await;
            pool.add(connection);
            peers.push(peer);
        }
        while let Some(permit) = take(&pool, 0) {
            held.push(permit);
        }
        assert_eq!(held.len(), 5 * MAX_CONNECTIONS, "all that the peer allows");
        assert!(matches!(pool.take(0, &Purpose::Request), Taken::Full));
        let changed = pool.changed();
        held.pop();
        changed.await;
        assert!(take(&pool, 0).is_some());
    }

    #[tokio::test]
    async fn streams_that_last_leave_room_for_requests_and_come_back_with_their_end() {
        let pool = Arc::new(Pool::default());
        let greedy = Purpose::Lasting(Tenant::Caller("greedy".into()));
        let (mut peers, mut held) = (Vec::new(), Vec::new());
        loop {
            match pool.take(0, &greedy) {
                Taken::Stream(permit) => held.push(permit),
                Taken::Dial => {
                    let (connection, peer) = connection(0).await;
                    pool.add(connection);
                    peers.push(peer);
                }
                Taken::Full | Taken::NoShare => break,
            }
        }
        // Four on each connection.
        assert_eq!(held.len(), MAX_CONNECTIONS);
        assert_eq!(
            pool.lasting(),
            (MAX_CONNECTIONS, 4 * MAX_CONNECTIONS / 8 * 7)
        );
        // For requests there is another connection.
        assert!(matches!(pool.take(0, &Purpose::Request), Taken::Dial));
        assert!(!matches!(
            pool.take(0, &Purpose::Lasting(Tenant::Node)),
            Taken::NoShare
        ));
        held.pop();
        assert!(!matches!(pool.take(0, &greedy), Taken::NoShare));
    }

    #[tokio::test]
    async fn a_connection_of_a_replaced_certificate_takes_no_more_requests() {
        let pool = Arc::new(Pool::default());
        let (old, _old) = connection(0).await;
        pool.add(old.clone());
        let permit = take(&pool, 0).unwrap();
        assert!(take(&pool, 1).is_none());
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
        assert!(take(&pool, 0).is_none());
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

    /// A connection of HTTP/1.1 that is ready, and its two ends.
    async fn http1_connection(pool: &Pool) -> (Arc<Connection>, impl Sized) {
        let (near, far): (_, DuplexStream) = tokio::io::duplex(1024);
        let (mut requests, mut driver) = http1::handshake(TokioIo::new(near)).await.unwrap();
        tokio::select! {
            ready = requests.ready() => ready.unwrap(),
            ended = &mut driver => panic!("{ended:?}"),
        }
        let sender = Sender::Http1(Arc::new(Mutex::new(requests)));
        let closed = CancellationToken::new();
        let connection = Connection::new(sender, 0, closed, pool.notify());
        (connection, (driver, far))
    }

    #[tokio::test]
    async fn a_connection_of_http1_takes_one_request_and_is_closed_in_the_middle_of_an_answer() {
        let pool = Arc::new(Pool::default());
        let (connection, _peer) = http1_connection(&pool).await;
        pool.add(connection.clone());
        let permit = take(&pool, 0).unwrap();
        assert!(take(&pool, 0).is_none());
        let changed = pool.changed();
        permit.finish();
        changed.await;
        drop(take(&pool, 0).unwrap());
        assert!(!connection.is_open());
        assert!(take(&pool, 0).is_none());
    }

    #[tokio::test]
    async fn watches_over_http1_leave_connections_to_requests() {
        let pool = Arc::new(Pool::default());
        let watch = Purpose::Lasting(Tenant::Node);
        let (mut peers, mut held) = (Vec::new(), Vec::new());
        loop {
            match pool.take(0, &watch) {
                Taken::Stream(permit) => held.push(permit),
                Taken::Dial => {
                    let (connection, peer) = http1_connection(&pool).await;
                    pool.add(connection);
                    peers.push(peer);
                }
                Taken::Full | Taken::NoShare => break,
            }
        }
        assert_eq!(held.len(), MAX_HTTP1 / 8 * 7);
        for _ in held.len()..MAX_HTTP1 {
            assert!(take(&pool, 0).is_none());
            drop(pool.begin_dial().unwrap());
            let (connection, peer) = http1_connection(&pool).await;
            pool.add(connection);
            peers.push(peer);
            held.push(take(&pool, 0).unwrap());
        }
        assert!(matches!(pool.take(0, &Purpose::Request), Taken::Full));
        assert!(pool.begin_dial().is_none(), "there are enough");
    }

    #[tokio::test]
    async fn a_server_of_http1_is_dialled_many_times_at_once() {
        let pool = Arc::new(Pool::default());
        let first = pool.begin_dial().unwrap();
        assert!(pool.begin_dial().is_none(), "it may speak HTTP/2");
        pool.add(http1_connection(&pool).await.0);
        drop(first);
        let dialing: Vec<_> = (0..HTTP1_DIALS).map(|_| pool.begin_dial()).collect();
        assert!(dialing.iter().all(Option::is_some));
        assert!(pool.begin_dial().is_none());
    }
}
