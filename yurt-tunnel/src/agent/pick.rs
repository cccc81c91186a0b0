//! Which servers this node keeps links to: some of them, spread over the nodes, and the same after a restart.

use std::cmp::Reverse;
use std::net::SocketAddr;

use yurt_core::name::NodeName;

/// Returns the servers in this node's order of preference (rendezvous hashing): one that comes or goes leaves the
/// order of the others as it was, and every order is as likely.
pub(super) fn order(
    node: &NodeName,
    servers: impl IntoIterator<Item = SocketAddr>,
) -> Vec<SocketAddr> {
    let mut order: Vec<SocketAddr> = servers.into_iter().collect();
    order.sort_by_cached_key(|server| (Reverse(weight(node, server)), *server));
    order.dedup();
    order
}

/// Returns how many servers of the order are to be linked: as many as make `links` without those that are away,
/// which are redialled all the same.
pub(super) fn wanted(
    order: &[SocketAddr],
    links: usize,
    is_away: impl Fn(&SocketAddr) -> bool,
) -> usize {
    let mut present = 0;
    for (index, server) in order.iter().enumerate() {
        if present == links {
            return index;
        }
        present += usize::from(!is_away(server));
    }
    order.len()
}

/// FNV-1a, mixed at the end: the same in every version and on every machine.
fn weight(node: &NodeName, server: &SocketAddr) -> u64 {
    let server = server.to_string();
    let bytes = node.as_str().bytes().chain([0]).chain(server.bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(count: u8) -> Vec<SocketAddr> {
        let server = |last| SocketAddr::from(([192, 0, 2, last], 8443));
        (1..=count).map(server).collect()
    }

    fn node(number: usize) -> NodeName {
        format!("edge-{number}").parse().unwrap()
    }

    #[test]
    fn the_order_is_that_of_the_node_and_not_that_of_the_list() {
        let mut list = servers(10);
        let first = order(&node(1), list.clone());
        list.reverse();
        list.extend(servers(3));
        assert_eq!(order(&node(1), list.clone()), first);
        assert_ne!(order(&node(2), list), first);
    }

    #[test]
    fn the_order_is_the_same_in_every_version() {
        let order = order(&node(1), servers(4));
        let last: Vec<String> = order.iter().map(|server| server.ip().to_string()).collect();
        assert_eq!(last, ["192.0.2.1", "192.0.2.4", "192.0.2.2", "192.0.2.3"]);
    }

    #[test]
    fn a_server_that_goes_leaves_the_order_of_the_others() {
        let all = order(&node(1), servers(10));
        for gone in &all {
            let others = servers(10).into_iter().filter(|server| server != gone);
            let rest: Vec<_> = all
                .iter()
                .filter(|server| *server != gone)
                .copied()
                .collect();
            assert_eq!(order(&node(1), others), rest);
        }
    }

    #[test]
    fn the_nodes_are_spread_over_the_servers() {
        const NODES: usize = 3_000;
        let mut links = std::collections::BTreeMap::new();
        for number in 0..NODES {
            for server in &order(&node(number), servers(10))[..3] {
                *links.entry(*server).or_insert(0) += 1;
            }
        }
        let fair = NODES * 3 / 10;
        for (server, count) in links {
            assert!(
                (fair * 9 / 10..=fair * 11 / 10).contains(&count),
                "{server}: {count}"
            );
        }
    }

    #[test]
    fn a_server_that_is_away_is_redialled_and_replaced_by_the_next() {
        let all = order(&node(1), servers(6));
        let wanted = |links, away: &[usize]| {
            wanted(&all, links, |server| {
                away.iter().any(|&index| all[index] == *server)
            })
        };
        for (links, away, expected) in [
            (3, &[][..], 3),
            (3, &[1], 4),
            (3, &[1, 3], 5),
            (3, &[4], 3),
            (3, &[0, 1, 2, 3, 4, 5], 6),
            (9, &[], 6),
            (1, &[0], 2),
        ] {
            assert_eq!(
                wanted(links, away),
                expected,
                "{links} links, away {away:?}"
            );
        }
    }
}
