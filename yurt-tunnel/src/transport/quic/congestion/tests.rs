//! The model on a bottleneck in virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fastrand::Rng;

use super::*;

const PACKET: u64 = 1200;

/// A bottleneck with a queue, and the way there and back.
struct Bottleneck {
    bits: u64,
    delay: Duration,
    queue: u64,
    loss: f64,
}

/// What came of a flow.
#[derive(Debug)]
struct Outcome {
    /// Of what the bottleneck could deliver, in percent.
    used: u64,
    /// The waiting in the queue that one packet in a hundred exceeded.
    waited: Duration,
}

/// A flow that always has something to send, through bottlenecks of which each lasts for some time; what comes
/// of it is measured from two seconds after the last change on.
fn flow(stages: &[(Duration, Bottleneck)]) -> Outcome {
    let mut rng = Rng::with_seed(7);
    let mut model = Model::new(PACKET);
    let mut due = BinaryHeap::new();
    let (mut now, mut in_flight, mut free_at) = (Duration::ZERO, 0, Duration::ZERO);
    let mut next_send = Duration::ZERO;
    let mut trip = Duration::from_millis(40);
    let (mut measured, mut waits) = (0, Vec::new());
    let total: Duration = stages.iter().map(|(lasts, _)| *lasts).sum();
    let (last, link) = stages.last().unwrap();
    let from = total - *last + Duration::from_secs(2);
    while now < total {
        let mut begins = Duration::ZERO;
        let stage = stages.iter().find(|(lasts, _)| {
            begins += *lasts;
            now < begins
        });
        let stage = &stage.unwrap().1;
        // Paced as quinn does: a quarter faster than the window in a round trip.
        while in_flight + PACKET <= model.window() && next_send <= now {
            in_flight += PACKET;
            let waits_for = free_at.saturating_sub(now);
            let waiting = u128::from(stage.bits) * waits_for.as_micros() / 8_000_000;
            let is_lost = rng.f64() < stage.loss || waiting > u128::from(stage.queue);
            if !is_lost {
                let takes = Duration::from_nanos(PACKET * 8_000_000_000 / stage.bits);
                free_at = free_at.max(now) + takes;
                if now > from {
                    waits.push(waits_for);
                }
            }
            // A loss is known when later packets have arrived.
            let known = free_at.max(now) + stage.delay;
            due.push(Reverse((known, now, is_lost)));
            let gap = trip.mul_f64(PACKET as f64 * 0.8 / model.window() as f64);
            next_send = next_send.max(now) + gap;
        }
        let arrival = due.peek().map(|Reverse((at, ..))| *at);
        let send = (in_flight + PACKET <= model.window()).then_some(next_send);
        now = [arrival, send]
            .into_iter()
            .flatten()
            .min()
            .unwrap()
            .max(now);
        while let Some(Reverse((at, sent, is_lost))) = due.peek().copied()
            && at <= now
        {
            due.pop();
            in_flight -= PACKET;
            if is_lost {
                model.lost(PACKET, false);
            } else {
                trip = (trip * 7 + (now - sent)) / 8;
                model.acked(now, sent, PACKET, false);
                measured += if now > from { PACKET } else { 0 };
            }
        }
    }
    waits.sort();
    let could = link.bits / 8 * (total - from).as_secs();
    Outcome {
        used: measured * 100 / could,
        waited: waits[waits.len() * 99 / 100],
    }
}

fn bottleneck(megabits: u64, loss: f64) -> Bottleneck {
    Bottleneck {
        bits: megabits * 1_000_000,
        delay: Duration::from_millis(40),
        queue: 1 << 20,
        loss,
    }
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_slow_bottleneck_is_used_and_its_queue_stays_short() {
    for megabits in [2, 10, 50, 200] {
        let outcome = flow(&[(LONG, bottleneck(megabits, 0.0))]);
        assert!(outcome.used >= 90, "{megabits}: {outcome:?}");
        assert!(
            outcome.waited <= Duration::from_millis(30),
            "{megabits}: {outcome:?}"
        );
    }
}

#[test]
fn one_packet_in_a_hundred_lost_or_three_do_not_slow_it_down() {
    for (loss, used) in [(0.01, 85), (0.03, 80)] {
        let outcome = flow(&[(LONG, bottleneck(50, loss))]);
        assert!(outcome.used >= used, "{loss}: {outcome:?}");
    }
}

#[test]
fn a_bottleneck_that_narrows_gets_a_short_queue_again() {
    let outcome = flow(&[(LONG, bottleneck(50, 0.0)), (LONG, bottleneck(5, 0.0))]);
    assert!(outcome.used >= 90, "{outcome:?}");
    assert!(outcome.waited <= Duration::from_millis(250), "{outcome:?}");
}

#[test]
fn a_bottleneck_that_widens_is_found_out() {
    let outcome = flow(&[(LONG, bottleneck(5, 0.0)), (LONG * 2, bottleneck(50, 0.0))]);
    assert!(outcome.used >= 80, "{outcome:?}");
}

#[test]
fn a_short_queue_that_overflows_is_not_fought() {
    let shallow = Bottleneck {
        queue: 20_000,
        ..bottleneck(50, 0.0)
    };
    let outcome = flow(&[(LONG, shallow)]);
    assert!(outcome.used >= 80, "{outcome:?}");
}

#[test]
fn a_path_that_is_gone_for_long_begins_anew() {
    let mut model = Model::new(PACKET);
    for round in 1..50_u32 {
        let now = Duration::from_millis(40) * round;
        model.acked(now, now - Duration::from_millis(40), 100_000, false);
    }
    assert!(model.window() > 50_000);
    model.lost(10_000, true);
    assert_eq!(model.window(), MIN_PACKETS * PACKET);
}
