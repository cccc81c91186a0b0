//! Connections that have not said yet what they want: a bounded number, and nobody can keep the others out.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use yurt_core::admission::{Admission, Ticket};

/// All who wait, at every door.
#[derive(Debug)]
pub(super) struct Room {
    waiting: Mutex<Admission<From, CancellationToken>>,
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
    ticket: Ticket,
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
            waiting: Mutex::new(Admission::new(limit)),
        })
    }

    /// Lets one in. If there are too many, the oldest from where most come has to go; `end` is how this one is
    /// told.
    pub(super) fn enter(self: &Arc<Self>, from: From, end: CancellationToken) -> (Place, Entered) {
        let (ticket, evicted) = self.waiting.lock().enter(from, end);
        let place = Place {
            room: self.clone(),
            ticket,
        };
        let Some(oldest) = evicted else {
            return (place, Entered::Freely);
        };
        oldest.cancel();
        (place, Entered::InsteadOfAnother)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.waiting.lock().leave(self.ticket);
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
        assert_eq!(room.waiting.lock().len(), 3);
        assert_eq!(enter(from(3)).1, Entered::Freely);
    }
}
