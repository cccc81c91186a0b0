//! The servers that this agent knows: those it was configured with, and those that servers have told it of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::memory::Name;
use super::told::is_near;
use crate::dial::Address;
use crate::servers::MAX_SERVERS;

/// Addresses of one name; more are left out.
const MAX_ADDRESSES: usize = 64;

/// An address that a name leads to no more is a server for so long: many resolvers tell a part of them each time.
const MISSING: Duration = Duration::from_secs(300);

/// What a server has said counts for so long after it was there last: servers that are gone for good would vouch for each
/// other for ever. Time in which no server is there does not count, as the node itself is cut off then.
const CONFIRMED: Duration = Duration::from_secs(7 * 86_400);

/// Names, who told of them, and the addresses that they lead to.
#[derive(Debug, Default)]
pub(super) struct Known {
    configured: Vec<Address>,
    /// What each server has said last.
    told: BTreeMap<SocketAddr, Told>,
    /// What was known before the restart; until a server has said more.
    remembered: Vec<Address>,
    /// What each name has led to, and when it did last.
    addresses: BTreeMap<Address, BTreeMap<SocketAddr, Instant>>,
    /// How long some server was there, as far as that was looked at.
    connected: Duration,
    /// When that was looked at last.
    looked: Option<Instant>,
}

