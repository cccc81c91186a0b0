//! A day of two idle ends, and peers that are gone.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn end(role: Role) -> Liveness {
    Liveness::new(&Config::default(), role, Duration::ZERO)
}

/// Has an owner ask at its pace for a day, the peer answering at once; returns the questions of either end.
fn day(every: Duration) -> (u64, u64) {
    let (mut agent, mut server) = (end(Role::Acceptor), end(Role::Opener));
    let (mut asked_by_agent, mut asked_by_server) = (0, 0);
    let mut now = Duration::ZERO;
    let mut owner = Duration::ZERO;
    while now < 86_400 * SECOND {
        let is_owners = now >= owner;
        if is_owners {
            owner = now + every;
        }
        if is_owners | (agent.on_timeout(now, Use::Idle) == Due::Ping) {
            let number = agent.ping(now);
            server.heard(now);
            agent.heard(now);
            agent.pong(number, now);
            asked_by_agent += 1;
        }
        match server.on_timeout(now, Use::Idle) {
            Due::Nothing => {}
            Due::Ping => {
                let number = server.ping(now);
                agent.heard(now);
                server.heard(now);
                server.pong(number, now);
                asked_by_server += 1;
            }
            Due::Lost => panic!("the agent is lost at {now:?}"),
        }
        let next = agent.timeout(Use::Idle).min(server.timeout(Use::Idle));
        now = next.min(owner).max(now + Duration::from_millis(1));
    }
    (asked_by_agent, asked_by_server)
}

#[test]
fn the_server_does_not_ask_an_idle_agent_that_does() {
    for every in [5, 30, 120, 240] {
        let (agent, server) = day(SECOND * every);
        let expected = 86_400 / u64::from(every);
        assert!(agent.abs_diff(expected) <= 1, "{every} s: {agent}");
        assert_eq!(server, 1, "{every} s: the first question alone");
    }
}

#[test]
fn a_peer_that_is_gone_is_lost_by_its_silence_to_a_question() {
    for (used, heard, lost) in [
        (Use::Busy, 0, 30),
        // Nobody asks for five minutes...
        (Use::Idle, 0, 325),
        // ...but who wants to use the link asks at once.
        (Use::Busy, 200, 225),
    ] {
        let mut link = end(Role::Acceptor);
        link.ping(Duration::ZERO);
        link.heard(Duration::ZERO);
        let mut now = SECOND * heard;
        if link.is_stale(now) {
            link.ping(now);
        }
        let at = loop {
            match link.on_timeout(now, used) {
                Due::Nothing => {}
                Due::Ping => {
                    link.ping(now);
                }
                Due::Lost => break now,
            }
            now = link.timeout(used).max(now);
        };
        assert_eq!(at, SECOND * lost, "{used:?}, not heard for {heard} s");
    }
}

#[test]
fn times_that_contradict_each_other_leave_an_answer_its_time() {
    let config = Config {
        keep_alive: SECOND * 60,
        idle: SECOND,
        liveness: SECOND * 30,
        ..Config::default()
    };
    for role in [Role::Acceptor, Role::Opener] {
        let mut link = Liveness::new(&config, role, Duration::ZERO);
        link.ping(Duration::ZERO);
        link.heard(Duration::ZERO);
        // The process stood still.
        assert_eq!(link.on_timeout(SECOND * 100, Use::Busy), Due::Ping);
        link.ping(SECOND * 100);
        assert_eq!(link.on_timeout(SECOND * 110, Use::Busy), Due::Nothing);
        assert_eq!(link.on_timeout(SECOND * 115, Use::Busy), Due::Lost);
    }
}
