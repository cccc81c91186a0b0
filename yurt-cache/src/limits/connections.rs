//! Connections, counted by who is at the other end: the anonymous together, callers each, the node not at all.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use yurt_core::admission::{Admission, Ticket};

use super::{Limits, Tenant};

/// Callers that are remembered as recognised; beyond, all are forgotten and recognised again by their next answer.
const RECOGNISED: usize = 10_000;

/// All connections of a listener.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: Limits,
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    anonymous: Admission<IpAddr, CancellationToken>,
    callers: Admission<Arc<str>, CancellationToken>,
    recognised: HashSet<Arc<str>>,
}

/// One connection; its place is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionGuard {
    connections: Arc<Connections>,
    address: IpAddr,
    ticket: Ticket,
    end: CancellationToken,
    /// Whose it is, with its place among the callers.
    owner: Mutex<Option<(Tenant, Option<Ticket>)>>,
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

impl Connections {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        let inside = Inside {
            anonymous: Admission::new(limits.anonymous_connections),
            callers: Admission::new(limits.connections),
            recognised: HashSet::new(),
        };
        Arc::new(Self {
            limits,
            inside: Mutex::new(inside),
        })
    }

    /// Lets an anonymous connection in. If there are too many, the oldest one of the address with the most is ended; `end`
    /// ends this one.
    pub(crate) fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        end: CancellationToken,
    ) -> (ConnectionGuard, Entered) {
        let (ticket, evicted) = self.inside.lock().anonymous.enter(address, end.clone());
        let entry = ConnectionGuard {
            connections: self.clone(),
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

    /// Returns how many connections there are of callers, and of who is not known yet.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let inside = self.inside.lock();
        (inside.callers.len(), inside.anonymous.len())
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

impl ConnectionGuard {
    /// Ends the connection from within.
    pub(crate) fn end(&self) -> &CancellationToken {
        &self.end
    }

    /// Returns where it comes from.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// Returns whether it is not known yet who is at the other end.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.owner.lock().is_none()
    }

    /// Returns whether the node itself is at the other end.
    pub(crate) fn is_node(&self) -> bool {
        matches!(*self.owner.lock(), Some((Tenant::Node, _)))
    }

    /// Gives the connection to the first tenant who proves who it is. If there are too many in all, the oldest one of
    /// the caller with the most is ended, unless this one has as many.
    ///
    /// # Errors
    /// If the tenant has its share.
    pub(crate) fn belongs_to(&self, tenant: &Tenant) -> Result<(), TooManyConnections> {
        let mut owner = self.owner.lock();
        if owner.is_some() || matches!(tenant, Tenant::Anonymous(_)) {
            return Ok(());
        }
        let mut inside = self.connections.inside.lock();
        let mut ticket = None;
        if let Tenant::Caller(id) = tenant {
            if inside.callers.count(id) >= self.connections.limits.caller_connections {
                return Err(TooManyConnections);
            }
            let entered = inside.callers.enter_if_fair(id.clone(), self.end.clone());
            let (entered, evicted) = entered.map_err(|_| TooManyConnections)?;
            if let Some(oldest) = evicted {
                oldest.cancel();
            }
            ticket = Some(entered);
        }
        inside.anonymous.leave(self.ticket);
        *owner = Some((tenant.clone(), ticket));
        Ok(())
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let mut inside = self.connections.inside.lock();
        inside.anonymous.leave(self.ticket);
        if let Some((_, Some(ticket))) = self.owner.get_mut() {
            inside.callers.leave(*ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections() -> Arc<Connections> {
        Connections::new(Limits {
            anonymous_connections: 4,
            connections: 3,
            caller_connections: 2,
            ..Limits::default()
        })
    }

    fn enter(connections: &Arc<Connections>, last: u8) -> ConnectionGuard {
        let address = [10, 0, 0, last].into();
        connections.enter(address, CancellationToken::new()).0
    }

    fn caller(name: &str) -> Tenant {
        Tenant::Caller(name.into())
    }

    fn is_out(entry: &ConnectionGuard) -> bool {
        entry.end().is_cancelled()
    }

    #[test]
    fn an_anonymous_connection_too_many_takes_the_place_of_the_oldest_of_the_greediest() {
        let connections = connections();
        let quiet = enter(&connections, 1);
        let greedy = [
            enter(&connections, 2),
            enter(&connections, 2),
            enter(&connections, 2),
        ];
        let late = enter(&connections, 3);
        assert!(!is_out(&quiet) && is_out(&greedy[0]) && !is_out(&greedy[1]));
        let _more = [enter(&connections, 2), enter(&connections, 2)];
        assert!(!is_out(&quiet) && !is_out(&late));
        assert!(is_out(&greedy[1]) && is_out(&greedy[2]));
    }

    #[test]
    fn who_is_known_is_not_anonymous_any_more() {
        let connections = connections();
        let node = enter(&connections, 1);
        node.belongs_to(&Tenant::Node).unwrap();
        let known = enter(&connections, 1);
        known.belongs_to(&caller("a")).unwrap();
        let _anonymous: Vec<_> = (0..20).map(|_| enter(&connections, 1)).collect();
        assert!(!is_out(&node) && !is_out(&known));
        assert!(!known.is_anonymous());
    }

    #[test]
    fn a_caller_has_no_more_connections_than_its_share_and_the_greediest_makes_room() {
        let connections = connections();
        let entries: Vec<_> = (0..5).map(|_| enter(&connections, 1)).collect();
        entries[0].belongs_to(&caller("a")).unwrap();
        entries[1].belongs_to(&caller("a")).unwrap();
        entries[2].belongs_to(&caller("a")).unwrap_err();
        entries[2].belongs_to(&caller("b")).unwrap();
        entries[3].belongs_to(&caller("c")).unwrap();
        assert!(is_out(&entries[0]) && !is_out(&entries[1]));
        assert_eq!(connections.counts().0, 3);
        // Whoever would have as many as the others takes nothing from them.
        entries[4].belongs_to(&caller("b")).unwrap_err();
        entries[4].belongs_to(&caller("d")).unwrap_err();
        entries[4].belongs_to(&Tenant::Node).unwrap();
        drop(entries);
        assert_eq!(connections.counts(), (0, 0));
        let again = enter(&connections, 1);
        again.belongs_to(&caller("a")).unwrap();
    }

    #[test]
    fn a_connection_belongs_to_its_first_holder() {
        let connections = connections();
        let entry = enter(&connections, 1);
        entry
            .belongs_to(&Tenant::Anonymous(entry.address()))
            .unwrap();
        assert!(entry.is_anonymous());
        entry.belongs_to(&caller("a")).unwrap();
        entry.belongs_to(&caller("b")).unwrap();
        assert_eq!(connections.inside.lock().callers.len(), 1);
        drop(entry);
        assert!(connections.inside.lock().callers.is_empty());
        assert!(connections.inside.lock().anonymous.is_empty());
    }

    #[test]
    fn who_was_recognised_is_known_again() {
        let connections = connections();
        assert!(!connections.has_recognised("a"));
        connections.recognise("a");
        assert!(connections.has_recognised("a"));
        for number in 0..RECOGNISED {
            connections.recognise(&number.to_string());
        }
        assert!(connections.inside.lock().recognised.len() <= RECOGNISED);
    }
}
