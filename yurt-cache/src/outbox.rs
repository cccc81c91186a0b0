//! Events that happened while the cloud was away, kept until it is back: bounded, the oldest dropped and counted.

mod figures;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use serde::Deserialize;
use yurt_core::backoff::Backoff;
use yurt_core::store::{Batch, Result, Store};

use crate::body::{self, Body};
use crate::codec::protobuf;
use crate::identity::Caller;
use crate::tasks::blocking;
use crate::upstream::{AGENT, Upstream};

pub(crate) use self::figures::Figures;

/// What of a store's keys is ours.
const PREFIX: &[u8] = b"e/";

/// Events that are kept at most: the kubelet's own recorder lets 25 an object through in five minutes.
const COUNT: usize = 2_000;

/// Their bytes at most.
const BYTES: usize = 2 << 20;

/// The longest event that is kept: the server takes messages of 1 kB, and notes of as much.
const LONGEST: usize = 32 << 10;

/// How often an event is told that the cloud cannot take: as client-go's recorder does (`maxTriesPerEvent`).
const TRIES: u32 = 12;

/// The longest event that is read from the cloud, to see which is later.
const LONGEST_THERE: usize = 256 << 10;

/// The shortest and the longest wait when the cloud does not take an event now.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// An event as its teller posted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Where it was posted: the path of the namespace's events.
    pub(crate) path: String,
    pub(crate) name: String,
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

/// The queue; its events are in the store.
#[derive(Debug)]
pub(crate) struct Outbox {
    store: Arc<dyn Store>,
    /// Held by whoever changes queue and store together; the store may be slow, so nobody else waits for it.
    writing: Mutex<()>,
    queue: Mutex<Queue>,
    pub(crate) dropped: AtomicU64,
    pub(crate) delivered: AtomicU64,
    /// What the cloud did not want.
    pub(crate) refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    last: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    /// Path and name.
    id: String,
    len: usize,
    /// How often the cloud could not take it.
    tries: u32,
}

/// What a new event changes in the queue.
#[derive(Debug)]
struct Plan {
    entry: Entry,
    /// The earlier event of its name.
    replaced: Option<u64>,
    /// The oldest, where there is no room.
    dropped: Vec<u64>,
}

/// What became of an attempt to deliver an event.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Taken,
    Exists,
    Refused(StatusCode),
    /// The cloud has answered that it cannot.
    Failed(StatusCode),
    /// There was no answer.
    Unheard,
}

