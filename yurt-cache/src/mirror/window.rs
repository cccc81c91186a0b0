//! The recent events of a mirror. Watchers read it at their own place; nobody waits for a slow one.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::api::ObjectKey;
use crate::codec::EventType;
use crate::codec::fields::Attributes;

/// One step of a mirror's history.
#[derive(Debug)]
pub(crate) enum Step {
    Event(Box<Event>),
    /// A re-list replaced what was there at `from` by what is there at `to`: what changed is to be read from the objects.
    Jump {
        to: u64,
    },
}

/// One event as the server sent it.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) revision: u64,
    /// Its place in the history that clients are told: its revision, or the next if that was told already.
    pub(crate) order: u64,
    pub(crate) event_type: EventType,
    pub(crate) key: ObjectKey,
    /// The event's line, ready to be sent.
    pub(crate) line: Bytes,
    /// The object in the line.
    pub(crate) object: Bytes,
    pub(crate) traits: Attributes,
    /// The object before, where what selectors look at was different.
    pub(crate) before: Option<Before>,
}

/// An object before an event.
#[derive(Debug)]
pub(crate) struct Before {
    pub(crate) traits: Attributes,
    pub(crate) object: Bytes,
}

/// The recent steps, bounded by number and bytes.
#[derive(Debug)]
pub(crate) struct Window {
    steps: VecDeque<Arc<Step>>,
    /// The place of the first step; places count up for ever.
    first: u64,
    bytes: usize,
    limit: Limit,
    /// Every step above this revision is here.
    low: u64,
}

/// Steps that are kept whatever their size, so that one large object sends nobody away who has not read it yet.
const KEPT: usize = 2;

/// How much a window holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) steps: usize,
    pub(crate) bytes: usize,
}

impl Window {
    /// Returns a window without history: it begins at `revision`.
    pub(crate) fn new(revision: u64, limit: Limit) -> Self {
        Self {
            steps: VecDeque::new(),
            first: 0,
            bytes: 0,
            limit,
            low: revision,
        }
    }

    /// Begins anew at `revision`; places go on counting, so that who had one has fallen behind.
    pub(crate) fn restart(&mut self, revision: u64) {
        self.first = self.head() + 1;
        self.steps.clear();
        self.bytes = 0;
        self.low = revision;
    }

    pub(crate) fn push(&mut self, step: Step) {
        self.bytes += step.size();
        self.steps.push_back(Arc::new(step));
        while self.steps.len() > self.limit.steps
            || (self.bytes > self.limit.bytes && self.steps.len() > KEPT)
        {
            let Some(step) = self.steps.pop_front() else {
                return;
            };
            self.bytes -= step.size();
            self.first += 1;
            self.low = step.revision();
        }
    }

    /// Returns the place after the last step.
    pub(crate) fn head(&self) -> u64 {
        self.first + u64::try_from(self.steps.len()).expect("a length fits")
    }

    /// Returns the place of the first step above `revision`, `None` if it may have left the window.
    pub(crate) fn place_after(&self, revision: u64) -> Option<u64> {
        if revision < self.low {
            return None;
        }
        let at = self
            .steps
            .partition_point(|step| step.revision() <= revision);
        Some(self.first + u64::try_from(at).expect("a length fits"))
    }

    /// Returns steps from `place` on, of about `bytes` at most; `None` if `place` has left the window.
    pub(crate) fn read(&self, place: u64, bytes: usize) -> Option<Vec<Arc<Step>>> {
        let skip = usize::try_from(place.checked_sub(self.first)?).ok()?;
        let mut taken = Vec::new();
        let mut size = 0;
        for step in self.steps.iter().skip(skip) {
            taken.push(step.clone());
            size += step.size();
            if size >= bytes {
                break;
            }
        }
        Some(taken)
    }
}

impl Step {
    /// Returns the revision that the history has reached with this step.
    pub(crate) fn revision(&self) -> u64 {
        match self {
            Self::Event(event) => event.order,
            Self::Jump { to } => *to,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Event(event) => {
                event.line.len()
                    + event
                        .before
                        .as_ref()
                        .map_or(0, |before| before.object.len())
                    + 256
            }
            Self::Jump { .. } => 64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: u64) -> Step {
        Step::Event(Box::new(Event {
            revision,
            order: revision,
            event_type: EventType::Added,
            key: "a/b".into(),
            line: Bytes::from_static(b"{}\n"),
            object: Bytes::from_static(b"{}"),
            traits: Attributes::default(),
            before: None,
        }))
    }

    fn revisions(window: &Window, place: u64) -> Option<Vec<u64>> {
        Some(
            window
                .read(place, usize::MAX)?
                .iter()
                .map(|step| step.revision())
                .collect(),
        )
    }

    #[test]
    fn a_reader_at_a_place_sees_each_step_once_and_in_order() {
        let mut window = Window::new(
            10,
            Limit {
                steps: 8,
                bytes: 1 << 20,
            },
        );
        let place = window.place_after(10).unwrap();
        window.push(event(12));
        window.push(event(15));
        assert_eq!(revisions(&window, place), Some(vec![12, 15]));
        assert_eq!(revisions(&window, window.head()), Some(vec![]));
        assert_eq!(
            revisions(&window, window.place_after(12).unwrap()),
            Some(vec![15])
        );
        assert_eq!(
            window.place_after(99),
            Some(window.head()),
            "a revision to come is after all"
        );
    }

    #[test]
    fn who_is_older_than_the_window_is_told() {
        let mut window = Window::new(
            10,
            Limit {
                steps: 2,
                bytes: 1 << 20,
            },
        );
        let slow = window.head();
        for revision in [11, 12, 13] {
            window.push(event(revision));
        }
        assert_eq!(revisions(&window, slow), None);
        assert_eq!(window.place_after(10), None, "11 is gone");
        assert_eq!(
            revisions(&window, window.place_after(11).unwrap()),
            Some(vec![12, 13])
        );
        assert_eq!(window.place_after(9), None);
    }

    #[test]
    fn a_restart_leaves_every_reader_behind() {
        let mut window = Window::new(
            10,
            Limit {
                steps: 2,
                bytes: 1 << 20,
            },
        );
        let reader = window.head();
        window.restart(20);
        assert_eq!(revisions(&window, reader), None);
        assert_eq!(
            revisions(&window, window.place_after(20).unwrap()),
            Some(vec![])
        );
    }
}