/// What a server has said.
#[derive(Debug)]
struct Told {
    servers: Vec<Address>,
    /// When the server was there last, by the time in which some server is.
    confirmed: Duration,
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
        let now = Instant::now();
        for name in remembered {
            known.resolved(&name.name, name.addresses, now, |_| false);
        }
        known
    }

    /// Takes what a server says of its like, instead of what it has said before. A server that is not known,
    /// any more, is not believed.
    pub(super) fn told(&mut self, teller: SocketAddr, servers: Vec<Address>) {
        if self.servers().contains_key(&teller) {
            self.remembered.clear();
            let told = Told {
                servers,
                confirmed: self.connected,
            };
            self.told.insert(teller, told);
            self.forget();
        }
    }

    /// Drops what servers have said that were not there for long.
    pub(super) fn expire(&mut self, now: Instant, up: &BTreeSet<SocketAddr>) {
        let before = self.looked.replace(now).unwrap_or(now);
        if !up.is_empty() {
            self.connected += now - before;
        }
        let connected = self.connected;
        self.told.retain(|teller, told| {
            if up.contains(teller) {
                told.confirmed = connected;
            }
            connected < told.confirmed + CONFIRMED
        });
        self.forget();
    }

    /// Takes the addresses that a name leads to now. Others are forgotten when they were missing for some minutes and
    /// their link is not up.
    pub(super) fn resolved(
        &mut self,
        name: &Address,
        addresses: Vec<SocketAddr>,
        now: Instant,
        is_up: impl Fn(&SocketAddr) -> bool,
    ) {
        if addresses.is_empty() || !self.names().contains(name) {
            return;
        }
        let known = self.addresses.entry(name.clone()).or_default();
        let addresses = addresses.into_iter().take(MAX_ADDRESSES);
        known.extend(addresses.map(|address| (address, now)));
        known.retain(|address, seen| now < *seen + MISSING || is_up(address));
        while known.len() > MAX_ADDRESSES
            && let Some(oldest) = known.iter().min_by_key(|(_, seen)| **seen)
        {
            let oldest = *oldest.0;
            known.remove(&oldest);
        }
        self.forget();
    }

    /// Returns the names that are to be resolved.
    pub(super) fn names(&self) -> BTreeSet<Address> {
        let told = self.told.values().flat_map(|told| &told.servers);
        let told = told.chain(&self.remembered);
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
            for address in self
                .addresses
                .get(name)
                .into_iter()
                .flat_map(BTreeMap::keys)
            {
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
            addresses: self
                .addresses
                .get(&name)
                .into_iter()
                .flat_map(BTreeMap::keys)
                .copied()
                .collect(),
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

    /// Takes the addresses of a name, long after the last.
    fn resolve(known: &mut Known, name: &Address, addresses: Vec<SocketAddr>) {
        known.resolved(name, addresses, Instant::now() + 3 * MISSING, |_| false);
    }

    fn of(known: &Known) -> Vec<(SocketAddr, String)> {
        known.servers().into_iter().collect()
    }

    fn headless() -> Known {
        let mut known = Known::new(vec![name("tunnel.one.example:443")], Vec::new());
        let now = Instant::now();
        known.resolved(
            &name("tunnel.one.example:443"),
            vec![at(1), at(2)],
            now,
            |_| false,
        );
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
        resolve(&mut known, &name("tunnel.one.example:443"), Vec::new());
        assert_eq!(of(&known).len(), 2);
        resolve(&mut known, &name("tunnel.one.example:443"), vec![at(3)]);
        assert_eq!(of(&known), [(at(3), "tunnel.one.example".to_owned())]);
    }

    #[test]
    fn a_resolver_that_rotates_or_tells_a_part_changes_nothing() {
        let tunnel = name("tunnel.one.example:443");
        let mut known = Known::new(vec![tunnel.clone()], Vec::new());
        let now = Instant::now();
        known.resolved(&tunnel, vec![at(1), at(2), at(3)], now, |_| false);
        let (servers, remembered) = (known.servers(), known.remember());
        for round in 1..=100_u8 {
            let now = now + Duration::from_secs(30) * u32::from(round);
            let first = 1 + round % 3;
            let second = 1 + (round + 1) % 3;
            for told in [vec![at(first)], vec![at(second), at(first)]] {
                known.resolved(&tunnel, told, now, |_| false);
                assert_eq!(known.servers(), servers, "round {round}");
                assert_eq!(known.remember(), remembered, "round {round}");
            }
        }
    }

    #[test]
    fn an_address_is_forgotten_when_it_was_missing_for_minutes_and_its_link_is_away() {
        let tunnel = name("tunnel.one.example:443");
        let mut known = Known::new(vec![tunnel.clone()], Vec::new());
        let began = Instant::now();
        known.resolved(&tunnel, vec![at(1), at(2), at(3)], began, |_| false);
        let mut servers = |after| {
            let is_up = |server: &SocketAddr| *server == at(2);
            known.resolved(&tunnel, vec![at(1)], began + after, is_up);
            known.servers().into_keys().collect::<Vec<_>>()
        };
        let moment = Duration::from_secs(1);
        assert_eq!(servers(MISSING - moment), [at(1), at(2), at(3)]);
        assert_eq!(servers(MISSING), [at(1), at(2)]);
        known.resolved(&tunnel, vec![at(1)], began + 2 * MISSING, |_| false);
        assert_eq!(known.servers().into_keys().collect::<Vec<_>>(), [at(1)]);
    }

    #[test]
    fn what_servers_tell_is_added_until_they_tell_otherwise() {
        let mut known = headless();
        known.told(
            at(1),
            vec![name("b.one.example:443"), name("tunnel.one.example:443")],
        );
        known.told(at(2), vec![name("c.one.example:443")]);
        resolve(&mut known, &name("b.one.example:443"), vec![at(8)]);
        resolve(&mut known, &name("c.one.example:443"), vec![at(9), at(1)]);
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
        resolve(&mut known, &name("tunnel.one.example:443"), vec![at(1)]);
        assert!(!known.names().contains(&name("b.one.example:443")));
    }

    #[test]
    fn what_a_server_has_said_is_forgotten_when_it_was_gone_for_a_week() {
        let mut known = headless();
        let b = name("b.one.example:443");
        known.told(at(1), vec![b.clone()]);
        resolve(&mut known, &b, vec![at(8)]);
        // It vouches for itself, and is never there.
        known.told(at(8), vec![b.clone()]);
        let began = Instant::now();
        let week = CONFIRMED - Duration::from_secs(1);
        let [first, second] = [1, 2].map(|last| BTreeSet::from([at(last)]));
        known.expire(began, &BTreeSet::from([at(1), at(8)]));
        known.expire(began + week, &second);
        assert!(known.names().contains(&b));
        known.expire(began + week, &first);
        known.expire(began + CONFIRMED, &second);
        assert!(known.names().contains(&b), "the first was there lately");
        known.expire(began + week + CONFIRMED, &second);
        assert!(!known.names().contains(&b));
        assert_eq!(of(&known), of(&headless()));
    }

    #[test]
    fn a_node_that_was_itself_cut_off_for_weeks_forgets_nothing() {
        let mut known = headless();
        let b = name("b.one.example:443");
        known.told(at(1), vec![b.clone()]);
        let began = Instant::now();
        let up = BTreeSet::from([at(1)]);
        known.expire(began, &up);
        for week in 1..=4 {
            known.expire(began + week * CONFIRMED, &BTreeSet::new());
        }
        // The first server that is back is another one.
        let back = began + 4 * CONFIRMED + Duration::from_secs(30);
        known.expire(back, &BTreeSet::from([at(2)]));
        assert!(known.names().contains(&b));
    }

    #[test]
    fn a_restart_knows_what_was_known_until_a_server_tells_otherwise() {
        let mut before = headless();
        before.told(at(1), vec![name("b.one.example:443")]);
        resolve(&mut before, &name("b.one.example:443"), vec![at(8)]);
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
            resolve(&mut known, &name, (0..=255).map(at).collect());
        }
        assert_eq!(known.names().len(), MAX_SERVERS);
        assert_eq!(of(&known).len(), MAX_SERVERS);
    }
}
