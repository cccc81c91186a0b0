//! Who may wait at a door that strangers reach: a bounded number, and nobody keeps the others out.
//!
//! It decides; to end whom it evicts is its caller's part.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// All who wait, with where each comes from and what is kept of it, such as how it is told to go.
///
/// # Example
///
/// ```
/// use yurt_core::admission::Admission;
///
/// let mut waiting = Admission::new(2);
/// let (_, evicted) = waiting.enter("192.0.2.1", "first");
/// assert_eq!(evicted, None);
/// let (second, _) = waiting.enter("192.0.2.1", "second");
/// let (_, evicted) = waiting.enter("192.0.2.2", "third");
/// assert_eq!(evicted, Some("first"));
/// assert_eq!(waiting.leave(second), Some("second"));
/// ```
#[derive(Clone, Debug)]
pub struct Admission<A, T> {
    limit: usize,
    entered: u64,
    /// The oldest first.
    waiting: BTreeMap<Ticket, (A, T)>,
}

/// One who was let in. Each is given once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

impl<A: Eq + Hash, T> Admission<A, T> {
    /// Returns an admission that lets `limit` wait, one at least.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            entered: 0,
            waiting: BTreeMap::new(),
        }
    }

    /// Lets one in from `address`. If there are too many, the oldest of the address that has the most is evicted, and
    /// what was kept of it returned; of several such addresses it is the one with the oldest.
    pub fn enter(&mut self, address: A, kept: T) -> (Ticket, Option<T>) {
        let is_full = self.waiting.len() >= self.limit;
        let evicted = is_full.then(|| self.greediest()).flatten();
        let evicted = evicted.and_then(|ticket| self.leave(ticket));
        self.entered += 1;
        let ticket = Ticket(self.entered);
        self.waiting.insert(ticket, (address, kept));
        (ticket, evicted)
    }

    /// Lets one in from `address` if there is room, or if an address has more than its share, which then loses its
    /// oldest: at least two more than this one. Otherwise nobody is evicted: where all have as many, a crowd of honest
    /// callers gets through one after another instead of pushing each other out.
    ///
    /// # Errors
    /// What was to be kept, of one who is not let in.
    pub fn enter_if_fair(&mut self, address: A, kept: T) -> Result<(Ticket, Option<T>), T> {
        if self.waiting.len() >= self.limit {
            let own = self.count(&address);
            let most = self.counts().into_values().max().unwrap_or(0);
            if most < own + 2 {
                return Err(kept);
            }
        }
        Ok(self.enter(address, kept))
    }

    /// Frees the place of one who does not wait any more, and returns what was kept of it; nothing if it was evicted.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        self.waiting.remove(&ticket).map(|(_, kept)| kept)
    }

    /// Returns how many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns how many wait from `address`.
    #[must_use]
    pub fn count(&self, address: &A) -> usize {
        let all = self.waiting.values();
        all.filter(|(one, _)| one == address).count()
    }

    fn counts(&self) -> HashMap<&A, usize> {
        let mut counts: HashMap<&A, usize> = HashMap::new();
        for (address, _) in self.waiting.values() {
            *counts.entry(address).or_default() += 1;
        }
        counts
    }

    fn greediest(&self) -> Option<Ticket> {
        let counts = self.counts();
        let most = counts.values().max();
        let mut oldest_first = self.waiting.iter();
        let oldest = oldest_first.find(|(_, (address, _))| counts.get(address) == most);
        oldest.map(|(ticket, _)| *ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets the letters in one after another and returns who is evicted for each; a letter is its own address.
    fn evicted(limit: usize, arrivals: &str) -> String {
        let mut admission = Admission::new(limit);
        let numbered = arrivals.char_indices();
        let evicted = numbered.map(|(number, address)| admission.enter(address, number).1);
        evicted
            .map(|gone| gone.map_or("-".to_owned(), |number| number.to_string()))
            .collect()
    }

    #[test]
    fn the_oldest_of_the_address_that_has_the_most_goes() {
        for (limit, arrivals, expected) in [
            (0, "aab", "-01"),
            (2, "aab", "--0"),
            (2, "abc", "--0"),
            (4, "abbbc", "----1"),
            (4, "abbbcbb", "----123"),
            // Of two that have as many the one with the oldest.
            (4, "baabc", "----0"),
            (4, "baabcd", "----01"),
        ] {
            assert_eq!(evicted(limit, arrivals), expected, "{arrivals}");
        }
    }

    #[test]
    fn who_would_be_as_greedy_as_any_is_not_let_in_and_nobody_goes() {
        for (limit, arrivals, expected) in [
            (2, "aab", "--0"),
            (2, "aaa", "--x"),
            (2, "abc", "--x"),
            (2, "aba", "--x"),
            (4, "aaabb", "----0"),
            // Two to two: whoever is inside stays.
            (4, "aaabbbab", "----0xxx"),
            (4, "aaabbc", "----01"),
        ] {
            let mut admission = Admission::new(limit);
            let numbered = arrivals.char_indices();
            let said: String = numbered
                .map(
                    |(number, address)| match admission.enter_if_fair(address, number) {
                        Ok((_, None)) => "-".to_owned(),
                        Ok((_, Some(gone))) => gone.to_string(),
                        Err(kept) => {
                            assert_eq!(kept, number);
                            "x".to_owned()
                        }
                    },
                )
                .collect();
            assert_eq!(said, expected, "{arrivals}");
        }
    }

    #[test]
    fn no_order_of_arrivals_evicts_one_who_has_less_than_another() {
        const LIMIT: usize = 4;
        for order in 0..3_u32.pow(8) {
            let mut admission = Admission::new(LIMIT);
            let mut inside: Vec<(u32, u32)> = Vec::new();
            for number in 0..8 {
                let address = order / 3_u32.pow(number) % 3;
                let (_, gone) = admission.enter(address, number);
                assert_eq!(gone.is_some(), inside.len() == LIMIT);
                if let Some(gone) = gone {
                    let has = |address| inside.iter().filter(|it| it.0 == address).count();
                    let at = inside.iter().position(|it| it.1 == gone).unwrap();
                    let (greedy, _) = inside[at];
                    assert!(inside.iter().all(|it| has(it.0) <= has(greedy)));
                    assert!(inside[..at].iter().all(|it| has(it.0) < has(greedy)));
                    inside.remove(at);
                }
                inside.push((address, number));
                assert_eq!(admission.len(), inside.len());
            }
        }
    }

    #[test]
    fn who_has_left_is_not_evicted_and_who_was_evicted_does_not_leave() {
        let mut admission = Admission::new(2);
        let (first, _) = admission.enter('a', 1);
        let (second, _) = admission.enter('a', 2);
        assert_eq!(admission.leave(first), Some(1));
        assert_eq!(admission.leave(first), None);
        assert_eq!(admission.enter('b', 3).1, None);
        assert_eq!(admission.enter('b', 4).1, Some(2));
        assert_eq!(admission.leave(second), None);
        assert_eq!(admission.len(), 2);
    }
}
