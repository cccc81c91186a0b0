//! Which events wait, and which go: the oldest, where there is no room.

use std::collections::VecDeque;

use super::Event;

/// Events that are kept at most: the kubelet's own recorder lets 25 an object through in five minutes.
pub(super) const COUNT: usize = 2_000;

/// Their bytes at most.
pub(super) const BYTES: usize = 2 << 20;

/// How often an event is told that the cloud cannot take: as client-go's recorder does (`maxTriesPerEvent`).
pub(super) const TRIES: u32 = 12;

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) entries: VecDeque<Entry>,
    pub(super) bytes: usize,
    pub(super) last: u64,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    /// Path and name.
    id: String,
    len: usize,
    /// How often the cloud could not take it.
    tries: u32,
}

/// What a new event changes in the queue.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) entry: Entry,
    /// The earlier event of its name.
    pub(super) replaced: Option<u64>,
    /// The oldest, where there is no room.
    pub(super) dropped: Vec<u64>,
}

/// What is at the front of the queue after an event was postponed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Untried,
    Tried,
}

impl Queue {
    pub(super) fn push(&mut self, number: u64, event: &Event) {
        self.add(Entry::new(number, event));
    }

    fn add(&mut self, entry: Entry) {
        self.last = self.last.max(entry.number);
        self.bytes += entry.len;
        self.entries.push_back(entry);
    }

    /// Finds out what an event changes, without changing anything.
    pub(super) fn plan(&self, event: &Event) -> Plan {
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

    pub(super) fn follow(&mut self, plan: Plan) {
        for number in plan.replaced.into_iter().chain(plan.dropped) {
            self.forget(number);
        }
        self.add(plan.entry);
    }

    /// Puts an event that could not be taken behind the others; `None` if it was tried often enough.
    pub(super) fn postpone(&mut self, number: u64) -> Option<Next> {
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

    pub(super) fn forget(&mut self, number: u64) {
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
