use std::ops::RangeInclusive;

use super::ours::{Ours, PACKET};
use super::tcp::Tcp;
use super::*;
use crate::transport::quic::congestion::model::{MIN_PACKETS, Model};

/// Until the flows have found their shares, and how long they are watched then.
const WARM: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(30);

/// The queues of a policer, a small router, a usual one, and one of too much memory.
const QUEUES: [u64; 4] = [2, 5, 50, 200];

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A line of 20 Mbit/s, 50 ms away.
fn line(queue: u64) -> Link {
    Link {
        bits: 20_000_000,
        queue: ms(queue),
        trip: ms(50),
        jitter: Duration::ZERO,
        loss: 0.0,
    }
}

/// A line 40 ms away that has a queue of 1 MiB, or loses packets.
fn long_queue(megabits: u64, loss: f64) -> Link {
    Link {
        bits: megabits * 1_000_000,
        queue: ms(8_388 / megabits),
        trip: ms(40),
        loss,
        ..line(0)
    }
}

/// Ours alone, watched after four seconds.
fn alone(link: Link) -> World {
    let mut world = World::new(link, 7);
    world.add(ours());
    world.live(ms(4_000));
    world.live(LONG);
    world
}

/// Two flows of which the second begins later; returns the world after both have been watched.
fn two(link: Link, flows: [fn() -> Box<dyn Sender>; 2], apart: Duration) -> World {
    let mut world = World::new(link, 7);
    world.add(flows[0]());
    world.live(apart);
    world.add(flows[1]());
    world.live(WARM);
    world.live(LONG);
    world
}

fn ours() -> Box<dyn Sender> {
    Box::new(Ours::new())
}

fn cubic() -> Box<dyn Sender> {
    Box::new(Tcp::cubic())
}

fn reno() -> Box<dyn Sender> {
    Box::new(Tcp::reno())
}

/// Ours and another: both at once, and each ten seconds after the other.
fn assert_fair_beside(other: fn() -> Box<dyn Sender>, link: Link) {
    let late = ms(10_000);
    for (flows, apart, index) in [
        ([ours, other], Duration::ZERO, 0),
        ([ours, other], late, 0),
        ([other, ours], late, 1),
    ] {
        assert_fair(&two(link, flows, apart), index, 25.0..=75.0);
    }
}

fn assert_fair(world: &World, index: usize, fair: RangeInclusive<f64>) {
    let (share, loss, used) = (world.share(index), world.loss(index), world.used());
    let what = format!(
        "flow {index} of {:?}: {share:.0} % of it, {loss:.2} % lost, {used:.0} % used",
        world.link
    );
    assert!(fair.contains(&share), "{what}");
    assert!(loss <= 3.0, "{what}");
    assert!(used >= 75.0, "{what}");
}

#[test]
fn beside_cubic_each_gets_a_fair_share_whatever_the_queue() {
    for queue in QUEUES {
        assert_fair_beside(cubic, line(queue));
    }
}

#[test]
fn beside_reno_each_gets_a_fair_share_whatever_the_queue() {
    for queue in QUEUES {
        assert_fair_beside(reno, line(queue));
    }
}

#[test]
fn two_of_ours_share_a_line_whoever_came_first_and_however_far_it_is() {
    for trip in [20, 200] {
        for queue in [20, 200] {
            let link = Link {
                trip: ms(trip),
                ..line(queue)
            };
            for apart in [Duration::ZERO, ms(10_000)] {
                assert_fair(&two(link, [ours, ours], apart), 0, 30.0..=70.0);
            }
        }
    }
}

#[test]
fn alone_behind_a_policer_it_loses_little_and_uses_the_line() {
    for queue in [2, 5, 20] {
        let world = alone(line(queue));
        assert!(world.loss(0) <= 3.0, "{queue} ms: {:.1} %", world.loss(0));
        assert!(world.used() >= 85.0, "{queue} ms: {:.0} %", world.used());
    }
}

#[test]
fn a_slow_bottleneck_is_used_and_its_queue_stays_short() {
    for megabits in [2, 10, 50] {
        let mut world = alone(long_queue(megabits, 0.0));
        let (used, waited) = (world.used(), world.waited(0));
        assert!(used >= 90.0, "{megabits}: {used:.0} %");
        assert!(waited <= ms(30), "{megabits}: {waited:?}");
    }
}

#[test]
fn a_queue_of_its_own_does_not_creep_up() {
    let mut world = alone(line(1_000));
    for _ in 0..4 {
        world.live(LONG);
    }
    let waited = world.waited(0);
    assert!(waited <= ms(30), "{waited:?}");
}

#[test]
fn loss_by_the_path_does_not_slow_it_down() {
    for (loss, jitter, used) in [
        (0.001, 0, 85.0),
        (0.01, 0, 85.0),
        (0.01, 5, 85.0),
        (0.01, 20, 70.0),
        (0.03, 0, 80.0),
        (0.03, 5, 80.0),
    ] {
        let link = Link {
            jitter: ms(jitter),
            ..long_queue(50, loss)
        };
        let mut world = alone(link);
        world.live(LONG);
        assert!(world.used() >= used, "{link:?}: {:.0} %", world.used());
    }
}