impl Outbox {
    /// Opens what the store remembers. Blocks on the store.
    pub(crate) fn open(store: Arc<dyn Store>) -> Result<Self> {
        let mut numbers = Vec::new();
        store.keys(PREFIX, None, &mut |key, _| {
            numbers.extend(number(key));
            ControlFlow::Continue(())
        })?;
        let mut queue = Queue::default();
        for number in numbers {
            queue.last = queue.last.max(number);
            let stored = store.get(&stored_key(number)).ok().flatten();
            if let Some(event) = stored.and_then(Event::decode) {
                queue.push(number, &event);
            }
        }
        Ok(Self {
            store,
            writing: Mutex::default(),
            queue: Mutex::new(queue),
            dropped: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Queues an event, in the place of an earlier one of its name. Blocks on the store.
    ///
    /// # Errors
    /// If the store takes no write; then it is not queued.
    pub(crate) fn push(&self, event: Event) -> Result<()> {
        if event.body.len() > LONGEST {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let _writing = self.writing.lock();
        let plan = self.queue.lock().plan(&event);
        let mut batch = Batch::new();
        for number in plan.replaced.iter().chain(&plan.dropped) {
            batch.delete(stored_key(*number));
        }
        batch.put(stored_key(plan.entry.number), event.encode());
        // Before it is in the queue, so that a number is in the store before anybody delivers it.
        self.store.write(batch)?;
        let dropped = u64::try_from(plan.dropped.len()).unwrap_or(u64::MAX);
        self.dropped.fetch_add(dropped, Ordering::Relaxed);
        self.queue.lock().follow(plan);
        Ok(())
    }

    /// Returns how many events wait, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.entries.len(), queue.bytes)
    }

    /// Tells the cloud, the oldest first, until nothing is left; waits where the cloud takes none now.
    ///
    /// # Cancel safety
    /// An event whose answer was not heard is told again: the server knows it by its name.
    pub(crate) async fn deliver(self: &Arc<Self>, upstream: &Upstream) {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        while let Some(number) = self.first() {
            let (store, key) = (self.store.clone(), stored_key(number));
            let stored = blocking(move || store.get(&key)).await;
            let Some(event) = stored.ok().flatten().and_then(Event::decode) else {
                self.forget(number).await;
                continue;
            };
            let counter = match tell(upstream, &event).await {
                Sent::Taken | Sent::Exists => &self.delivered,
                Sent::Refused(code) => {
                    tracing::debug!(%code, name = event.name, "the cloud does not want an event");
                    &self.refused
                }
                Sent::Failed(code) => {
                    let postponed = self.queue.lock().postpone(number);
                    // What may be the event's own fault holds up nobody who has not been tried yet.
                    match postponed {
                        None => {
                            tracing::warn!(%code, name = event.name, "the cloud cannot take an event: it is dropped");
                            &self.refused
                        }
                        Some(Next::Untried) if code == StatusCode::INTERNAL_SERVER_ERROR => {
                            continue;
                        }
                        Some(Next::Untried | Next::Tried) => {
                            tokio::time::sleep(backoff.next_delay(fastrand::f64())).await;
                            continue;
                        }
                    }
                }
                Sent::Unheard => {
                    tokio::time::sleep(backoff.next_delay(fastrand::f64())).await;
                    continue;
                }
            };
            backoff.reset();
            counter.fetch_add(1, Ordering::Relaxed);
            self.forget(number).await;
        }
    }

    fn first(&self) -> Option<u64> {
        self.queue.lock().entries.front().map(|entry| entry.number)
    }

    async fn forget(self: &Arc<Self>, number: u64) {
        let this = self.clone();
        let forgotten = blocking(move || {
            let _writing = this.writing.lock();
            this.queue.lock().forget(number);
            let mut batch = Batch::new();
            batch.delete(stored_key(number));
            this.store.write(batch)
        })
        .await;
        if let Err(error) = forgotten {
            tracing::warn!(%error, "a delivered event stays in the store");
        }
    }
}

/// Tells the cloud one event. One that it has may be what it was told before without an answer, and may have been
/// counted up since: only a later word replaces it.
async fn tell(upstream: &Upstream, event: &Event) -> Sent {
    match send(upstream, event, Method::POST).await {
        Ok(_) => Sent::Taken,
        Err(Sent::Exists) => {
            let there = match send(upstream, event, Method::GET).await {
                Ok(response) => body::read(response.into_body(), LONGEST_THERE).await,
                Err(failed) => return failed,
            };
            let Ok(there) = there else {
                return Sent::Unheard;
            };
            if event.count() <= json_count(&there) {
                return Sent::Exists;
            }
            let sent = send(upstream, event, Method::PUT).await;
            sent.map_or_else(|failed| failed, |_| Sent::Taken)
        }
        Err(failed) => failed,
    }
}

async fn send(
    upstream: &Upstream,
    event: &Event,
    method: Method,
) -> std::result::Result<Response<Body>, Sent> {
    let request = Request::builder()
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, AGENT);
    let request = match method {
        Method::POST => request.uri(&event.path),
        _ => request.uri(format!("{}/{}", event.path, event.name)),
    };
    let request = match method {
        Method::GET => request.method(method).body(body::empty()),
        _ => request
            .method(method)
            .header(CONTENT_TYPE, &event.content_type)
            .body(body::full(event.body.clone())),
    };
    let Ok(request) = request else {
        return Err(Sent::Refused(StatusCode::BAD_REQUEST));
    };
    let sent = upstream.send(Caller::Node.credential(), request).await;
    let response = sent.map_err(|_| Sent::Unheard)?;
    match response.status() {
        code if code.is_success() => Ok(response),
        StatusCode::CONFLICT => Err(Sent::Exists),
        StatusCode::TOO_MANY_REQUESTS => Err(Sent::Failed(StatusCode::TOO_MANY_REQUESTS)),
        code if code.is_client_error() => Err(Sent::Refused(code)),
        code => Err(Sent::Failed(code)),
    }
}

/// What is at the front of the queue after an event was postponed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Untried,
    Tried,
}

impl Queue {
    fn push(&mut self, number: u64, event: &Event) {
        self.add(Entry::new(number, event));
    }

    fn add(&mut self, entry: Entry) {
        self.last = self.last.max(entry.number);
        self.bytes += entry.len;
        self.entries.push_back(entry);
    }

    /// Finds out what an event changes, without changing anything.
    fn plan(&self, event: &Event) -> Plan {
        let entry = Entry::new(self.last + 1, event);
        let earlier = self.entries.iter().find(|one| one.id == entry.id);
        let replaced = earlier.map(|one| one.number);
        let mut count = self.entries.len() + 1 - usize::from(earlier.is_some());
        let mut bytes = self.bytes + entry.len - earlier.map_or(0, |one| one.len);
        let mut dropped = Vec::new();
        for oldest in &self.entries {
            if count <= COUNT && bytes <= BYTES {
                break;
            }
            if Some(oldest.number) != replaced {
                dropped.push(oldest.number);
                count -= 1;
                bytes -= oldest.len;
            }
        }
        Plan {
            entry,
            replaced,
            dropped,
        }
    }

