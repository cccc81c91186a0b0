//! Connections, counted by who is at the other end: strangers together, callers each, the node not at all.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use yurt_core::admission::{Admission, Ticket};

use super::{Holder, Limits};

/// Callers that are remembered as recognised; beyond, all are forgotten and recognised again by their next answer.
const RECOGNISED: usize = 10_000;

/// All connections of a listener.
#[derive(Debug)]
pub(crate) struct Door {
    limits: Limits,
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    strangers: Admission<IpAddr, CancellationToken>,
    callers: HashMap<Arc<str>, usize>,
    recognised: HashSet<Arc<str>>,
}

/// One connection; its place is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    door: Arc<Door>,
    address: IpAddr,
    ticket: Ticket,
    end: CancellationToken,
    owner: Mutex<Option<Holder>>,
}

/// Whether there was room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    Freely,
    InsteadOfAnother,
}

/// A caller has as many connections as it may.
#[derive(Debug)]
pub(crate) struct TooManyConnections;

impl Door {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        let inside = Inside {
            strangers: Admission::new(limits.strangers),
            callers: HashMap::new(),
            recognised: HashSet::new(),
        };
        Arc::new(Self {
            limits,
            inside: Mutex::new(inside),
        })
    }

    /// Lets a stranger in. If there are too many, the oldest of the address that has the most has to go; `end`
    /// is how this one is told.
    pub(crate) fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        end: CancellationToken,
    ) -> (Entry, Entered) {
        let (ticket, evicted) = self.inside.lock().strangers.enter(address, end.clone());
        let entry = Entry {
            door: self.clone(),
            address,
            ticket,
            end,
            owner: Mutex::new(None),
        };
        let Some(oldest) = evicted else {
            return (entry, Entered::Freely);
        };
        oldest.cancel();
        (entry, Entered::InsteadOfAnother)
    }

    /// Notes that a caller was recognised.
    pub(crate) fn recognise(&self, caller: &str) {
        let mut inside = self.inside.lock();
        if inside.recognised.contains(caller) {
            return;
        }
        if inside.recognised.len() >= RECOGNISED {
            inside.recognised.clear();
        }
        inside.recognised.insert(caller.into());
    }

    /// Returns whether a caller was recognised.
    pub(crate) fn has_recognised(&self, caller: &str) -> bool {
        self.inside.lock().recognised.contains(caller)
    }
}

impl Entry {
    /// Ends the connection from within.
    pub(crate) fn end(&self) -> &CancellationToken {
        &self.end
    }

    /// Returns where it comes from.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// Returns whether it is not known yet who is at the other end.
    pub(crate) fn is_stranger(&self) -> bool {
        self.owner.lock().is_none()
    }

    /// Returns whether the node itself is at the other end.
    pub(crate) fn is_node(&self) -> bool {
        *self.owner.lock() == Some(Holder::Node)
    }

    /// Gives the connection to the first holder who proves to be no stranger.
    pub(crate) fn belongs_to(&self, holder: &Holder) -> Result<(), TooManyConnections> {
        let mut owner = self.owner.lock();
        if owner.is_some() || matches!(holder, Holder::Stranger(_)) {
            return Ok(());
        }
        let mut inside = self.door.inside.lock();
        if let Holder::Caller(id) = holder {
            let all: usize = inside.callers.values().sum();
            let count = inside.callers.get(id).copied().unwrap_or_default();
            let limits = &self.door.limits;
            if count >= limits.caller_connections || all >= limits.connections {
                return Err(TooManyConnections);
            }
            inside.callers.insert(id.clone(), count + 1);
        }
        inside.strangers.leave(self.ticket);
        *owner = Some(holder.clone());
        Ok(())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut inside = self.door.inside.lock();
        inside.strangers.leave(self.ticket);
        let Some(Holder::Caller(id)) = self.owner.get_mut() else {
            return;
        };
        if let Some(count) = inside.callers.get_mut(id) {
            *count -= 1;
            if *count == 0 {
                inside.callers.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door() -> Arc<Door> {
        Door::new(Limits {
            strangers: 4,
            connections: 3,
            caller_connections: 2,
            ..Limits::default()
        })
    }

    fn enter(door: &Arc<Door>, last: u8) -> Entry {
        let address = [10, 0, 0, last].into();
        door.enter(address, CancellationToken::new()).0
    }

    fn caller(name: &str) -> Holder {
        Holder::Caller(name.into())
    }

    fn is_out(entry: &Entry) -> bool {
        entry.end().is_cancelled()
    }

    #[test]
    fn a_stranger_too_many_takes_the_place_of_the_oldest_of_the_greediest() {
        let door = door();
        let quiet = enter(&door, 1);
        let greedy = [enter(&door, 2), enter(&door, 2), enter(&door, 2)];
        let late = enter(&door, 3);
        assert!(!is_out(&quiet) && is_out(&greedy[0]) && !is_out(&greedy[1]));
        let _more = [enter(&door, 2), enter(&door, 2)];
        assert!(!is_out(&quiet) && !is_out(&late));
        assert!(is_out(&greedy[1]) && is_out(&greedy[2]));
    }

    #[test]
    fn who_is_known_is_no_stranger_any_more() {
        let door = door();
        let node = enter(&door, 1);
        node.belongs_to(&Holder::Node).unwrap();
        let known = enter(&door, 1);
        known.belongs_to(&caller("a")).unwrap();
        let _strangers: Vec<_> = (0..20).map(|_| enter(&door, 1)).collect();
        assert!(!is_out(&node) && !is_out(&known));
        assert!(!known.is_stranger());
    }

    #[test]
    fn a_caller_has_no_more_connections_than_its_share_and_callers_no_more_than_theirs() {
        let door = door();
        let entries: Vec<_> = (0..5).map(|_| enter(&door, 1)).collect();
        entries[0].belongs_to(&caller("a")).unwrap();
        entries[1].belongs_to(&caller("a")).unwrap();
        entries[2].belongs_to(&caller("a")).unwrap_err();
        entries[2].belongs_to(&caller("b")).unwrap();
        entries[3].belongs_to(&caller("c")).unwrap_err();
        assert_eq!(door.inside.lock().callers.len(), 2);
        entries[3].belongs_to(&Holder::Node).unwrap();
        drop(entries);
        let again = enter(&door, 1);
        again.belongs_to(&caller("a")).unwrap();
    }

    #[test]
    fn a_connection_belongs_to_its_first_holder() {
        let door = door();
        let entry = enter(&door, 1);
        entry
            .belongs_to(&Holder::Stranger(entry.address()))
            .unwrap();
        assert!(entry.is_stranger());
        entry.belongs_to(&caller("a")).unwrap();
        entry.belongs_to(&caller("b")).unwrap();
        assert_eq!(door.inside.lock().callers.len(), 1);
        drop(entry);
        assert!(door.inside.lock().callers.is_empty());
        assert!(door.inside.lock().strangers.is_empty());
    }

    #[test]
    fn who_was_recognised_is_known_again() {
        let door = door();
        assert!(!door.has_recognised("a"));
        door.recognise("a");
        assert!(door.has_recognised("a"));
        for number in 0..RECOGNISED {
            door.recognise(&number.to_string());
        }
        assert!(door.inside.lock().recognised.len() <= RECOGNISED);
    }
}
