//! Which verdict makes room for another: a pure decision over who has how many. A denial never takes the place of what was
//! allowed, and who asks much loses its own first.

use std::collections::HashMap;
use std::time::Duration;

/// Denials that are remembered of all callers, and of one: each is only worth some seconds.
pub(super) const DENIALS: usize = 2_000;
pub(super) const DENIALS_OF_CALLER: usize = 200;

/// Who is forgotten last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Other,
    /// A service account of a pod on the node.
    OfPod,
    OfNode,
}

/// A verdict, as far as it takes somebody's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat<'a> {
    pub(super) caller: &'a str,
    pub(super) rank: Rank,
    pub(super) is_allowed: bool,
    /// A restart needs it: it never goes.
    pub(super) is_needed: bool,
    /// For how long nobody has asked.
    pub(super) idle: Duration,
}

impl Seat<'_> {
    /// Returns whether its caller has a share: the node has as many as there are.
    fn is_bounded(&self) -> bool {
        self.rank != Rank::OfNode || !self.is_allowed
    }
}

/// How many verdicts there may be that allow something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seats {
    pub(super) all: usize,
    /// Of one caller.
    pub(super) of_caller: usize,
}

/// Whether there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// If the verdict at this place goes.
    InsteadOf(usize),
    /// It is not remembered.
    None,
}

impl Seats {
    /// Returns how many of a class there may be, and of one caller.
    fn limits(self, is_allowed: bool) -> (usize, usize) {
        match is_allowed {
            true => (self.all, self.of_caller),
            false => (DENIALS, DENIALS_OF_CALLER),
        }
    }

    /// Returns whether there is room where there are so many, and of the caller.
    pub(super) fn have_room(self, new: &Seat<'_>, held: usize, own: usize) -> bool {
        let (all, of_caller) = self.limits(new.is_allowed);
        held < all && (own < of_caller || !new.is_bounded())
    }

    /// Decides for a new verdict.
    pub(super) fn enter(self, seats: &[Seat<'_>], new: &Seat<'_>) -> Room {
        let same: Vec<(usize, &Seat<'_>)> = seats
            .iter()
            .enumerate()
            .filter(|(_, seat)| seat.is_allowed == new.is_allowed)
            .collect();
        let own = || same.iter().filter(|(_, seat)| seat.caller == new.caller);
        if self.have_room(new, same.len(), own().count()) {
            return Room::Free;
        }
        let (_, of_caller) = self.limits(new.is_allowed);
        let goes = match new.is_bounded() && own().count() >= of_caller {
            true => longest_idle(own()),
            false => greediest(&same, new.rank),
        };
        match goes {
            Some(at) => Room::InsteadOf(at),
            None if new.is_needed => Room::Free,
            None => Room::None,
        }
    }
}

/// Returns the longest idle of who has the most, among the lowest rank that is there and not above `rank`.
fn greediest(same: &[(usize, &Seat<'_>)], rank: Rank) -> Option<usize> {
    let spare = || same.iter().filter(|(_, seat)| !seat.is_needed);
    let lowest = spare().map(|(_, seat)| seat.rank).min()?;
    if lowest > rank {
        return None;
    }
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let of_rank = || spare().filter(|(_, seat)| seat.rank == lowest);
    for (_, seat) in of_rank() {
        *counts.entry(seat.caller).or_default() += 1;
    }
    let (greedy, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    longest_idle(of_rank().filter(|(_, seat)| seat.caller == greedy))
}

fn longest_idle<'a>(seats: impl Iterator<Item = &'a (usize, &'a Seat<'a>)>) -> Option<usize> {
    let spare = seats.filter(|(_, seat)| !seat.is_needed);
    let longest = spare.max_by_key(|(_, seat)| seat.idle);
    longest.map(|(at, _)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEATS: Seats = Seats {
        all: 6,
        of_caller: 4,
    };

    /// A verdict of a caller: `n` the node, `p` and `q` pods of the node, others are not; a capital is a denial.
    fn seat(name: &str) -> Seat<'_> {
        let rank = match name.to_ascii_lowercase().as_str() {
            "n" => Rank::OfNode,
            "p" | "q" => Rank::OfPod,
            _ => Rank::Other,
        };
        Seat {
            caller: name,
            rank,
            is_allowed: name.to_ascii_lowercase() == name,
            is_needed: false,
            idle: Duration::ZERO,
        }
    }

    /// The longest idle first.
    fn seats<'a>(names: &'a [&'a str]) -> Vec<Seat<'a>> {
        let idle = |at: usize| Duration::from_secs(u64::try_from(1_000 - at).unwrap());
        let seat = |(at, name): (usize, &&'a str)| Seat {
            idle: idle(at),
            ..seat(name)
        };
        names.iter().enumerate().map(seat).collect()
    }

    fn enter(held: &[&str], new: &str) -> Room {
        SEATS.enter(&seats(held), &seat(new))
    }

    #[test]
    fn who_has_its_share_or_the_most_makes_room_and_the_node_last() {
        for (held, new, expected) in [
            (&["a", "a", "b"][..], "a", Room::Free),
            (&["b", "a", "a", "a", "a"], "a", Room::InsteadOf(1)),
            (&["b", "a", "a", "a", "c", "c"], "b", Room::InsteadOf(1)),
            // Pods of the node before others, and the node before all.
            (&["p", "p", "p", "p", "b", "q"], "q", Room::InsteadOf(4)),
            (&["p", "p", "p", "p", "n", "n"], "q", Room::InsteadOf(0)),
            (&["p", "p", "p", "q", "q", "q"], "b", Room::None),
            (&["n", "n", "n", "n", "n", "n"], "p", Room::None),
            (&["n", "n", "n", "n", "n"], "n", Room::Free),
            (&["n", "n", "n", "n", "n", "n"], "n", Room::InsteadOf(0)),
        ] {
            assert_eq!(enter(held, new), expected, "{held:?} {new}");
        }
    }

    #[test]
    fn a_denial_takes_the_place_of_a_denial_alone() {
        let held = ["a"; 6];
        assert_eq!(enter(&held, "A"), Room::Free);
        let denied = ["A"; DENIALS_OF_CALLER];
        assert_eq!(enter(&denied, "a"), Room::Free);
        assert_eq!(enter(&denied, "A"), Room::InsteadOf(0));
        assert_eq!(enter(&denied, "B"), Room::Free);
    }

    #[test]
    fn what_a_restart_needs_never_goes_and_always_comes() {
        let mut held = seats(&["n", "n", "n", "n", "n", "n"]);
        for seat in &mut held {
            seat.is_needed = true;
        }
        assert_eq!(SEATS.enter(&held, &seat("n")), Room::None);
        let needed = Seat {
            is_needed: true,
            ..seat("n")
        };
        assert_eq!(SEATS.enter(&held, &needed), Room::Free);
    }
}
