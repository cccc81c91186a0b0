use proptest::prelude::*;

use super::*;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Sends packets of these lengths at these times, and returns when each arrived: its number and the time.
fn run(lane: &mut Lane, sent: &[(Duration, usize)]) -> Vec<(usize, Duration)> {
    for (number, &(now, length)) in sent.iter().enumerate() {
        let mut packet = vec![0; length];
        packet[..8].copy_from_slice(&number.to_be_bytes());
        lane.send(now, packet);
    }
    let mut arrived = Vec::new();
    while let Some(next) = lane.next_arrival() {
        let packet = lane.arrived(next).unwrap();
        let number = usize::from_be_bytes(packet[..8].try_into().unwrap());
        arrived.push((number, next));
    }
    arrived
}

fn every(interval: Duration, count: u32, length: usize) -> Vec<(Duration, usize)> {
    (0..count)
        .map(|number| (interval * number, length))
        .collect()
}

#[test]
fn a_perfect_lane_delivers_at_once_and_in_order() {
    let mut lane = Lane::new(Shape::default(), 1);
    let arrived = run(&mut lane, &every(Duration::ZERO, 100, 1500));
    let expected: Vec<_> = (0..100).map(|number| (number, Duration::ZERO)).collect();
    assert_eq!(arrived, expected);
}

#[test]
fn a_rate_spaces_what_comes_at_once_and_the_queue_drops_the_rest() {
    // 1,000 bytes take 1 ms; ten of them wait.
    let shape = Shape {
        delay: ms(20),
        rate: Some(8_000_000),
        queue: 10_000,
        ..Shape::default()
    };
    let mut lane = Lane::new(shape, 1);
    let arrived = run(&mut lane, &every(Duration::ZERO, 30, 1000));
    let expected: Vec<_> = (0..10)
        .map(|number| (number, ms(21 + number as u64)))
        .collect();
    assert_eq!(arrived, expected);
    assert_eq!(lane.traffic.overflowed, 20);
    // The queue is empty again: the next one waits for nobody.
    assert_eq!(run(&mut lane, &[(ms(100), 1000)]), [(0, ms(121))]);
}

#[test]
fn a_late_packet_is_overtaken_by_those_behind_it_and_by_no_others() {
    let shape = Shape {
        delay: ms(10),
        reorder: 0.1,
        reorder_by: ms(5),
        ..Shape::default()
    };
    let mut lane = Lane::new(shape, 3);
    let arrived = run(&mut lane, &every(ms(1), 1000, 100));
    let late: Vec<_> = arrived
        .iter()
        .filter(|(number, time)| *time != ms(10 + *number as u64))
        .collect();
    assert!(
        late.iter()
            .all(|(number, time)| *time == ms(15 + *number as u64))
    );
    assert_eq!(lane.traffic.reordered, late.len() as u64);
    assert!((50..150).contains(&late.len()), "{}", late.len());
    assert!(!arrived.is_sorted());
}

#[test]
fn jitter_spreads_but_keeps_the_order() {
    let shape = Shape {
        delay: ms(10),
        jitter: ms(10),
        ..Shape::default()
    };
    let arrived = run(&mut Lane::new(shape, 4), &every(ms(20), 1000, 100));
    let took = |(number, time): &(usize, Duration)| *time - ms(20 * *number as u64);
    let took: Vec<_> = arrived.iter().map(took).collect();
    let (least, most) = (took.iter().min().unwrap(), took.iter().max().unwrap());
    assert!(*least < ms(11) && *most > ms(19), "{least:?} to {most:?}");
    assert!(run(&mut Lane::new(shape, 4), &every(ms(1), 1000, 100)).is_sorted());
}

