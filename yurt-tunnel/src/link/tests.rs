//! What one end decides, step by step.

use yurt_core::transport::{Open, Target};

use super::*;
use crate::wire::Head;

const SECOND: Duration = Duration::from_secs(1);

fn link(role: Role, config: &Config) -> Link {
    Link::new(role, config.clone(), config.hello(), Duration::ZERO).unwrap()
}

fn small() -> Config {
    Config {
        streams: 2,
        backlog: 1,
        window: 100,
        max_window: 400,
        buffers: Buffers::new(250),
        ..Config::default()
    }
}

fn echo(seconds: u32) -> Open {
    Open::new(Target::Echo, SECOND * seconds)
}

fn head(stream: StreamId) -> Head {
    let open = echo(5);
    Head { stream, open }
}

fn events(link: &mut Link) -> Vec<String> {
    std::iter::from_fn(|| link.poll())
        .map(|event| format!("{event:?}"))
        .collect()
}

/// Opens a stream that the peer accepts.
fn open(link: &mut Link, now: Duration) -> StreamId {
    let id = link.open(&echo(5), now).unwrap();
    assert!(link.on_accepted(id));
    events(link);
    id
}

#[test]
fn a_peer_of_another_version_is_refused() {
    let config = small();
    let hello = Hello {
        version: VERSION + 1,
        ..config.hello()
    };
    let error = Link::new(Role::Opener, config, hello, Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn an_open_beyond_the_peers_limit_begins_when_a_stream_ends() {
    let mut link = link(Role::Opener, &small());
    let first = open(&mut link, SECOND);
    open(&mut link, SECOND);
    let third = link.open(&echo(5), SECOND).unwrap();
    assert!(events(&mut link).is_empty(), "there is no place");
    link.finished(first, SECOND);
    assert!(events(&mut link).is_empty(), "half an end is none");
    link.ended(first, SECOND);
    assert_eq!(events(&mut link), [format!("Begin({third})")]);
}

#[test]
fn an_open_fails_at_its_deadline_as_overload_if_it_waits_for_a_place_and_late_if_it_was_asked() {
    let mut link = link(Role::Opener, &small());
    link.on_timeout(Duration::ZERO);
    for seconds in [3, 2, 1] {
        link.open(&echo(seconds), Duration::ZERO).unwrap();
    }
    events(&mut link);
    assert_eq!(link.timeout(), Some(SECOND));
    link.on_timeout(SECOND * 3);
    let failed = events(&mut link)
        .into_iter()
        .filter(|event| event.starts_with("Fail"));
    let failed: Vec<_> = failed.map(|event| event[..15].to_owned()).collect();
    assert_eq!(
        failed,
        ["Fail(3, Overloa", "Fail(2, Timeout", "Fail(1, Timeout"]
    );
    assert_eq!(link.streams(), 0);
}

#[test]
fn offers_beyond_the_backlog_and_streams_beyond_the_limit_are_refused() {
    let mut link = link(Role::Acceptor, &small());
    assert_eq!(link.on_head(&head(1), SECOND), Verdict::Offer);
    let refused = |verdict| matches!(verdict, Verdict::Refuse(ErrorKind::Overloaded, _));
    assert!(refused(link.on_head(&head(2), SECOND)), "one waits already");
    assert!(link.accept(1));
    assert_eq!(link.on_head(&head(3), SECOND), Verdict::Offer);
    assert!(link.accept(3));
    assert!(
        refused(link.on_head(&head(4), SECOND)),
        "two are open already"
    );
    link.forget(1);
    assert_eq!(link.on_head(&head(5), SECOND), Verdict::Offer);
}

#[test]
fn a_stream_that_is_open_is_not_opened_twice() {
    let mut link = link(Role::Acceptor, &small());
    assert_eq!(link.on_head(&head(1), SECOND), Verdict::Offer);
    assert!(matches!(
        link.on_head(&head(1), SECOND),
        Verdict::Refuse(ErrorKind::Protocol, _)
    ));
}

#[test]
fn credit_comes_when_half_a_window_is_read_and_grows_for_who_reads_fast() {
    let mut link = link(Role::Opener, &small());
    let id = open(&mut link, SECOND);
    assert_eq!(link.received(id, 49, SECOND * 2).unwrap(), None);
    assert!(events(&mut link).is_empty(), "less than half");
    link.received(id, 1, SECOND * 2).unwrap();
    assert_eq!(
        events(&mut link),
        ["Send(Credit { stream: 1, limit: 150 })"],
        "slow: 50 + 100"
    );
    link.received(id, 50, SECOND * 2).unwrap();
    assert_eq!(
        events(&mut link),
        ["Send(Credit { stream: 1, limit: 300 })"],
        "fast: 100 + 200"
    );
    link.received(id, 100, SECOND * 2).unwrap();
    assert_eq!(
        events(&mut link),
        ["Send(Credit { stream: 1, limit: 425 })"],
        "as much is left for others: 200 + 225"
    );
    assert_eq!(link.exposure(), 225);
}

#[test]
fn what_a_stream_had_of_the_budget_is_there_for_the_next() {
    let mut link = link(Role::Opener, &small());
    for _ in 0..3 {
        let id = open(&mut link, SECOND);
        for bytes in [50, 50, 100] {
            link.received(id, bytes, SECOND).unwrap();
        }
        assert_eq!(link.exposure(), 225, "all that one may have");
        link.forget(id);
    }
}

#[test]
fn a_peer_that_sends_without_credit_is_told_apart() {
    let mut link = link(Role::Opener, &small());
    let id = open(&mut link, SECOND);
    let error = link.received(id, 101, SECOND).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert_eq!(link.streams(), 0);
}

#[test]
fn an_old_limit_takes_no_credit_back() {
    let mut link = link(Role::Opener, &small());
    let id = open(&mut link, SECOND);
    let credit = |limit| Frame::Credit { stream: id, limit };
    link.on_frame(credit(300), SECOND);
    link.on_frame(credit(200), SECOND);
    assert_eq!(link.credit(id), 300);
}

#[test]
fn silence_is_asked_about_and_then_it_is_the_end() {
    let config = Config::default();
    let mut link = link(Role::Acceptor, &config);
    assert_eq!(
        link.timeout(),
        Some(Duration::ZERO),
        "how far it is is asked first"
    );
    for asked in 0..6 {
        link.on_timeout(SECOND * 5 * asked);
        assert!(events(&mut link)[0].starts_with("Send(Ping"), "at {asked}");
    }
    assert_eq!(link.timeout(), Some(SECOND * 30));
    link.on_timeout(SECOND * 30);
    assert!(matches!(
        link.state(),
        State::Closed {
            kind: ErrorKind::Timeout,
            ..
        }
    ));
    assert_eq!(link.timeout(), None);
}

#[test]
fn who_stood_still_gives_the_peer_time_to_be_heard() {
    let mut link = link(Role::Opener, &Config::default());
    link.on_timeout(Duration::ZERO);
    events(&mut link);
    link.on_timeout(SECOND * 1000);
    assert_eq!(
        *link.state(),
        State::Open,
        "the process was stopped, not the peer"
    );
    assert!(events(&mut link)[0].starts_with("Send(Ping"));
    let end = link.timeout().unwrap();
    assert!(end > SECOND * 1004 && end < SECOND * 1008, "{end:?}");
    link.on_timeout(end);
    assert!(
        matches!(
            link.state(),
            State::Closed {
                kind: ErrorKind::Timeout,
                ..
            }
        ),
        "it was"
    );
}

#[test]
fn a_pong_that_nobody_asked_for_is_no_round_trip() {
    let mut link = link(Role::Opener, &Config::default());
    link.on_frame(Frame::Pong(7), SECOND);
    assert_eq!(link.round_trip(), None);
    let number = link.ping(SECOND);
    link.on_frame(Frame::Pong(number), SECOND * 2);
    assert_eq!(link.round_trip(), Some(SECOND));
}

#[test]
fn a_second_hello_ends_the_session() {
    let config = small();
    let mut link = link(Role::Opener, &config);
    link.on_frame(Frame::Hello(config.hello()), SECOND);
    assert!(matches!(
        link.state(),
        State::Closed {
            kind: ErrorKind::Protocol,
            ..
        }
    ));
}

#[test]
fn credit_that_was_not_used_for_long_is_given_back() {
    let mut link = link(Role::Opener, &small());
    let [first, second] = [(); 2].map(|()| open(&mut link, SECOND));
    for stream in [first, second] {
        link.on_frame(Frame::Credit { stream, limit: 300 }, SECOND * 2);
        link.sent(stream, 120, SECOND * 2);
    }
    link.on_timeout(SECOND * 2);
    events(&mut link);
    assert!(link.timeout() <= Some(SECOND * 12));
    assert_eq!(
        link.use_credit(second, SECOND * 11),
        180,
        "about to be used"
    );
    link.on_timeout(SECOND * 12);
    let sent = events(&mut link);
    assert!(sent.contains(&"Send(Release { stream: 1, from: 300, to: 220 })".to_owned()));
    assert_eq!((link.credit(first), link.credit(second)), (100, 180));
    link.on_timeout(SECOND * 22);
    assert_eq!((link.credit(first), link.credit(second)), (100, 100));
    // Credit that was given meanwhile counts.
    link.on_frame(
        Frame::Credit {
            stream: first,
            limit: 400,
        },
        SECOND * 23,
    );
    assert_eq!(link.credit(first), 280);
}

#[test]
fn a_peer_of_an_earlier_version_is_given_no_credit_back() {
    let config = small();
    let earlier = Hello {
        takes_credit_back: false,
        ..config.hello()
    };
    let mut link = Link::new(Role::Opener, config, earlier, Duration::ZERO).unwrap();
    let stream = open(&mut link, SECOND);
    link.on_frame(Frame::Credit { stream, limit: 300 }, SECOND);
    link.on_timeout(SECOND * 20);
    let sent = frames(&mut link);
    let is_ping = |frame: &Frame| matches!(frame, Frame::Ping(_));
    assert!(sent.iter().all(is_ping), "{sent:?}");
    assert_eq!(link.credit(stream), 300, "it would wait for more in vain");
}

#[test]
fn what_a_quiet_stream_gives_back_is_there_for_another() {
    let mut link = link(Role::Opener, &small());
    let [quiet, other] = [(); 2].map(|()| open(&mut link, SECOND));
    let grow = |link: &mut Link, id| {
        for bytes in [50, 50, 100] {
            link.received(id, bytes, SECOND).unwrap();
        }
        events(link)
    };
    let granted = grow(&mut link, quiet).pop();
    assert_eq!(granted.unwrap(), "Send(Credit { stream: 1, limit: 425 })");
    let release = |from, to| Frame::Release {
        stream: quiet,
        from,
        to,
    };
    for (from, to) in [(300, 250), (425, 199), (425, 600), (1 << 60, 300)] {
        link.on_frame(release(from, to), SECOND);
        assert_eq!(link.exposure(), 225 + 100, "not from {from} to {to}");
    }
    link.on_frame(release(425, 320), SECOND);
    assert_eq!(link.exposure(), 120 + 100, "20 are not read yet");
    grow(&mut link, other);
    assert_eq!(link.exposure(), 120 + 205, "but for those it has all");
    assert!(
        link.received(quiet, 121, SECOND).is_err(),
        "it was given back"
    );
}

#[test]
fn a_window_that_shrinks_while_credit_comes_back_takes_no_honest_peer_for_another() {
    let config = Config {
        buffers: Buffers::new(600),
        ..small()
    };
    let mut reader = link(Role::Opener, &config);
    let mut writer = link(Role::Acceptor, &config);
    let id = open(&mut reader, SECOND);
    assert_eq!(writer.on_head(&head(id), SECOND), Verdict::Offer);
    assert!(writer.accept(id));
    for bytes in [50, 50, 100] {
        writer.sent(id, bytes, SECOND);
        reader.received(id, bytes, SECOND).unwrap();
        pass_on(&mut reader, &mut writer, SECOND);
    }
    writer.sent(id, 250, SECOND);
    assert_eq!((reader.exposure(), writer.credit(id)), (400, 150));
    // Another session takes its part while the writer is quiet.
    let mut other = config.buffers.hold();
    assert_eq!(other.take(100), 100);
    let later = SECOND * 12;
    writer.on_timeout(later);
    reader.received(id, 200, later).unwrap();
    // What they say of it is on its way in both directions.
    let released = frames(&mut writer);
    let release = Frame::Release {
        stream: id,
        from: 600,
        to: 550,
    };
    assert!(released.contains(&release), "{released:?}");
    pass_on(&mut reader, &mut writer, later);
    for frame in released {
        reader.on_frame(frame, later);
    }
    assert!(
        writer.credit(id) <= reader.exposure() - 50,
        "50 are on their way: {} of {}",
        writer.credit(id),
        reader.exposure()
    );
}

fn frames(link: &mut Link) -> Vec<Frame> {
    let events = std::iter::from_fn(|| link.poll());
    let sent = events.filter_map(|event| match event {
        Event::Send(frame) => Some(frame),
        _ => None,
    });
    sent.collect()
}

/// Tells one end what the other has said.
fn pass_on(from: &mut Link, to: &mut Link, now: Duration) {
    for frame in frames(from) {
        to.on_frame(frame, now);
    }
}

#[test]
fn what_a_direction_had_is_there_for_another_when_it_has_ended() {
    let mut link = link(Role::Opener, &small());
    let streams = [(); 2].map(|()| open(&mut link, SECOND));
    for id in streams {
        for bytes in [50, 50, 100] {
            link.received(id, bytes, SECOND).unwrap();
        }
        if id == streams[0] {
            link.ended(id, SECOND);
        }
    }
    assert_eq!(link.exposure(), 225, "the second has all that one may have");
}

#[test]
fn an_idle_peer_is_asked_at_once_when_a_stream_is_wanted() {
    let mut link = link(Role::Opener, &Config::default());
    link.on_timeout(Duration::ZERO);
    link.on_frame(Frame::Pong(0), Duration::ZERO);
    events(&mut link);
    assert_eq!(link.timeout(), Some(SECOND * 375));
    link.open(&echo(5), SECOND * 100).unwrap();
    assert!(events(&mut link)[0].starts_with("Send(Ping"));
    link.open(&echo(5), SECOND * 100).unwrap();
    assert!(events(&mut link)[0].starts_with("Begin"), "once is enough");
    // The dial is late after 5 s; the answer has the time of a blackout.
    for second in 105..124 {
        link.on_timeout(SECOND * second);
        assert_eq!(*link.state(), State::Open, "at {second}");
    }
    link.on_timeout(SECOND * 124);
    assert_ne!(*link.state(), State::Open);
}

/// Lives until the session ends, with nothing heard; returns when that is.
fn lost_at(link: &mut Link) -> Duration {
    let mut now = Duration::ZERO;
    while let Some(at) = link.timeout() {
        now = at;
        link.on_timeout(now);
        events(link);
    }
    now
}

#[test]
fn a_stream_that_is_opened_after_a_long_rest_finds_nothing_late() {
    let mut link = link(Role::Opener, &Config::default());
    link.on_timeout(Duration::ZERO);
    link.on_frame(Frame::Pong(0), SECOND);
    // The agent asks, and was heard three seconds ago.
    link.on_frame(Frame::Ping(7), SECOND * 197);
    let began = SECOND * 200;
    link.open(&echo(60), began).unwrap();
    assert!(link.timeout() >= Some(began), "{:?}", link.timeout());
    assert_eq!(lost_at(&mut link), SECOND * 227);
}

#[test]
fn a_head_after_a_long_rest_is_a_sign_of_life_and_no_standstill() {
    let mut link = link(Role::Acceptor, &Config::default());
    link.on_timeout(Duration::ZERO);
    link.on_frame(Frame::Pong(0), SECOND);
    events(&mut link);
    let began = SECOND * 200;
    assert_eq!(link.on_head(&head(1), began), Verdict::Offer);
    assert!(link.accept(1));
    assert!(link.timeout() >= Some(began), "nothing is late");
    assert_eq!(lost_at(&mut link), began + SECOND * 30);
}

#[test]
fn a_peer_that_is_gone_is_noticed_as_soon_while_last_bytes_are_on_their_way() {
    let mut link = link(Role::Acceptor, &Config::default());
    link.on_timeout(Duration::ZERO);
    link.on_frame(Frame::Pong(0), SECOND);
    events(&mut link);
    link.tail_begins();
    assert_eq!(lost_at(&mut link), SECOND * 31);
}

#[test]
fn a_link_whose_last_bytes_have_arrived_is_idle() {
    let mut link = link(Role::Acceptor, &Config::default());
    link.on_timeout(Duration::ZERO);
    link.on_frame(Frame::Pong(0), SECOND);
    link.tail_begins();
    link.tail_arrives();
    assert_eq!(link.timeout(), Some(SECOND * 301));
}

#[test]
fn a_stream_counts_until_the_peer_has_read_its_end_where_nothing_else_tells() {
    let end = |stream| Frame::End { stream };
    let mut link = link(Role::Opener, &small()).telling_ends();
    let [first, second] = [(); 2].map(|()| open(&mut link, SECOND));
    for id in [first, second] {
        link.finished(id, SECOND);
        assert!(events(&mut link).is_empty());
        if id == second {
            link.on_frame(end(id), SECOND);
        }
        link.ended(id, SECOND);
        let told = format!("Send(End {{ stream: {id} }})");
        assert_eq!(events(&mut link), [told], "the peer is told as well");
    }
    assert_eq!((link.streams(), link.tails()), (0, 1));
    link.on_frame(end(7), SECOND);
    assert_eq!(link.tails(), 1, "that is another's");
    link.on_frame(end(first), SECOND);
    assert_eq!(link.tails(), 0);
}

#[test]
fn an_end_that_will_not_be_read_is_not_waited_for() {
    let mut link = link(Role::Opener, &small()).telling_ends();
    let reset = pass(&mut link, SECOND);
    let code = 0;
    link.on_frame(
        Frame::Reset {
            stream: reset,
            code,
        },
        SECOND,
    );
    assert_eq!(link.tails(), 0, "its owner has dropped it");
    for _ in 0..10 {
        pass(&mut link, SECOND);
    }
    assert_eq!(link.tails(), 2, "a peer that never tells costs no more");
    link.close("it goes");
    assert_eq!(link.tails(), 0);
}

/// Opens a stream that ends in both directions.
fn pass(link: &mut Link, now: Duration) -> StreamId {
    let id = open(link, now);
    link.finished(id, now);
    link.ended(id, now);
    id
}

#[test]
fn a_peer_of_an_earlier_version_is_told_of_no_ends_and_asked_for_none() {
    let config = small();
    let earlier = Hello {
        tells_ends: false,
        ..config.hello()
    };
    let link = Link::new(Role::Opener, config, earlier, Duration::ZERO);
    let mut link = link.unwrap().telling_ends();
    pass(&mut link, SECOND);
    assert!(events(&mut link).is_empty());
    assert_eq!(link.tails(), 0);
}

#[test]
fn an_end_that_is_never_read_is_forgotten_after_minutes_and_the_link_is_idle() {
    let mut link = link(Role::Opener, &small()).telling_ends();
    pass(&mut link, SECOND);
    let mut now = SECOND;
    let mut pings = 0;
    while link.tails() > 0 && now < SECOND * 1000 {
        now = link.timeout().unwrap();
        link.on_timeout(now);
        while let Some(event) = link.poll() {
            if let Event::Send(Frame::Ping(number)) = event {
                pings += 1;
                link.on_frame(Frame::Pong(number), now);
            }
        }
    }
    assert_eq!(now, SECOND * 301);
    assert!(pings > 10, "it is asked as any that is in use: {pings}");
    assert!(link.timeout() > Some(now + SECOND * 60), "it is idle");
}

#[test]
fn a_peer_that_claims_to_take_more_streams_has_no_more_ends_held_for_it() {
    let config = small();
    let boastful = Hello {
        streams: 1 << 60,
        ..config.hello()
    };
    let link = Link::new(Role::Opener, config, boastful, Duration::ZERO);
    let mut link = link.unwrap().telling_ends();
    for _ in 0..10 {
        pass(&mut link, SECOND);
    }
    assert_eq!(link.tails(), 2);
}
