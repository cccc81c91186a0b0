//! Events that happened while the cloud was away, kept until it is back: bounded, the oldest dropped and counted.

mod collector;
mod deliver;
mod event;
mod queue;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use yurt_core::store::{Batch, Result, Store};

use self::queue::Queue;
use crate::store::layout::EVENTS;
use crate::tasks::blocking;

pub(crate) use self::collector::OutboxCollector;
pub(crate) use self::event::Event;

/// The longest event that is kept: the server takes messages of 1 kB, and notes of as much.
const LONGEST: usize = 32 << 10;

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

impl Outbox {
    /// Opens what the store remembers. Blocks on the store.
    pub(crate) fn open(store: Arc<dyn Store>) -> Result<Self> {
        let mut numbers = Vec::new();
        store.keys(EVENTS.as_bytes(), None, &mut |key, _| {
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

    /// Returns what is to be told next.
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

fn stored_key(number: u64) -> Bytes {
    format!("{EVENTS}{number:016x}").into()
}

fn number(key: &[u8]) -> Option<u64> {
    let number = std::str::from_utf8(key).ok()?.strip_prefix(EVENTS)?;
    u64::from_str_radix(number, 16).ok()
}

#[cfg(test)]
mod tests;
