//! Which API server is asked, and what the servers' health says about the cloud: pure decisions.

use std::time::Duration;

use jiff::Timestamp;

use super::{Order, Reach};

/// What is known of one API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// Not tried yet.
    Unknown,
    /// It answered, and nothing failed since.
    Up,
    /// It could not be reached, or says that it is not ready.
    Down,
}

/// The healthy servers in the order in which to try them; `turn` counts the choices made before.
pub(super) fn candidates(health: &[Health], order: Order, turn: usize) -> Vec<usize> {
    let mut up: Vec<usize> = (0..health.len())
        .filter(|&index| health[index] == Health::Up)
        .collect();
    match order {
        Order::Priority => {}
        Order::RoundRobin if up.is_empty() => {}
        Order::RoundRobin => {
            let first = turn % up.len();
            up.rotate_left(first);
        }
    }
    up
}

/// The least time to confirm that a server is still there when a connection broke: with 4 s + 2.5 s of keep-alive a silent cut
/// is noticed within 8 s.
const CONFIRM_WITHIN: Duration = Duration::from_millis(400);

/// How long a connection may take that shows that a server is still there, given how long the last one took and how long
/// any may take: on a long way it takes several round trips.
pub(super) fn confirm_within(last: Duration, any: Duration) -> Duration {
    (CONFIRM_WITHIN + last * 2).min(any.max(CONFIRM_WITHIN))
}

/// Whether the cloud can be reached, given what was said before.
pub(super) fn reach(health: &[Health], before: Reach, now: Timestamp) -> Reach {
    if health.contains(&Health::Up) {
        return Reach::Online;
    }
    match before {
        // Somebody who was not asked yet may still answer.
        Reach::Unknown if health.contains(&Health::Unknown) => Reach::Unknown,
        Reach::Unknown | Reach::Online => Reach::CutOff { since: now },
        Reach::CutOff { since } => Reach::CutOff { since },
    }
}

/// An interval within a quarter of the given one, so that the nodes of a site do not probe in step.
pub(super) fn jittered(interval: Duration, random: u32) -> Duration {
    interval.mul_f64(0.75 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

/// The most streams on a connection.
pub(super) const MAX_STREAMS: usize = 80;

/// How many streams a connection takes before another one is opened.
pub(super) fn stream_limit(peer_allows: usize) -> usize {
    // kube-apiserver allows 100: a fifth is left for what is under way when the limit shrinks.
    (peer_allows / 5 * 4).clamp(1, MAX_STREAMS)
}

#[cfg(test)]
mod tests {
    use super::Health::{Down, Unknown, Up};
    use super::*;

    #[test]
    fn a_server_has_longer_to_show_itself_on_a_longer_way() {
        let ms = Duration::from_millis;
        for (last, any, expected) in [
            (0, 3_000, 400),
            (5, 3_000, 410),
            (880, 3_000, 2_160),
            (2_000, 3_000, 3_000),
            (0, 100, 400),
        ] {
            assert_eq!(confirm_within(ms(last), ms(any)), ms(expected));
        }
    }

    #[test]
    fn only_healthy_servers_are_candidates_in_the_chosen_order() {
        use Order::{Priority, RoundRobin};
        let table: &[(&[Health], Order, usize, &[usize])] = &[
            (&[], RoundRobin, 7, &[]),
            (&[Down, Unknown], RoundRobin, 7, &[]),
            (&[Up], RoundRobin, 7, &[0]),
            (&[Up, Up, Up], RoundRobin, 0, &[0, 1, 2]),
            (&[Up, Up, Up], RoundRobin, 1, &[1, 2, 0]),
            (&[Up, Up, Up], RoundRobin, 5, &[2, 0, 1]),
            (&[Up, Down, Up], RoundRobin, 1, &[2, 0]),
            (&[Up, Down, Up], RoundRobin, 2, &[0, 2]),
            (&[Up, Up], RoundRobin, usize::MAX, &[1, 0]),
            (&[], Priority, 7, &[]),
            (&[Up, Up, Up], Priority, 1, &[0, 1, 2]),
            (&[Down, Up, Up], Priority, 0, &[1, 2]),
            (&[Up, Unknown, Down], Priority, 2, &[0]),
        ];
        for (health, order, turn, expected) in table {
            let chosen = candidates(health, *order, *turn);
            assert_eq!(&chosen, expected, "{health:?} {order:?} {turn}");
        }
    }

    #[test]
    fn the_cloud_is_cut_off_since_the_last_server_went_down() {
        let early = Timestamp::from_second(10).unwrap();
        let now = Timestamp::from_second(20).unwrap();
        let cut = |since| Reach::CutOff { since };
        let table: &[(&[Health], Reach, Reach)] = &[
            (&[Unknown], Reach::Unknown, Reach::Unknown),
            (&[Unknown, Down], Reach::Unknown, Reach::Unknown),
            (&[Unknown, Up], Reach::Unknown, Reach::Online),
            (&[Down, Down], Reach::Unknown, cut(now)),
            (&[Down, Up], Reach::Online, Reach::Online),
            (&[Down, Down], Reach::Online, cut(now)),
            (&[Down, Unknown], Reach::Online, cut(now)),
            (&[Down, Down], cut(early), cut(early)),
            (&[Down, Up], cut(early), Reach::Online),
        ];
        for (health, before, expected) in table {
            let said = reach(health, *before, now);
            assert_eq!(said, *expected, "{health:?} {before:?}");
        }
    }

    #[test]
    fn jitter_stays_within_a_quarter() {
        let second = Duration::from_secs(1);
        assert_eq!(jittered(second, 0), Duration::from_millis(750));
        assert_eq!(jittered(second, u32::MAX), Duration::from_millis(1250));
    }

    #[test]
    fn a_connection_is_never_filled_to_what_the_peer_allows() {
        for (allowed, expected) in [(0, 1), (1, 1), (10, 8), (100, 80), (250, 80)] {
            assert_eq!(stream_limit(allowed), expected, "{allowed}");
        }
    }
}
