//! IPv4 packets as a network sees them: where they come from, where they go, and how both are rewritten.
//!
//! Checksums are updated from what changes (RFC 1624), so a packet that was damaged before stays damaged.

use std::net::{Ipv4Addr, SocketAddrV4};

const SOURCE: usize = 12;
const DESTINATION: usize = 16;
const HEADER_SUM: usize = 10;
const SHORTEST_HEADER: usize = 20;

/// The protocols that have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub(super) transport: Transport,
    pub(super) source: SocketAddrV4,
    pub(super) destination: SocketAddrV4,
}

/// Which end of a packet is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

/// Returns who talks to whom in a whole packet; `None` for fragments, other protocols, and what is no IPv4 packet.
pub(super) fn flow(packet: &[u8]) -> Option<Flow> {
    let start = header_length(packet)?;
    let fragment = word(packet, 6)? & 0x3fff; // more fragments, or not the first one
    let transport = transport(packet).filter(|_| fragment == 0)?;
    packet.get(..start + sum_offset(transport) + 2)?;
    Some(Flow {
        transport,
        source: SocketAddrV4::new(address(packet, SOURCE)?, word(packet, start)?),
        destination: SocketAddrV4::new(address(packet, DESTINATION)?, word(packet, start + 2)?),
    })
}

/// Returns the protocol of a packet or a fragment.
pub(super) fn transport(packet: &[u8]) -> Option<Transport> {
    header_length(packet)?;
    match packet.get(9)? {
        6 => Some(Transport::Tcp),
        17 => Some(Transport::Udp),
        _ => None,
    }
}

/// Rewrites one end of a packet that has a [`flow`].
pub(super) fn rewrite(packet: &mut [u8], flow: &Flow, end: End, to: SocketAddrV4) {
    let Some(start) = header_length(packet) else {
        return;
    };
    let (address, port) = match end {
        End::Source => (SOURCE, start),
        End::Destination => (DESTINATION, start + 2),
    };
    let sum = start + sum_offset(flow.transport);
    // Zero says that the sender of a datagram has not summed.
    let is_summed = flow.transport == Transport::Tcp || word(packet, sum) != Some(0);
    let [high, low] = halves(*to.ip());
    for (at, value) in [(address, high), (address + 2, low), (port, to.port())] {
        let old = word(packet, at).unwrap_or_default();
        put(packet, at, value);
        if at != port {
            update(packet, HEADER_SUM, old, value);
        }
        if is_summed {
            update(packet, sum, old, value);
        }
    }
    if is_summed && flow.transport == Transport::Udp && word(packet, sum) == Some(0) {
        put(packet, sum, 0xffff);
    }
}

fn header_length(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let length = usize::from(first & 0x0f) * 4;
    (first >> 4 == 4 && length >= SHORTEST_HEADER && packet.len() >= length).then_some(length)
}

fn sum_offset(transport: Transport) -> usize {
    match transport {
        Transport::Tcp => 16,
        Transport::Udp => 6,
    }
}

fn update(packet: &mut [u8], sum: usize, old: u16, new: u16) {
    let Some(before) = word(packet, sum) else {
        return;
    };
    let total = u32::from(!before) + u32::from(!old) + u32::from(new);
    put(packet, sum, !fold(total));
}

/// Adds the carries of a sum of words until there are none.
fn fold(mut total: u32) -> u16 {
    loop {
        match u16::try_from(total) {
            Ok(word) => return word,
            Err(_) => total = (total & 0xffff) + (total >> 16),
        }
    }
}

