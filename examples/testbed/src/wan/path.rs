//! All that is between the cloud and the edge, without a wire: two lanes, a black hole, and the router at the edge.

use std::time::Duration;

use super::{
    Blackhole, Counts, Shape, WanConfig,
    lane::{Lane, Traffic},
    nat::Nat,
    packet::{Transport, transport},
};

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the cloud.
    Up,
    /// To the edge.
    Down,
}

impl Way {
    pub(super) const BOTH: [Self; 2] = [Self::Up, Self::Down];
}

#[derive(Debug)]
pub(super) struct Path {
    up: Lane,
    down: Lane,
    nat: Option<Nat>,
    blackhole: Blackhole,
}

impl Path {
    pub(super) fn new(config: &WanConfig) -> Self {
        Self {
            up: Lane::new(config.link, config.seed),
            down: Lane::new(config.link, !config.seed),
            nat: config.nat.map(Nat::new),
            blackhole: Blackhole::None,
        }
    }

    /// Takes a packet from the end that sends it.
    pub(super) fn send(&mut self, now: Duration, way: Way, mut packet: Vec<u8>) {
        if self.is_swallowed(way, &packet) {
            return;
        }
        if way == Way::Up
            && let Some(nat) = &mut self.nat
            && !nat.outward(now, &mut packet)
        {
            self.up.traffic.refused += 1;
            return;
        }
        self.lane(way).send(now, packet);
    }

    /// Returns the next packet that has arrived at the other end by now.
    pub(super) fn arrived(&mut self, now: Duration, way: Way) -> Option<Vec<u8>> {
        loop {
            let mut packet = self.lane(way).arrived(now)?;
            // What is on its way when the hole opens falls in too.
            if self.is_swallowed(way, &packet) {
                continue;
            }
            if way == Way::Down
                && let Some(nat) = &mut self.nat
                && !nat.inward(now, &mut packet)
            {
                self.down.traffic.refused += 1;
                continue;
            }
            let Traffic { packets, bytes, .. } = &mut self.lane(way).traffic;
            *packets += 1;
            *bytes += u64::try_from(packet.len()).unwrap_or(u64::MAX);
            return Some(packet);
        }
    }

    /// Returns when the next packet arrives, in either direction.
    pub(super) fn next_arrival(&self) -> Option<Duration> {
        let lanes = [&self.up, &self.down];
        lanes.into_iter().filter_map(Lane::next_arrival).min()
    }

    pub(super) fn shape(&mut self, way: Way, shape: Shape) {
        self.lane(way).shape(shape);
    }

    pub(super) fn blackhole(&mut self, blackhole: Blackhole) {
        self.blackhole = blackhole;
    }

    pub(super) fn rebind(&mut self) {
        if let Some(nat) = &mut self.nat {
            nat.rebind();
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            up: self.up.traffic,
            down: self.down.traffic,
        }
    }

    fn is_swallowed(&mut self, way: Way, packet: &[u8]) -> bool {
        let is_swallowed = match self.blackhole {
            Blackhole::None => false,
            Blackhole::All => true,
            Blackhole::Udp => transport(packet) == Some(Transport::Udp),
        };
        self.lane(way).traffic.swallowed += u64::from(is_swallowed);
        is_swallowed
    }

    fn lane(&mut self, way: Way) -> &mut Lane {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use super::{
        super::{
            nat::NatConfig,
            packet::{Flow, flow, tests::packet},
        },
        *,
    };

    const EDGE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 1000);
    const CLOUD: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 443);

    fn upward(transport: Transport) -> Flow {
        Flow {
            transport,
            source: EDGE,
            destination: CLOUD,
        }
    }

    fn at(millisecond: u64) -> Duration {
        Duration::from_millis(millisecond)
    }

    fn path(nat: Option<NatConfig>) -> Path {
        Path::new(&WanConfig {
            link: Shape {
                delay: at(10),
                ..Shape::default()
            },
            nat,
            ..WanConfig::default()
        })
    }

    #[test]
    fn a_packet_arrives_after_the_delay_at_the_other_end_alone() {
        let mut path = path(None);
        let bytes = packet(&upward(Transport::Tcp), b"hello");
        path.send(at(0), Way::Up, bytes.clone());
        assert_eq!(path.next_arrival(), Some(at(10)));
        assert_eq!(path.arrived(at(9), Way::Up), None);
        assert_eq!(path.arrived(at(10), Way::Down), None);
        assert_eq!(path.arrived(at(10), Way::Up), Some(bytes));
        assert_eq!(path.next_arrival(), None);
        let Counts { up, down } = path.counts();
        assert_eq!((up.packets, up.bytes), (1, 45));
        assert_eq!(down, Traffic::default());
    }

    #[test]
    fn a_black_hole_takes_what_is_sent_and_what_is_on_its_way_and_nothing_else() {
        for (hole, transport, passes) in [
            (Blackhole::All, Transport::Tcp, false),
            (Blackhole::All, Transport::Udp, false),
            (Blackhole::Udp, Transport::Tcp, true),
            (Blackhole::Udp, Transport::Udp, false),
            (Blackhole::None, Transport::Udp, true),
        ] {
            let mut path = path(None);
            let bytes = packet(&upward(transport), b"hello");
            path.send(at(0), Way::Down, bytes.clone());
            path.blackhole(hole);
            path.send(at(1), Way::Down, bytes.clone());
            let mut arrived = || path.arrived(at(20), Way::Down).is_some();
            assert_eq!((arrived(), arrived()), (passes, passes), "{hole:?}");
            let swallowed = if passes { 0 } else { 2 };
            assert_eq!(path.counts().down.swallowed, swallowed, "{hole:?}");
            path.blackhole(Blackhole::None);
            path.send(at(30), Way::Down, bytes);
            assert!(path.arrived(at(40), Way::Down).is_some(), "{hole:?}");
        }
    }

    #[test]
    fn the_router_is_at_the_edge_and_a_mapping_that_went_meanwhile_lets_nothing_in() {
        let mut path = path(Some(NatConfig {
            timeout: at(100),
            ..NatConfig::default()
        }));
        path.send(at(0), Way::Up, packet(&upward(Transport::Udp), b"ask"));
        let seen = flow(&path.arrived(at(10), Way::Up).unwrap()).unwrap();
        assert_eq!(*seen.source.ip(), NatConfig::default().address);
        let answer = Flow {
            source: seen.destination,
            destination: seen.source,
            ..seen
        };
        let mut answered = |sent| {
            path.send(at(sent), Way::Down, packet(&answer, b"answer"));
            let arrived = path.arrived(at(sent + 10), Way::Down);
            arrived.map(|arrived| flow(&arrived).unwrap().destination)
        };
        assert_eq!(answered(20), Some(EDGE));
        assert_eq!(answered(115), Some(EDGE), "kept by the one before");
        assert_eq!(answered(220), None, "sent in time, but late at the router");
        assert_eq!(path.counts().down.refused, 1);
    }
}
