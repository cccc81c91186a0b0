//! The router before the edge: one address outside for all that is inside, and a door that opens outwards only.
//!
//! As Linux does: each connection has a mapping of its own, made by its first packet from inside, and who was not
//! spoken to gets nothing in. What is no TCP and no UDP, and fragments, which have no ports, do not pass.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use super::packet::{End, Flow, Transport, flow, rewrite};

const FIRST_PORT: u16 = 20_000;
/// How many mappings there may at least be until those that nobody uses are looked for.
const CROWD: usize = 1024;
const PORTS: usize = (u16::MAX - FIRST_PORT) as usize + 1;

/// A router with network address translation before the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatConfig {
    /// The address that the cloud sees.
    pub address: Ipv4Addr,
    /// For how long a mapping is kept that no packet has used, in either direction.
    pub timeout: Duration,
}

impl Default for NatConfig {
    /// From a range that is for documentation, with a timeout as routers have it for UDP.
    fn default() -> Self {
        Self {
            address: Ipv4Addr::new(203, 0, 113, 1),
            timeout: Duration::from_secs(30),
        }
    }
}

#[derive(Debug)]
pub(super) struct Nat {
    config: NatConfig,
    next_port: u16,
    /// By what is seen inside.
    mappings: HashMap<Flow, Mapping>,
    /// How many there may be until the next look.
    crowd: usize,
    /// By the port outside and who is spoken to there; the flow is what is seen inside.
    outside: HashMap<(Transport, u16), Flow>,
}

#[derive(Debug)]
struct Mapping {
    port: u16,
    used: Duration,
}

impl Nat {
    pub(super) fn new(config: NatConfig) -> Self {
        Self {
            config,
            next_port: FIRST_PORT,
            mappings: HashMap::new(),
            crowd: CROWD,
            outside: HashMap::new(),
        }
    }

    /// Rewrites a packet that leaves; returns whether it may.
    pub(super) fn outward(&mut self, now: Duration, packet: &mut [u8]) -> bool {
        let Some(flow) = flow(packet) else {
            return false;
        };
        let Some(port) = self.port_of(now, flow) else {
            return false;
        };
        let to = SocketAddrV4::new(self.config.address, port);
        rewrite(packet, &flow, End::Source, to);
        true
    }

    /// Rewrites a packet that comes in; returns whether it may.
    pub(super) fn inward(&mut self, now: Duration, packet: &mut [u8]) -> bool {
        let Some(flow) = flow(packet) else {
            return false;
        };
        let key = (flow.transport, flow.destination.port());
        let Some(inside) = self.outside.get(&key).copied() else {
            return false;
        };
        let is_spoken_to =
            inside.destination == flow.source && *flow.destination.ip() == self.config.address;
        if !is_spoken_to || !self.is_alive(now, &inside) {
            return false;
        }
        if let Some(mapping) = self.mappings.get_mut(&inside) {
            mapping.used = now;
        }
        rewrite(packet, &flow, End::Destination, inside.source);
        true
    }

    /// Forgets every mapping; what goes on from inside gets another port.
    pub(super) fn rebind(&mut self) {
        self.mappings.clear();
        self.outside.clear();
    }

    fn port_of(&mut self, now: Duration, flow: Flow) -> Option<u16> {
        if !self.is_alive(now, &flow) {
            self.forget(&flow);
            if self.mappings.len() >= self.crowd {
                self.forget_idle(now);
            }
            let port = self.free_port(flow.transport)?;
            self.outside.insert((flow.transport, port), flow);
            self.mappings.insert(flow, Mapping { port, used: now });
        }
        let mapping = self.mappings.get_mut(&flow)?;
        mapping.used = now;
        Some(mapping.port)
    }

    fn is_alive(&self, now: Duration, flow: &Flow) -> bool {
        let used = self.mappings.get(flow).map(|mapping| mapping.used);
        used.is_some_and(|used| now.saturating_sub(used) <= self.config.timeout)
    }

    fn forget(&mut self, flow: &Flow) {
        if let Some(mapping) = self.mappings.remove(flow) {
            self.outside.remove(&(flow.transport, mapping.port));
        }
    }

    fn forget_idle(&mut self, now: Duration) {
        let flows = self.mappings.keys();
        let idle: Vec<Flow> = flows
            .filter(|flow| !self.is_alive(now, flow))
            .copied()
            .collect();
        idle.iter().for_each(|flow| self.forget(flow));
        // Looking at twice as many as were left costs no more than making them; but when every port may be taken,
        // each look may free one.
        self.crowd = (2 * self.mappings.len()).clamp(CROWD, PORTS);
    }