fn word(packet: &[u8], at: usize) -> Option<u16> {
    let bytes = packet.get(at..at + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

fn put(packet: &mut [u8], at: usize, value: u16) {
    if let Some(bytes) = packet.get_mut(at..at + 2) {
        bytes.copy_from_slice(&value.to_be_bytes());
    }
}

fn address(packet: &[u8], at: usize) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    Some(bytes.into())
}

fn halves(address: Ipv4Addr) -> [u16; 2] {
    let [a, b, c, d] = address.octets();
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Makes a packet with right checksums, all of them summed anew.
    pub(in crate::wan) fn packet(flow: &Flow, payload: &[u8]) -> Vec<u8> {
        let protocol = match flow.transport {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        };
        let mut made = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0];
        made.extend(flow.source.ip().octets());
        made.extend(flow.destination.ip().octets());
        made.extend(flow.source.port().to_be_bytes());
        made.extend(flow.destination.port().to_be_bytes());
        match flow.transport {
            Transport::Tcp => made.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0]),
            Transport::Udp => {
                let length = u16::try_from(8 + payload.len()).unwrap();
                made.extend(length.to_be_bytes());
                made.extend([0, 0]);
            }
        }
        made.extend(payload);
        let length = u16::try_from(made.len()).unwrap();
        put(&mut made, 2, length);
        let sum = header_sum(&made);
        put(&mut made, HEADER_SUM, sum);
        let sum = transport_sum(&made, flow.transport);
        put(&mut made, 20 + sum_offset(flow.transport), sum);
        made
    }

    fn header_sum(packet: &[u8]) -> u16 {
        let mut header = packet[..20].to_vec();
        put(&mut header, HEADER_SUM, 0);
        !sum(&header)
    }

    fn transport_sum(packet: &[u8], transport: Transport) -> u16 {
        let mut summed = packet[SOURCE..20].to_vec();
        summed.extend([0, packet[9]]);
        summed.extend(u16::try_from(packet.len() - 20).unwrap().to_be_bytes());
        summed.extend(&packet[20..]);
        put(&mut summed, 12 + sum_offset(transport), 0);
        match (!sum(&summed), transport) {
            (0, Transport::Udp) => 0xffff,
            (sum, _) => sum,
        }
    }

    fn sum(bytes: &[u8]) -> u16 {
        let words = bytes.chunks(2).map(|pair| {
            let low = pair.get(1).copied().unwrap_or_default();
            u32::from(u16::from_be_bytes([pair[0], low]))
        });
        fold(words.sum())
    }

    fn flows() -> impl Strategy<Value = Flow> {
        let transport = prop_oneof![Just(Transport::Tcp), Just(Transport::Udp)];
        (transport, ends(), ends()).prop_map(|(transport, source, destination)| Flow {
            transport,
            source,
            destination,
        })
    }

    fn ends() -> impl Strategy<Value = SocketAddrV4> {
        (any::<u32>(), any::<u16>())
            .prop_map(|(address, port)| SocketAddrV4::new(address.into(), port))
    }

    proptest! {
        #[test]
        fn a_rewritten_packet_is_the_one_that_would_have_been_sent(
            flow in flows(),
            to in ends(),
            is_source: bool,
            payload in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut rewritten = packet(&flow, &payload);
            prop_assert_eq!(self::flow(&rewritten), Some(flow));
            let (end, expected) = if is_source {
                (End::Source, Flow { source: to, ..flow })
            } else {
                (End::Destination, Flow { destination: to, ..flow })
            };
            rewrite(&mut rewritten, &flow, end, to);
            prop_assert_eq!(rewritten, packet(&expected, &payload));
        }

        #[test]
        fn any_bytes_are_looked_at_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut bytes = bytes;
            transport(&bytes);
            if let Some(flow) = flow(&bytes) {
                rewrite(&mut bytes, &flow, End::Source, flow.destination);
            }
        }
    }

    #[test]
    fn a_datagram_without_a_sum_stays_without() {
        let end = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 1);
        let flow = Flow {
            transport: Transport::Udp,
            source: end,
            destination: end,
        };
        let mut datagram = packet(&flow, b"hello");
        put(&mut datagram, 26, 0);
        rewrite(
            &mut datagram,
            &flow,
            End::Source,
            SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9),
        );
        assert_eq!(word(&datagram, 26), Some(0));
    }

    #[test]
    fn a_fragment_has_a_protocol_but_no_flow() {
        let end = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        let flow = Flow {
            transport: Transport::Udp,
            source: end,
            destination: end,
        };
        for fragment in [0x2000, 0x00b9, 0x20b9] {
            let mut bytes = packet(&flow, b"hello");
            put(&mut bytes, 6, fragment);
            assert_eq!(self::flow(&bytes), None);
            assert_eq!(transport(&bytes), Some(Transport::Udp));
        }
    }
}