    fn follow(&mut self, plan: Plan) {
        for number in plan.replaced.into_iter().chain(plan.dropped) {
            self.forget(number);
        }
        self.add(plan.entry);
    }

    /// Puts an event that could not be taken behind the others; `None` if it was tried often enough.
    fn postpone(&mut self, number: u64) -> Option<Next> {
        // One that was replaced meanwhile is nobody's business any more.
        if let Some(mut entry) = self.take(number) {
            entry.tries += 1;
            if entry.tries >= TRIES {
                self.entries.push_front(entry);
                return None;
            }
            self.entries.push_back(entry);
        }
        let next = self.entries.front()?;
        Some(if next.tries == 0 {
            Next::Untried
        } else {
            Next::Tried
        })
    }

    fn take(&mut self, number: u64) -> Option<Entry> {
        let place = self
            .entries
            .iter()
            .position(|entry| entry.number == number)?;
        self.entries.remove(place)
    }

    fn forget(&mut self, number: u64) {
        if let Some(entry) = self.take(number) {
            self.bytes -= entry.len;
        }
    }
}

impl Entry {
    fn new(number: u64, event: &Event) -> Self {
        Self {
            number,
            id: event.id(),
            len: event.body.len() + event.path.len() + 128,
            tries: 0,
        }
    }
}

/// Returns how often what an event tells of has happened; 0 where it does not say.
fn json_count(event: &[u8]) -> u64 {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Counted {
        count: Option<u64>,
        /// The same in `events.k8s.io`.
        deprecated_count: Option<u64>,
        series: Option<Series>,
    }
    #[derive(Deserialize)]
    struct Series {
        count: Option<u64>,
    }
    let Ok(event) = serde_json::from_slice::<Counted>(event) else {
        return 0;
    };
    let series = event.series.and_then(|series| series.count);
    let counts = [event.count, event.deprecated_count, series];
    counts.into_iter().flatten().max().unwrap_or(0)
}

impl Event {
    /// Returns how often it has happened; 0 where that cannot be read.
    fn count(&self) -> u64 {
        if self.content_type.starts_with(protobuf::MEDIA_TYPE) {
            protobuf::event_count(&self.body).unwrap_or(0)
        } else {
            json_count(&self.body)
        }
    }

    fn id(&self) -> String {
        format!("{}/{}", self.path, self.name)
    }

    /// Three lines, then the body.
    fn encode(&self) -> Bytes {
        let head = format!("{}\n{}\n{}\n", self.path, self.name, self.content_type);
        let mut bytes = BytesMut::with_capacity(head.len() + self.body.len());
        bytes.put_slice(head.as_bytes());
        bytes.put_slice(&self.body);
        bytes.freeze()
    }

