//! Sessions that share a budget: it is kept, it is shared fairly, and nobody ever stops.

use std::time::Duration;

use fastrand::Rng;
use proptest::prelude::*;

use super::*;
use crate::link::Config;
use crate::link::credit::{Budget, Inflow};

const LIMIT: u64 = 1 << 20;
const WINDOW: u64 = 4 << 10;

/// A session of quick readers.
struct Session {
    budget: Budget,
    streams: Vec<Inflow>,
}

impl Session {
    fn new(buffers: &Buffers, streams: usize) -> Self {
        let config = Config {
            window: WINDOW,
            max_window: LIMIT,
            buffers: buffers.clone(),
            ..Config::default()
        };
        Self {
            budget: Budget::new(&config),
            streams: (0..streams).map(|_| Inflow::new(WINDOW)).collect(),
        }
    }

    /// Lets one stream's owner read all that its peer could send; the peer gets credit for more.
    fn read(&mut self, at: usize, now: Duration) {
        let stream = &mut self.streams[at];
        let bytes = stream.exposure();
        let far = Duration::from_secs(1);
        let credit = stream.received(bytes, now, far, &mut self.budget).unwrap();
        assert!(credit.is_some(), "who has read all gets credit");
        assert!(stream.exposure() >= WINDOW, "and a first window of it");
    }

    fn read_all(&mut self, now: Duration) {
        (0..self.streams.len()).for_each(|at| self.read(at, now));
    }

    fn held(&self) -> u64 {
        self.streams.iter().map(|one| one.window() - WINDOW).sum()
    }
}

/// Reads everywhere, often enough for every window to settle.
fn settle(sessions: &mut [Session], buffers: &Buffers) {
    for round in 0..60 {
        let now = Duration::from_millis(round);
        sessions
            .iter_mut()
            .for_each(|session| session.read_all(now));
        let held: u64 = sessions.iter().map(Session::held).sum();
        assert_eq!(buffers.used(), held);
        assert!(held <= buffers.limit());
    }
}

#[test]
fn one_alone_gets_half_and_each_of_many_gets_its_share_whoever_came_first() {
    let buffers = Buffers::new(LIMIT);
    let mut sessions = Vec::new();
    for count in 1..=8 {
        // The first of them comes with as many streams as all others together.
        let streams = if count == 1 { 8 } else { 1 };
        sessions.push(Session::new(&buffers, streams));
        settle(&mut sessions, &buffers);
        let share = LIMIT / (count + 1);
        for session in &sessions {
            let held = session.held();
            assert!(
                (share / 2..=share * 3 / 2).contains(&held),
                "{held} of {share}, {count} sessions"
            );
        }
    }
    drop(sessions);
    assert_eq!(buffers.used(), 0);
}

#[test]
fn sessions_that_nobody_reads_leave_something_for_who_comes_next() {
    let buffers = Buffers::new(LIMIT);
    let mut unread = Vec::new();
    for count in 0..20 {
        // It grows, and then nobody reads it for ever.
        let mut session = Session::new(&buffers, 64);
        for round in 0..60 {
            session.read_all(Duration::from_millis(round));
        }
        let least = LIMIT >> (count + 2);
        assert!(session.held() >= least.saturating_sub(64), "the {count}th");
        unread.push(session);
        assert!(buffers.used() < LIMIT);
    }
}

#[test]
fn a_thousand_unread_streams_of_one_session_cost_half_the_budget_and_their_first_windows() {
    let buffers = Buffers::new(LIMIT);
    let mut session = Session::new(&buffers, 1_024);
    for round in 0..60 {
        session.read_all(Duration::from_millis(round));
    }
    assert!(buffers.used() <= LIMIT / 2);
    let exposed: u64 = session.streams.iter().map(Inflow::exposure).sum();
    assert!(exposed <= 1_024 * WINDOW + LIMIT / 2);
}

#[test]
fn a_budget_is_written_as_kubernetes_writes_bytes() {
    for (text, bytes) in [
        ("0", 0),
        ("65536", 65_536),
        ("512Ki", 512 << 10),
        ("64Mi", 64 << 20),
    ] {
        assert_eq!(text.parse::<Buffers>().unwrap().limit(), bytes, "{text}");
    }
    for text in [
        "",
        "Mi",
        "64MB",
        "64 Mi",
        "-1",
        "1.5Gi",
        "18446744073709551615Ki",
        "1Mi2",
    ] {
        assert!(text.parse::<Buffers>().is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn whatever_sessions_do_the_budget_is_kept_and_every_reader_gets_credit(
        seed in any::<u64>(),
        limit in 0..LIMIT,
    ) {
        let mut rng = Rng::with_seed(seed);
        let buffers = Buffers::new(limit);
        let mut sessions: Vec<Session> = Vec::new();
        for step in 0..400 {
            let now = Duration::from_millis(step);
            if sessions.is_empty() || rng.u8(..16) == 0 {
                sessions.push(Session::new(&buffers, rng.usize(1..20)));
            }
            let at = rng.usize(..sessions.len());
            let session = &mut sessions[at];
            let stream = rng.usize(..session.streams.len());
            match rng.u8(..32) {
                0 => drop(sessions.swap_remove(at)),
                1 => session.streams[stream].ended(&mut session.budget),
                2 => {
                    let inflow = &mut session.streams[stream];
                    let (read, exposure) = (inflow.read(), inflow.exposure());
                    inflow.released(read + exposure, read + WINDOW, &mut session.budget);
                }
                _ => session.read(stream, now),
            }
            let held: u64 = sessions.iter().map(Session::held).sum();
            prop_assert_eq!(buffers.used(), held);
            prop_assert!(held <= limit);
        }
        drop(sessions);
        prop_assert_eq!(buffers.used(), 0);
    }
}
