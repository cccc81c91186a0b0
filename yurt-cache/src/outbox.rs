//! Events that happened while the cloud was away, kept until it is back: bounded, the oldest dropped and counted.

mod figures;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, StatusCode};
use parking_lot::Mutex;
use yurt_core::backoff::Backoff;
use yurt_core::store::{Batch, Result, Store};

use crate::body;
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
}

/// What became of an attempt to deliver an event.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Taken,
    Exists,
    Refused(StatusCode),
    Later,
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
        let mut queue = self.queue.lock();
        let mut batch = Batch::new();
        if let Some(number) = queue.remove(&event.id()) {
            batch.delete(stored_key(number));
        }
        queue.last += 1;
        let number = queue.last;
        batch.put(stored_key(number), event.encode());
        queue.push(number, &event);
        let mut dropped = 0;
        while queue.entries.len() > COUNT || queue.bytes > BYTES {
            let Some(oldest) = queue.pop() else { break };
            batch.delete(stored_key(oldest));
            dropped += 1;
        }
        self.dropped.fetch_add(dropped, Ordering::Relaxed);
        // Under the lock, so that a number is in the store before anybody delivers it.
        self.store.write(batch)
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
            let mut sent = send(upstream, &event, Method::POST).await;
            if sent == Sent::Exists {
                sent = send(upstream, &event, Method::PUT).await;
            }
            let counter = match sent {
                Sent::Taken => &self.delivered,
                Sent::Exists => &self.refused,
                Sent::Refused(code) => {
                    tracing::debug!(%code, name = event.name, "the cloud does not want an event");
                    &self.refused
                }
                Sent::Later => {
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
            let mut queue = this.queue.lock();
            queue.forget(number);
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

async fn send(upstream: &Upstream, event: &Event, method: Method) -> Sent {
    let uri = if method == Method::PUT {
        format!("{}/{}", event.path, event.name)
    } else {
        event.path.clone()
    };
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header(CONTENT_TYPE, &event.content_type)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, AGENT)
        .body(body::full(event.body.clone()));
    let Ok(request) = request else {
        return Sent::Refused(StatusCode::BAD_REQUEST);
    };
    match upstream.send(Caller::Node.credential(), request).await {
        Ok(response) => match response.status() {
            code if code.is_success() => Sent::Taken,
            StatusCode::CONFLICT => Sent::Exists,
            StatusCode::TOO_MANY_REQUESTS => Sent::Later,
            code if code.is_client_error() => Sent::Refused(code),
            _ => Sent::Later,
        },
        Err(_) => Sent::Later,
    }
}

impl Queue {
    fn push(&mut self, number: u64, event: &Event) {
        let entry = Entry {
            number,
            id: event.id(),
            len: event.body.len() + event.path.len() + 128,
        };
        self.bytes += entry.len;
        self.entries.push_back(entry);
    }

    fn pop(&mut self) -> Option<u64> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.len;
        Some(entry.number)
    }

    fn remove(&mut self, id: &str) -> Option<u64> {
        let place = self.entries.iter().position(|entry| entry.id == id)?;
        let entry = self.entries.remove(place)?;
        self.bytes -= entry.len;
        Some(entry.number)
    }

    fn forget(&mut self, number: u64) {
        if let Some(place) = self.entries.iter().position(|entry| entry.number == number)
            && let Some(entry) = self.entries.remove(place)
        {
            self.bytes -= entry.len;
        }
    }
}

impl Event {
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
    fn damaged_entries_are_nothing() {
        for garbage in ["", "a", "a\nb", "a\nb\nc"] {
            assert_eq!(Event::decode(Bytes::from_static(garbage.as_bytes())), None);
        }
    }
}
