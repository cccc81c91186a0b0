//! Which mirror may begin, and which makes room for it: a pure decision over who holds how many.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::limits::Tenant;

/// A mirror, as far as it takes somebody's place.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) id: u32,
    /// Whose share it is of.
    pub(super) owner: Tenant,
    /// Others have asked for it lately.
    pub(super) is_shared: bool,
    /// Since when nobody has asked; `None` while somebody watches.
    pub(super) idle_since: Option<Instant>,
}

/// How many mirrors there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seats {
    pub(crate) all: usize,
    /// Of one caller.
    pub(crate) of_caller: usize,
}

/// Whether a mirror may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Free,
    /// If this one ends.
    InsteadOf(u32),
    Full,
}

impl Seats {
    /// Returns how many mirrors callers may have together: the others are the node's.
    pub(crate) fn of_callers(self) -> usize {
        self.all - self.all / 4
    }

    /// Decides for one who wants another mirror.
    pub(super) fn enter(self, seats: &[Seat], who: &Tenant) -> Entry {
        let mut counts: HashMap<&Tenant, usize> = HashMap::new();
        for seat in seats.iter().filter(|seat| seat.owner != Tenant::Node) {
            *counts.entry(&seat.owner).or_default() += 1;
        }
        let greediest = || counts.iter().max_by_key(|(_, count)| **count);
        if *who == Tenant::Node {
            if seats.len() < self.all {
                return Entry::Free;
            }
            let Some((greedy, _)) = greediest() else {
                return Entry::Full;
            };
            // The node takes what it needs, also from one who watches.
            let last = seats.iter().find(|seat| seat.owner == **greedy);
            return longest_idle(seats, greedy)
                .or(last)
                .map_or(Entry::Full, |seat| Entry::InsteadOf(seat.id));
        }
        let own = counts.get(who).copied().unwrap_or(0);
        if own >= self.of_caller {
            return Entry::Full;
        }
        let of_callers: usize = counts.values().sum();
        if of_callers < self.of_callers() && seats.len() < self.all {
            return Entry::Free;
        }
        match greediest() {
            // Whoever would be as greedy itself takes nothing from others.
            Some((greedy, most)) if *most >= own + 2 => {
                longest_idle(seats, greedy).map_or(Entry::Full, |seat| Entry::InsteadOf(seat.id))
            }
            Some(_) | None => Entry::Full,
        }
    }
}

/// Returns the mirror that its owner alone has asked for, and not for longest.
fn longest_idle<'a>(seats: &'a [Seat], owner: &Tenant) -> Option<&'a Seat> {
    let own = seats.iter().filter(|seat| seat.owner == *owner);
    let idle = own.filter(|seat| !seat.is_shared && seat.idle_since.is_some());
    idle.min_by_key(|seat| seat.idle_since)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SEATS: Seats = Seats {
        all: 8,
        of_caller: 5,
    };

    /// Mirrors of these owners, `n` being the node, the longest idle first; those in capitals are watched.
    fn seats(owners: &str) -> Vec<Seat> {
        let began = Instant::now();
        let seat = |(id, owner): (u32, char)| Seat {
            id,
            owner: tenant(owner.to_ascii_lowercase()),
            is_shared: false,
            idle_since: owner
                .is_ascii_lowercase()
                .then(|| began + Duration::from_secs(id.into())),
        };
        (0..).zip(owners.chars()).map(seat).collect()
    }

    fn tenant(name: char) -> Tenant {
        match name {
            'n' => Tenant::Node,
            name => Tenant::Caller(name.to_string().into()),
        }
    }

    #[test]
    fn callers_share_three_quarters_and_the_greediest_makes_room() {
        for (held, who, expected) in [
            ("", 'a', Entry::Free),
            ("aaaa", 'a', Entry::Free),
            // Its share is full.
            ("aaaaa", 'a', Entry::Full),
            ("aaaaa", 'b', Entry::Free),
            // All of the callers' places are taken.
            ("aaaaab", 'b', Entry::InsteadOf(0)),
            ("AAaaab", 'b', Entry::InsteadOf(2)),
            ("AAAAAb", 'b', Entry::Full),
            ("aabbcc", 'a', Entry::Full),
            ("aaabbb", 'b', Entry::Full),
            // The node has its own, and more if there is room.
            ("aaaaab", 'n', Entry::Free),
            ("nnnnnnnn", 'n', Entry::Full),
            ("nnnnnnnn", 'a', Entry::Full),
            ("nnnnnnaa", 'n', Entry::InsteadOf(6)),
            ("nnnnnnAA", 'n', Entry::InsteadOf(6)),
            ("nnnnnnab", 'c', Entry::Full),
        ] {
            assert_eq!(
                SEATS.enter(&seats(held), &tenant(who)),
                expected,
                "{held} {who}"
            );
        }
        // Of those that hold as many any may go.
        let entry = SEATS.enter(&seats("aabbcc"), &tenant('d'));
        assert!(matches!(entry, Entry::InsteadOf(_)));
    }

    #[test]
    fn what_others_have_asked_for_makes_no_room() {
        let mut held = seats("aaaaab");
        held[0].is_shared = true;
        assert_eq!(SEATS.enter(&held, &tenant('c')), Entry::InsteadOf(1));
        for seat in &mut held {
            seat.is_shared = true;
        }
        assert_eq!(SEATS.enter(&held, &tenant('c')), Entry::Full);
    }
}
