//! The servers that this agent knows: those it was configured with, and those that servers have told it of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::memory::Name;
use super::told::is_near;
use crate::server::Address;
use crate::servers::MAX_SERVERS;

/// Addresses of one name; more are left out.
const MAX_ADDRESSES: usize = 64;

/// Names, who told of them, and the addresses that they lead to.
#[derive(Debug, Default)]
pub(super) struct Known {
    configured: Vec<Address>,
    /// What each server has said last.
    told: BTreeMap<SocketAddr, Vec<Address>>,
    /// What was known before the restart; until a server has said more.
    remembered: Vec<Address>,
    addresses: BTreeMap<Address, Vec<SocketAddr>>,
}

impl Known {
    pub(super) fn new(configured: Vec<Address>, remembered: Vec<Name>) -> Self {
        let mut known = Self {
            configured,
            ..Self::default()
        };
        known.remembered = remembered
            .iter()
            .filter(|name| name.is_told && is_near(&name.name, &known.configured))
            .map(|name| name.name.clone())
            .collect();
        for name in remembered {
            known.resolved(&name.name, name.addresses);
        }
        known
    }

    /// Takes what a server says of its like, instead of what it has said before. A server that is not known,
    /// any more, is not believed.
    pub(super) fn told(&mut self, teller: SocketAddr, servers: Vec<Address>) {
        if self.servers().contains_key(&teller) {
            self.remembered.clear();
            self.told.insert(teller, servers);
            self.forget();
        }
    }

    /// Takes the addresses that a name leads to now.
    pub(super) fn resolved(&mut self, name: &Address, addresses: Vec<SocketAddr>) {
        if !addresses.is_empty() && self.names().contains(name) {
            let addresses = addresses.into_iter().take(MAX_ADDRESSES).collect();
            self.addresses.insert(name.clone(), addresses);
            self.forget();
        }
    }

    /// Returns the names that are to be resolved.
    pub(super) fn names(&self) -> BTreeSet<Address> {
        let told = self.told.values().flatten().chain(&self.remembered);
        let told = told.take(MAX_SERVERS * MAX_SERVERS);
        let mut names: BTreeSet<_> = self.configured.iter().cloned().collect();
        for name in told {
            if names.len() >= MAX_SERVERS {
                break;
            }
            names.insert(name.clone());
        }
        names
    }

    /// Returns the servers, each with the name that its certificate is to have. Two names that lead to the same
    /// address are one server, of the name that was configured.
    pub(super) fn servers(&self) -> BTreeMap<SocketAddr, String> {
        let names = self.names();
        let told = names.iter().filter(|name| !self.configured.contains(name));
        let mut servers = BTreeMap::new();
        for name in self.configured.iter().chain(told) {
            for address in self.addresses.get(name).into_iter().flatten() {
                if servers.len() < MAX_SERVERS {
                    servers.entry(*address).or_insert_with(|| name.host.clone());
                }
            }
        }
        servers
    }

    /// Returns what is worth being remembered.
    pub(super) fn remember(&self) -> Vec<Name> {
        let remember = |name: Address| Name {
            addresses: self.addresses.get(&name).cloned().unwrap_or_default(),
            is_told: !self.configured.contains(&name),
            name,
        };
        self.names().into_iter().map(remember).collect()
    }

    /// Drops what servers have said that are gone, and addresses of names that nobody says any more.
    fn forget(&mut self) {
        let servers = self.servers();
        self.told.retain(|teller, _| servers.contains_key(teller));
        let names = self.names();
        self.addresses.retain(|name, _| names.contains(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Address {
        text.parse().unwrap()
    }

    fn at(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 443).into()
    }

    fn of(known: &Known) -> Vec<(SocketAddr, String)> {
        known.servers().into_iter().collect()
    }

    fn headless() -> Known {
        let mut known = Known::new(vec![name("tunnel.one.example:443")], Vec::new());
        known.resolved(&name("tunnel.one.example:443"), vec![at(1), at(2)]);
        known
    }

    #[test]
    fn each_address_of_a_name_is_a_server() {
        let expected = [
            (at(1), "tunnel.one.example".to_owned()),
            (at(2), "tunnel.one.example".to_owned()),
        ];
        assert_eq!(of(&headless()), expected);
    }

    #[test]
    fn a_name_that_leads_nowhere_keeps_the_addresses_that_it_had() {
        let mut known = headless();
        known.resolved(&name("tunnel.one.example:443"), Vec::new());
        assert_eq!(of(&known).len(), 2);
        known.resolved(&name("tunnel.one.example:443"), vec![at(3)]);
        assert_eq!(of(&known), [(at(3), "tunnel.one.example".to_owned())]);
    }

    #[test]
    fn what_servers_tell_is_added_until_they_tell_otherwise() {
        let mut known = headless();
        known.told(
            at(1),
            vec![name("b.one.example:443"), name("tunnel.one.example:443")],
        );
        known.told(at(2), vec![name("c.one.example:443")]);
        known.resolved(&name("b.one.example:443"), vec![at(8)]);
        known.resolved(&name("c.one.example:443"), vec![at(9), at(1)]);
        let hosts: Vec<_> = of(&known).into_iter().map(|(_, host)| host).collect();
        assert_eq!(
            hosts,
            [
                "tunnel.one.example",
                "tunnel.one.example",
                "b.one.example",
                "c.one.example"
            ]
        );
        known.told(at(1), Vec::new());
        let hosts: Vec<_> = of(&known).into_iter().map(|(_, host)| host).collect();
        assert_eq!(
            hosts,
            ["tunnel.one.example", "tunnel.one.example", "c.one.example"]
        );
    }

    #[test]
    fn who_is_no_server_tells_nothing_and_who_is_gone_has_told_nothing() {
        let mut known = headless();
        known.told(at(7), vec![name("b.one.example:443")]);
        assert!(!known.names().contains(&name("b.one.example:443")));
        known.told(at(2), vec![name("b.one.example:443")]);
        assert!(known.names().contains(&name("b.one.example:443")));
        known.resolved(&name("tunnel.one.example:443"), vec![at(1)]);
        assert!(!known.names().contains(&name("b.one.example:443")));
    }

    #[test]
    fn a_restart_knows_what_was_known_until_a_server_tells_otherwise() {
        let mut before = headless();
        before.told(at(1), vec![name("b.one.example:443")]);
        before.resolved(&name("b.one.example:443"), vec![at(8)]);
        let mut after = Known::new(vec![name("tunnel.one.example:443")], before.remember());
        assert_eq!(of(&after), of(&before));
        after.told(at(77), Vec::new());
        assert_eq!(of(&after), of(&before));
        after.told(at(2), Vec::new());
        assert_eq!(of(&after), of(&headless()));
    }

    #[test]
    fn a_name_that_is_not_configured_any_more_is_forgotten() {
        let after = Known::new(vec![name("other.two.example:443")], headless().remember());
        assert_eq!(of(&after), []);
    }

    #[test]
    fn however_much_is_told_the_servers_are_bounded() {
        let mut known = headless();
        for teller in [1, 2] {
            let servers = (1..=64).map(|port| name(&format!("t{teller}.one.example:{port}")));
            known.told(at(teller), servers.collect());
        }
        for name in known.names() {
            known.resolved(&name, (0..=255).map(at).collect());
        }
        assert_eq!(known.names().len(), MAX_SERVERS);
        assert_eq!(of(&known).len(), MAX_SERVERS);
    }
}