#[test]
fn a_bottleneck_that_narrows_gets_a_short_queue_again() {
    // In each round of the cycle.
    for round in 0..8 {
        let mut world = World::new(long_queue(50, 0.0), 7);
        world.add(ours());
        world.live(ms(5_000 + 41 * round));
        world.link = long_queue(5, 0.0);
        world.live(ms(2_000));
        world.live(WARM);
        let (used, waited) = (world.used(), world.waited(0));
        assert!(used >= 90.0, "{round}: {used:.0} %");
        assert!(waited <= ms(100), "{round}: {waited:?}");
    }
}

#[test]
fn a_bottleneck_that_widens_is_found_out() {
    let mut world = alone(long_queue(5, 0.0));
    world.link = long_queue(50, 0.0);
    world.live(ms(2_000));
    world.live(LONG);
    assert!(world.used() >= 80.0, "{:.0} %", world.used());
}

#[test]
fn a_flow_that_starves_in_a_full_queue_gets_its_share_again() {
    for queue in QUEUES {
        let mut world = World::new(line(queue), 7);
        world.add(cubic());
        world.live(ms(10_000));
        world.add(Box::new(Ours::starved(ms(50), ms(50 + queue))));
        world.live(WARM);
        world.live(LONG);
        assert_fair(&world, 1, 15.0..=75.0);
    }
}

#[test]
fn when_the_other_has_gone_the_queue_is_short_again() {
    let mut world = two(line(200), [ours, reno], Duration::ZERO);
    world.flows[1].sender = Box::new(Silent);
    world.live(WARM);
    world.live(LONG);
    let (used, waited) = (world.used(), world.waited(0));
    assert!(used >= 85.0, "{used:.0} %");
    assert!(waited <= ms(30), "{waited:?}");
}

/// Who has nothing to send.
struct Silent;

impl Sender for Silent {
    fn may_send(&mut self, _: Duration) -> bool {
        false
    }

    fn send(&mut self, _: Duration, _: u64) -> u64 {
        0
    }

    fn acked(&mut self, _: Duration, _: u64) {}

    fn timeout(&self) -> Option<Duration> {
        None
    }

    fn on_timeout(&mut self, _: Duration) {}
}

#[test]
fn a_path_that_is_gone_for_long_begins_anew() {
    let mut model = Model::new(PACKET);
    for round in 1..50_u32 {
        let now = ms(40) * round;
        model.acked(now, now - ms(40), 100_000, false);
    }
    assert!(model.window() > 50_000);
    model.lost(ms(2_000), ms(1_960), 10_000, true);
    assert_eq!(model.window(), MIN_PACKETS * PACKET);
}

#[test]
fn a_queue_that_marks_packets_is_heeded_however_short_it_is() {
    for rounds in [4, 40] {
        let mut model = Model::new(PACKET);
        for round in 1..rounds {
            // Round trips of 60 ms have been seen, those of now take 41.
            let trip = ms(if round == 1 {
                60
            } else {
                40 + u64::from(round % 2)
            });
            let now = ms(60) * round;
            model.acked(now, now - trip, 100_000, false);
        }
        let (now, before) = (ms(60) * rounds, model.window());
        model.lost(now, now - ms(40), PACKET, false);
        assert_eq!(model.window(), before, "one that is lost was the path's");
        model.lost(now, now - ms(40), 0, false);
        assert!(model.window() < before, "{before}");
        let cut = model.window();
        model.lost(now, now - ms(40), 0, false);
        assert_eq!(model.window(), cut, "once a round trip");
    }
}

#[test]
fn whatever_it_is_told_the_window_stays_within_bounds() {
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        let mut model = Model::new(PACKET);
        let mut now = Duration::ZERO;
        for _ in 0..2_000 {
            now += Duration::from_nanos(1 << rng.u32(0..40));
            let bytes = 1 << rng.u32(0..24);
            // Also of times that have not been, as clocks of two processors may differ.
            let sent = (now + ms(1)).saturating_sub(Duration::from_nanos(1 << rng.u32(0..40)));
            let before = model.window();
            match rng.u8(0..20) {
                0 => model.lost(now, sent, 0, false),
                1..4 => model.lost(now, sent, bytes, false),
                4 => model.lost(now, sent, bytes, rng.u8(0..50) == 0),
                5 => model.set_packet(rng.u64(1_200..9_000)),
                _ => model.acked(now, sent, bytes, rng.bool()),
            }
            let most = before.saturating_add(bytes).max(MIN_PACKETS * 9_000);
            let window = model.window();
            assert!(
                (MIN_PACKETS * 1_200..=most).contains(&window),
                "{seed}: {window}"
            );
        }
    }
}