    fn decode(mut bytes: Bytes) -> Option<Self> {
        let mut line = || {
            let end = bytes.iter().position(|byte| *byte == b'\n')?;
            let line = std::str::from_utf8(&bytes[..end]).ok()?.to_owned();
            bytes = bytes.slice(end + 1..);
            Some(line)
        };
        let (path, name, content_type) = (line()?, line()?, line()?);
        Some(Self {
            path,
            name,
            content_type,
            body: bytes,
        })
    }
}

fn stored_key(number: u64) -> Bytes {
    format!("e/{number:016x}").into()
}

fn number(key: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(key.strip_prefix(PREFIX)?).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use yurt_core::testing::fault::{Call, FailNth, FaultyStore, SlowStore};

    use super::*;
    use crate::store::MemoryStore;

    fn event(name: &str, body: &str) -> Event {
        Event {
            path: "/api/v1/namespaces/a/events".into(),
            name: name.into(),
            content_type: "application/json".into(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn queued(outbox: &Outbox) -> Vec<String> {
        let queue = outbox.queue.lock();
        queue
            .entries
            .iter()
            .map(|entry| {
                let stored = outbox.store.get(&stored_key(entry.number)).unwrap();
                Event::decode(stored.unwrap()).unwrap().name
            })
            .collect()
    }

    #[test]
    fn events_wait_in_their_order_over_a_restart_and_a_later_word_replaces_an_earlier_one() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let outbox = Outbox::open(store.clone()).unwrap();
        for (name, body) in [("a", "1"), ("b", "1"), ("a", "2\n\n3")] {
            outbox.push(event(name, body)).unwrap();
        }
        assert_eq!(queued(&outbox), ["b", "a"]);
        let again = Outbox::open(store.clone()).unwrap();
        assert_eq!(queued(&again), ["b", "a"]);
        assert_eq!(again.size(), outbox.size());
        let last = store.get(&stored_key(3)).unwrap().unwrap();
        assert_eq!(Event::decode(last).unwrap(), event("a", "2\n\n3"));
        again.push(event("c", "1")).unwrap();
        assert_eq!(queued(&again), ["b", "a", "c"]);
    }

    #[test]
    fn the_oldest_are_dropped_and_counted_beyond_the_bounds() {
        let outbox = Outbox::open(Arc::new(MemoryStore::default())).unwrap();
        for number in 0..COUNT + 3 {
            outbox.push(event(&format!("e{number}"), "{}")).unwrap();
        }
        assert_eq!(outbox.size().0, COUNT);
        assert_eq!(outbox.dropped.load(Ordering::Relaxed), 3);
        assert_eq!(queued(&outbox)[0], "e3");
        let long = "x".repeat(LONGEST);
        for number in 0..BYTES / LONGEST + 1 {
            outbox.push(event(&format!("long{number}"), &long)).unwrap();
        }
        assert!(outbox.size().1 <= BYTES);
        outbox
            .push(event("endless", &"x".repeat(LONGEST + 1)))
            .unwrap();
        assert!(!queued(&outbox).contains(&"endless".to_owned()));
        let stored = outbox.size().0;
        let mut kept = 0;
        outbox
            .store
            .keys(PREFIX, None, &mut |_, _| {
                kept += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(
            kept, stored,
            "nothing is left in the store of what was dropped"
        );
    }

    #[test]
    fn an_event_that_cannot_be_stored_leaves_the_earlier_one_of_its_name_in_its_place() {
        let faulty = FaultyStore::new(MemoryStore::default(), FailNth(2));
        let outbox = Outbox::open(Arc::new(faulty)).unwrap();
        outbox.push(event("a", "1")).unwrap();
        let before = outbox.size();
        assert!(outbox.push(event("a", "a longer one")).is_err());
        assert_eq!(outbox.size(), before);
        assert_eq!(queued(&outbox), ["a"]);
        outbox.push(event("b", "1")).unwrap();
        assert_eq!(queued(&outbox), ["a", "b"]);
    }

    #[test]
    fn a_slow_disk_keeps_nobody_from_the_queue() {
        let (begins, begun) = mpsc::channel();
        let (goes, go) = mpsc::channel::<()>();
        let go = Mutex::new(go);
        let slow = SlowStore::new(MemoryStore::default(), move |call| {
            if call == Call::Write {
                begins.send(()).unwrap();
                go.lock().recv().unwrap();
            }
        });
        let outbox = Outbox::open(Arc::new(slow)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| outbox.push(event("a", "1")).unwrap());
            begun.recv().unwrap();
            let (tells, told) = mpsc::channel();
            let outbox = &outbox;
            scope.spawn(move || tells.send((outbox.size().0, outbox.first())));
            let seen = told.recv_timeout(Duration::from_secs(5));
            goes.send(()).unwrap();
            assert_eq!(seen, Ok((0, None)), "while the disk takes its time");
        });
        assert_eq!(outbox.size().0, 1);
    }

    #[test]
    fn an_event_that_the_cloud_cannot_take_goes_behind_the_others_and_is_given_up_in_the_end() {
        let outbox = Outbox::open(Arc::new(MemoryStore::default())).unwrap();
        for name in ["odd", "a"] {
            outbox.push(event(name, "1")).unwrap();
        }
        let mut queue = outbox.queue.lock();
        assert_eq!(queue.postpone(1), Some(Next::Untried));
        assert_eq!(queue.entries[0].number, 2);
        queue.forget(2);
        for _ in 2..TRIES {
            assert_eq!(queue.postpone(1), Some(Next::Tried));
        }
        assert_eq!(queue.postpone(1), None);
        assert_eq!(
            queue.entries[0].number, 1,
            "it is for the caller to forget it"
        );
        assert_eq!(
            queue.postpone(77),
            Some(Next::Tried),
            "one that was replaced"
        );
    }

    #[test]
    fn how_often_it_happened_is_read_in_each_form() {
        for (text, count) in [
            (r#"{"count":3}"#, 3),
            (r#"{"deprecatedCount":4,"count":null}"#, 4),
            (r#"{"count":1,"series":{"count":9}}"#, 9),
            ("{}", 0),
            ("garbage", 0),
        ] {
            assert_eq!(event("a", text).count(), count, "{text}");
        }
        let strange = Event {
            content_type: protobuf::MEDIA_TYPE.into(),
            ..event("a", "garbage")
        };
        assert_eq!(strange.count(), 0);
    }

    #[test]
    fn damaged_entries_are_nothing() {
        for garbage in ["", "a", "a\nb", "a\nb\nc"] {
            assert_eq!(Event::decode(Bytes::from_static(garbage.as_bytes())), None);
        }
    }
}