    /// Never the port that was given last, so that a new mapping is seen.
    fn free_port(&mut self, transport: Transport) -> Option<u16> {
        for _ in FIRST_PORT..=u16::MAX {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            if !self.outside.contains_key(&(transport, port)) {
                return Some(port);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{super::packet::tests::packet, *};

    const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const CLOUD: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 443);

    fn from_inside(transport: Transport, port: u16) -> Flow {
        Flow {
            transport,
            source: SocketAddrV4::new(INSIDE, port),
            destination: CLOUD,
        }
    }

    fn back(flow: Flow) -> Flow {
        Flow {
            source: flow.destination,
            destination: flow.source,
            ..flow
        }
    }

    fn nat() -> Nat {
        Nat::new(NatConfig::default())
    }

    /// What is seen outside of a packet from inside.
    fn sent(nat: &mut Nat, second: u64, seen_inside: Flow) -> Option<Flow> {
        let mut bytes = packet(&seen_inside, b"hello");
        let passes = nat.outward(Duration::from_secs(second), &mut bytes);
        passes.then(|| flow(&bytes).unwrap())
    }

    /// What is seen inside of a packet from outside.
    fn received(nat: &mut Nat, second: u64, seen_outside: Flow) -> Option<Flow> {
        let mut bytes = packet(&seen_outside, b"hello");
        let passes = nat.inward(Duration::from_secs(second), &mut bytes);
        passes.then(|| flow(&bytes).unwrap())
    }

    #[test]
    fn what_goes_out_is_answered_and_each_connection_has_a_port_of_its_own() {
        let mut nat = nat();
        let mut seen = Vec::new();
        for transport in [Transport::Tcp, Transport::Udp] {
            for port in [1000, 1001] {
                let inside = from_inside(transport, port);
                let outside = sent(&mut nat, 0, inside).unwrap();
                assert_eq!(*outside.source.ip(), NatConfig::default().address);
                assert_eq!(outside.destination, CLOUD);
                assert_eq!(sent(&mut nat, 1, inside), Some(outside), "it stays");
                assert_eq!(received(&mut nat, 1, back(outside)), Some(back(inside)));
                assert!(!seen.contains(&outside));
                seen.push(outside);
            }
        }
    }

    #[test]
    fn nobody_comes_in_who_was_not_spoken_to() {
        let mut nat = nat();
        let outside = sent(&mut nat, 0, from_inside(Transport::Udp, 1000)).unwrap();
        let answer = back(outside);
        let to = |address, port| SocketAddrV4::new(address, port);
        for stranger in [
            Flow {
                source: to(*CLOUD.ip(), 444),
                ..answer
            },
            Flow {
                source: to(INSIDE, 443),
                ..answer
            },
            Flow {
                transport: Transport::Tcp,
                ..answer
            },
            Flow {
                destination: to(INSIDE, 1000),
                ..answer
            },
            Flow {
                destination: to(INSIDE, outside.source.port()),
                ..answer
            },
        ] {
            assert_eq!(received(&mut nat, 0, stranger), None, "{stranger:?}");
        }
    }

    #[test]
    fn a_mapping_lives_as_long_as_it_is_used_in_either_direction() {
        let mut nat = nat();
        let inside = from_inside(Transport::Udp, 1000);
        let outside = sent(&mut nat, 0, inside).unwrap();
        assert!(received(&mut nat, 30, back(outside)).is_some());
        assert_eq!(sent(&mut nat, 60, inside), Some(outside));
        assert_eq!(received(&mut nat, 91, back(outside)), None);
        assert_ne!(sent(&mut nat, 91, inside), Some(outside));
    }

    #[test]
    fn after_a_rebind_the_old_port_is_closed_and_a_new_one_opens() {
        let mut nat = nat();
        let inside = from_inside(Transport::Udp, 1000);
        let before = sent(&mut nat, 0, inside).unwrap();
        nat.rebind();
        assert_eq!(received(&mut nat, 0, back(before)), None);
        let after = sent(&mut nat, 0, inside).unwrap();
        assert_ne!(before.source.port(), after.source.port());
        assert_eq!(received(&mut nat, 0, back(after)), Some(back(inside)));
    }

    #[test]
    fn a_router_without_ports_lets_nothing_new_out_until_some_are_idle() {
        let mut nat = nat();
        let ports = u16::MAX - FIRST_PORT + 1;
        for port in 0..ports {
            assert!(sent(&mut nat, 0, from_inside(Transport::Udp, port)).is_some());
        }
        assert_eq!(sent(&mut nat, 1, from_inside(Transport::Udp, ports)), None);
        assert!(sent(&mut nat, 31, from_inside(Transport::Udp, ports)).is_some());
        assert_eq!(nat.mappings.len(), 1);
    }
}
