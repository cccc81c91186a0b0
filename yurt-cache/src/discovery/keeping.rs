//! Which documents go: a pure decision. What clients need before they can ask for anything goes after what they read for
//! comfort, what the node has asked for goes last, and who has most loses first.

use std::collections::HashMap;
use std::time::Duration;

use crate::limits::Tenant;
use crate::retention::{Bounds, Held};

/// What goes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Other,
    Discovery,
    OfNode,
}

/// A document, as far as it takes somebody's place.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    /// Who had it remembered.
    pub(super) owner: Tenant,
    pub(super) rank: Rank,
    pub(super) idle: Duration,
    pub(super) held: Held,
}

/// Returns the places of those that go.
pub(super) fn plan(seats: &[Seat], bounds: &Bounds, of_caller: usize) -> Vec<usize> {
    let (gone, mut left): (Vec<usize>, Vec<usize>) =
        (0..seats.len()).partition(|at| seats[*at].idle > bounds.age);
    let mut gone = gone;
    loop {
        let goes = over_share(seats, &left, of_caller).or_else(|| {
            let total = left.iter().map(|at| seats[*at].held);
            let total = total.fold(Held::default(), Held::plus);
            let is_over = bounds.budget.is_exceeded_by(total);
            is_over.then(|| greediest(seats, &left)).flatten()
        });
        let Some(goes) = goes else {
            return gone;
        };
        left.retain(|at| *at != goes);
        gone.push(goes);
    }
}

/// Returns what goes of a caller that has more than its share.
fn over_share(seats: &[Seat], left: &[usize], of_caller: usize) -> Option<usize> {
    let counts = sums(seats, left, |_| 1);
    let is_over = |(owner, count): &(&Tenant, u64)| {
        **owner != Tenant::Node && usize::try_from(*count).is_ok_and(|count| count > of_caller)
    };
    let (owner, _) = counts.into_iter().find(is_over)?;
    let own = left.iter().filter(|at| seats[**at].owner == *owner);
    own.copied().min_by_key(|at| order(&seats[*at]))
}

/// Returns what goes of who has most of the lowest rank.
fn greediest(seats: &[Seat], left: &[usize]) -> Option<usize> {
    let lowest = left.iter().map(|at| seats[*at].rank).min()?;
    let of_rank: Vec<usize> = left
        .iter()
        .copied()
        .filter(|at| seats[*at].rank == lowest)
        .collect();
    let bytes = sums(seats, &of_rank, |seat| seat.held.bytes);
    let (owner, _) = bytes.into_iter().max_by_key(|(_, bytes)| *bytes)?;
    let own = of_rank.into_iter().filter(|at| seats[*at].owner == *owner);
    own.min_by_key(|at| order(&seats[*at]))
}

fn order(seat: &Seat) -> (Rank, std::cmp::Reverse<Duration>) {
    (seat.rank, std::cmp::Reverse(seat.idle))
}

fn sums<'a>(
    seats: &'a [Seat],
    left: &[usize],
    of: impl Fn(&Seat) -> u64,
) -> HashMap<&'a Tenant, u64> {
    let mut sums = HashMap::new();
    for at in left {
        *sums.entry(&seats[*at].owner).or_default() += of(&seats[*at]);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention::Budget;

    /// A document of an owner, `n` being the node, `x` bytes long and unused for `idle` seconds.
    fn seat(owner: char, rank: Rank, bytes: usize, idle: u64) -> Seat {
        Seat {
            owner: match owner {
                'n' => Tenant::Node,
                owner => Tenant::Caller(owner.to_string().into()),
            },
            rank,
            idle: Duration::from_secs(idle),
            held: Held::one(bytes),
        }
    }

    fn plan_of(seats: &[Seat], objects: usize, bytes: u64, of_caller: usize) -> Vec<usize> {
        let bounds = Bounds {
            age: Duration::from_secs(100),
            budget: Budget::new(objects, bytes),
        };
        plan(seats, &bounds, of_caller)
    }

    #[test]
    fn what_nobody_used_for_long_goes_whatever_it_is() {
        let seats = [
            seat('n', Rank::OfNode, 1, 101),
            seat('a', Rank::Other, 1, 99),
        ];
        assert_eq!(plan_of(&seats, 10, 10, 10), [0]);
    }

    #[test]
    fn a_caller_over_its_share_loses_its_own_and_comfort_before_discovery() {
        let seats = [
            seat('b', Rank::Other, 1, 90),
            seat('a', Rank::Discovery, 1, 50),
            seat('a', Rank::Other, 1, 20),
            seat('a', Rank::Other, 1, 10),
        ];
        assert_eq!(plan_of(&seats, 10, 10, 2), [2]);
        assert_eq!(plan_of(&seats, 10, 10, 1), [2, 3]);
    }

    #[test]
    fn over_the_budget_who_has_most_of_the_least_needed_loses_first() {
        let seats = [
            seat('b', Rank::Other, 2, 90),
            seat('a', Rank::Other, 3, 10),
            seat('a', Rank::Other, 3, 20),
            seat('n', Rank::OfNode, 3, 99),
            seat('a', Rank::Discovery, 3, 99),
        ];
        assert_eq!(plan_of(&seats, 10, 11, 10), [2]);
        assert_eq!(plan_of(&seats, 10, 8, 10), [2, 1]);
        assert_eq!(plan_of(&seats, 2, 100, 10), [2, 1, 0]);
        assert_eq!(plan_of(&seats, 1, 100, 10), [2, 1, 0, 4]);
    }
}