#[test]
fn packets_are_lost_and_doubled_as_often_as_was_asked_for() {
    for share in [0.0, 0.01, 0.5, 1.0] {
        let lossy = Shape {
            loss: share,
            ..Shape::default()
        };
        let doubling = Shape {
            duplicate: share,
            ..Shape::default()
        };
        let sent = every(ms(1), 10_000, 100);
        let near = |count: u64| {
            let found = count as f64 / 10_000.0;
            assert!((found - share).abs() < 0.01, "{found} for {share}");
        };
        let mut lane = Lane::new(lossy, 5);
        assert_eq!(
            run(&mut lane, &sent).len() as u64,
            10_000 - lane.traffic.lost
        );
        near(lane.traffic.lost);
        let mut lane = Lane::new(doubling, 5);
        assert_eq!(
            run(&mut lane, &sent).len() as u64,
            10_000 + lane.traffic.duplicated
        );
        near(lane.traffic.duplicated);
    }
}

#[test]
fn what_is_larger_than_the_path_vanishes() {
    let shape = Shape {
        mtu: Some(1280),
        ..Shape::default()
    };
    let mut lane = Lane::new(shape, 6);
    let sent = [(ms(0), 1280), (ms(0), 1281), (ms(0), 1500), (ms(0), 40)];
    let arrived = run(&mut lane, &sent);
    assert_eq!(arrived, [(0, ms(0)), (3, ms(0))]);
    assert_eq!(lane.traffic.oversized, 2);
}

#[test]
fn a_lane_of_no_rate_holds_a_bounded_number_of_bytes() {
    let shape = Shape {
        delay: Duration::from_secs(3600),
        ..Shape::default()
    };
    let mut lane = Lane::new(shape, 7);
    let large = 1 << 20;
    run_out(&mut lane, large);
    assert_eq!(lane.bytes_in_flight, IN_FLIGHT);
    assert_eq!(lane.traffic.overflowed, 36);
}

fn run_out(lane: &mut Lane, length: usize) {
    for _ in 0..100 {
        lane.send(Duration::ZERO, vec![0; length]);
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let share = || 0.0..0.3_f64;
    let time = || (0..50_u64).prop_map(ms);
    let rate = proptest::option::of(100_000..100_000_000_u64);
    (
        (time(), time(), time()),
        (share(), share(), share()),
        rate,
        3000..100_000_usize,
    )
        .prop_map(
            |((delay, jitter, reorder_by), (loss, duplicate, reorder), rate, queue)| Shape {
                delay,
                jitter,
                loss,
                duplicate,
                reorder,
                reorder_by,
                rate,
                queue,
                mtu: Some(1400),
            },
        )
}

proptest! {
    #[test]
    fn whatever_the_lane_every_packet_is_accounted_for_and_none_is_early(
        shape in shapes(),
        seed: u64,
        sent in proptest::collection::vec((0..5_u64, 8..1500_usize), 1..300),
    ) {
        let mut now = Duration::ZERO;
        let sent: Vec<_> = sent.into_iter().map(|(later, length)| {
            now += ms(later);
            (now, length)
        }).collect();
        let mut lane = Lane::new(shape, seed);
        let arrived = run(&mut lane, &sent);
        let Traffic { lost, overflowed, oversized, duplicated, .. } = lane.traffic;
        let gone = lost + overflowed + oversized;
        prop_assert_eq!(arrived.len() as u64 + gone, sent.len() as u64 + duplicated);
        for (number, time) in &arrived {
            prop_assert!(*time >= sent[*number].0 + shape.delay);
        }
        if let Some(rate) = shape.rate {
            // However bursty the sender, the line carries no more than its rate.
            let bytes: usize = {
                let mut numbers: Vec<_> = arrived.iter().map(|(number, _)| *number).collect();
                numbers.sort_unstable();
                numbers.dedup();
                numbers.iter().map(|number| sent[*number].1).sum()
            };
            let last = arrived.iter().map(|(_, time)| *time).max().unwrap_or_default();
            prop_assert!(last >= time_of(bytes, rate) + shape.delay || bytes == 0);
        }
        prop_assert_eq!(arrived, run(&mut Lane::new(shape, seed), &sent), "the seed decides");
    }
}
