//! The recent events of a mirror. Watchers read it at their own place; nobody waits for a slow one.

mod budget;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

pub(crate) use self::budget::WindowBudget;
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
    /// Of all windows together.
    budget: Option<Arc<WindowBudget>>,
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
            budget: None,
            low: revision,
        }
    }

    /// Begins anew at `revision`; places go on counting, so that who had one has fallen behind.
    pub(crate) fn restart(&mut self, revision: u64) {
        self.first = self.head() + 1;
        self.steps.clear();
        self.free(self.bytes);
        self.low = revision;
    }

    /// Counts its bytes to a budget from now on.
    pub(crate) fn count_to(&mut self, budget: Arc<WindowBudget>) {
        budget.add(self.bytes);
        self.budget = Some(budget);
    }

    /// Returns how many bytes it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets its oldest steps until it holds no more than so many bytes.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes && self.forget_first() {}
    }

    pub(crate) fn push(&mut self, step: Step) {
        self.bytes += step.size();
        if let Some(budget) = &self.budget {
            budget.add(step.size());
        }
        self.steps.push_back(Arc::new(step));
        while self.is_over() && self.forget_first() {}
    }

    fn is_over(&self) -> bool {
        let is_overrun = || {
            let budget = self.budget.as_ref();
            budget.is_some_and(|budget| budget.is_overrun())
        };
        let is_kept = self.steps.len() <= KEPT;
        self.steps.len() > self.limit.steps
            || (!is_kept && (self.bytes > self.limit.bytes || is_overrun()))
    }

    /// Forgets the oldest step; returns whether there was one.
    fn forget_first(&mut self) -> bool {
        let Some(step) = self.steps.pop_front() else {
            return false;
        };
        self.free(step.size());
        self.first += 1;
        self.low = step.revision();
        true
    }

    fn free(&mut self, bytes: usize) {
        self.bytes -= bytes;
        if let Some(budget) = &self.budget {
            budget.take(bytes);
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

impl Drop for Window {
    fn drop(&mut self) {
        self.free(self.bytes);
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
    fn a_window_is_counted_to_the_budget_of_all_until_it_is_gone() {
        let budget = Arc::new(WindowBudget::new(1_000));
        let limit = Limit {
            steps: 100,
            bytes: 1 << 20,
        };
        let mut window = Window::new(10, limit);
        window.push(event(11));
        window.count_to(budget.clone());
        let one = budget.used();
        assert!(one > 0 && window.bytes() == one);
        window.push(event(12));
        assert_eq!(budget.used(), 2 * one);
        window.shrink(one);
        assert_eq!((budget.used(), window.place_after(10)), (one, None));
        assert!(window.place_after(11).is_some());
        // With twice the budget in use nobody waits for others to give way.
        let mut other = Window::new(0, limit);
        other.count_to(budget.clone());
        for revision in 1..100 {
            other.push(event(revision));
        }
        assert!(budget.used() <= 2 * budget.limit() + one);
        other.restart(100);
        assert_eq!(budget.used(), one);
        drop(window);
        assert_eq!(budget.used(), 0);
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
