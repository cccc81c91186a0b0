//! Connections that have not said yet what they want: a bounded number, and nobody can keep the others out.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// All who wait, at every door.
#[derive(Debug)]
pub(super) struct Room {
    limit: usize,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    entered: u64,
    /// The oldest first.
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    from: From,
    end: CancellationToken,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum From {
    Socket,
    Address(IpAddr),
}

/// One who waits; the place is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    number: u64,
}

/// Whether there was a free place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entered {
    Freely,
    InsteadOfAnother,
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket => f.write_str("the socket"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Room {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.max(1),
            inside: Mutex::default(),
        })
    }

    /// Lets one in. If there are too many, the oldest from where most come has to go; `end` is how this one is
    /// told.
    pub(super) fn enter(self: &Arc<Self>, from: From, end: CancellationToken) -> (Place, Entered) {
        let mut inside = self.inside.lock();
        let entered = if inside.waiting.len() >= self.limit {
            inside.make_room();
            Entered::InsteadOfAnother
        } else {
            Entered::Freely
        };
        inside.entered += 1;
        let number = inside.entered;
        inside.waiting.insert(number, Waiting { from, end });
        let place = Place {
            room: self.clone(),
            number,
        };
        (place, entered)
    }
}

impl Inside {
    fn make_room(&mut self) {
        let mut counts: HashMap<From, usize> = HashMap::new();
        for waiting in self.waiting.values() {
            *counts.entry(waiting.from).or_default() += 1;
        }
        let most = counts.values().max().copied().unwrap_or_default();
        let has_most = |waiting: &Waiting| counts.get(&waiting.from) == Some(&most);
        let oldest = self.waiting.iter().find(|(_, waiting)| has_most(waiting));
        if let Some(number) = oldest.map(|(number, _)| *number)
            && let Some(waiting) = self.waiting.remove(&number)
        {
            waiting.end.cancel();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.inside.lock().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> From {
        From::Address([192, 0, 2, last].into())
    }

    #[test]
    fn the_oldest_of_the_place_that_has_most_goes_when_it_is_full() {
        let room = Room::new(4);
        let enter = |from| {
            let end = CancellationToken::new();
            let (place, entered) = room.enter(from, end.clone());
            (place, entered, end)
        };
        let socket = enter(From::Socket);
        let one = enter(from(1));
        let flood = [enter(from(2)), enter(from(2))];
        assert!(
            [&socket, &one, &flood[0], &flood[1]]
                .iter()
                .all(|it| it.1 == Entered::Freely)
        );
        let late = enter(from(2));
        assert_eq!(late.1, Entered::InsteadOfAnother);
        let gone = |(_, _, end): &(Place, Entered, CancellationToken)| end.is_cancelled();
        assert_eq!(
            [&socket, &one, &flood[0], &flood[1], &late].map(gone),
            [false, false, true, false, false]
        );
        drop(flood);
        assert_eq!(room.inside.lock().waiting.len(), 3);
        assert_eq!(enter(from(3)).1, Entered::Freely);
    }
}
