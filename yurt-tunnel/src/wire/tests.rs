//! The bytes themselves, there and back, and what is none of ours.

use std::time::Duration;

use proptest::prelude::*;
use yurt_core::transport::{ErrorKind, MAX_HOST_LEN, MAX_MESSAGE_LEN, Open, Priority, Target};

use super::*;

/// Takes a message apart and checks that it is one and nothing else.
fn parts(bytes: &[u8]) -> (u8, &[u8]) {
    let prefix = Prefix::decode(*bytes.first_chunk().unwrap()).unwrap();
    assert_eq!(bytes.len(), PREFIX + prefix.len);
    (prefix.kind, &bytes[PREFIX..])
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    bytes
}

#[test]
fn the_bytes_of_version_1_stay_what_they_are() {
    let hello = Hello {
        version: 1,
        streams: 1024,
        window: 65536,
        tells_ends: true,
        takes_credit_back: true,
    };
    let bytes = encoded(|out| Frame::Hello(hello).encode(out));
    assert_eq!(bytes, [1, 0, 8, 1, 0x44, 0, 0x80, 1, 0, 0, 3]);
    let credit = encoded(|out| {
        Frame::Credit {
            stream: 5,
            limit: 63,
        }
        .encode(out)
    });
    assert_eq!(credit, [2, 0, 2, 5, 63]);
    let release = encoded(|out| {
        Frame::Release {
            stream: 5,
            from: 63,
            to: 1,
        }
        .encode(out)
    });
    assert_eq!(release, [8, 0, 3, 5, 63, 1]);
    assert_eq!(
        encoded(|out| Frame::End { stream: 5 }.encode(out)),
        [9, 0, 1, 5]
    );
    let close = Frame::Close {
        kind: ErrorKind::Reset(300),
        reason: "é".to_owned(),
    };
    assert_eq!(
        encoded(|out| close.encode(out)),
        [6, 0, 6, 8, 0x41, 0x2c, 2, 0xc3, 0xa9]
    );
    let open = Open {
        target: Target::Dial {
            node: Some("n".parse().unwrap()),
            host: "h".to_owned(),
            port: 10250,
        },
        priority: Priority::Interactive,
        deadline: Duration::from_secs(5),
    };
    let head = encoded(|out| Head { stream: 1, open }.encode(out));
    assert_eq!(
        head,
        [
            0x10, 0, 11, 1, 1, 0x53, 0x88, 1, 1, b'n', 1, b'h', 0x68, 0x0a
        ]
    );
    assert_eq!(encoded(|out| Answer::Accepted.encode(out)), [0x11, 0, 0]);
}

#[test]
fn what_a_later_version_adds_is_ignored() {
    let mut ping = encoded(|out| Frame::Ping(7).encode(out));
    ping.extend_from_slice(b"more");
    let frame = Frame::decode(ping[0], &ping[PREFIX..]).unwrap();
    assert_eq!(frame, Some(Frame::Ping(7)));
    assert_eq!(Frame::decode(99, b"anything").unwrap(), None);
}

#[test]
fn an_earlier_version_has_none_of_the_abilities_of_this_one() {
    let earlier = [1, 0x44, 0, 0x80, 1, 0, 0];
    let hello = Hello {
        version: 1,
        streams: 1024,
        window: 65536,
        tells_ends: false,
        takes_credit_back: false,
    };
    assert_eq!(
        Frame::decode(1, &earlier).unwrap(),
        Some(Frame::Hello(hello))
    );
}

#[test]
fn a_length_over_the_limit_is_refused_before_a_byte_of_it() {
    assert!(Prefix::decode([1, 0x08, 0x00]).is_ok());
    assert!(Prefix::decode([1, 0x08, 0x01]).is_err());
    assert!(Prefix::decode([1, 0xff, 0xff]).is_err());
}

#[test]
fn a_text_is_cut_where_a_character_begins() {
    let message = "é".repeat(MAX_MESSAGE_LEN);
    let answer = Answer::Rejected {
        kind: ErrorKind::Refused,
        message,
    };
    let bytes = encoded(|out| answer.encode(out));
    let (kind, body) = parts(&bytes);
    let Answer::Rejected { message, .. } = Answer::decode(kind, body).unwrap() else {
        panic!("a rejection");
    };
    assert_eq!(message, "é".repeat(MAX_MESSAGE_LEN / 2));
}

#[test]
fn a_message_that_ends_early_is_an_error_wherever_it_ends() {
    let open = Open::new(Target::dial("host", 10250).unwrap(), Duration::from_secs(5));
    let head = encoded(|out| {
        Head {
            stream: 1 << 40,
            open,
        }
        .encode(out)
    });
    let close = Frame::Close {
        kind: ErrorKind::Closed,
        reason: "why".to_owned(),
    };
    let close = encoded(|out| close.encode(out));
    for end in PREFIX..head.len() {
        assert!(Head::decode(head[0], &head[PREFIX..end]).is_err(), "{end}");
    }
    for end in PREFIX..close.len() {
        assert!(
            Frame::decode(close[0], &close[PREFIX..end]).is_err(),
            "{end}"
        );
    }
}

fn kinds() -> impl Strategy<Value = ErrorKind> {
    prop_oneof![
        any::<u16>().prop_map(ErrorKind::Reset),
        prop::sample::select(vec![
            ErrorKind::NoPeer,
            ErrorKind::Refused,
            ErrorKind::Unreachable,
            ErrorKind::Timeout,
            ErrorKind::Forbidden,
            ErrorKind::Overloaded,
            ErrorKind::Draining,
            ErrorKind::Closed,
            ErrorKind::Protocol,
            ErrorKind::Other,
        ]),
    ]
}

fn targets() -> impl Strategy<Value = Target> {
    let node = prop::option::of("[a-z]([a-z0-9-]{0,20}[a-z0-9])?");
    let host = prop::string::string_regex(&format!("[ -~]{{1,{MAX_HOST_LEN}}}")).unwrap();
    let dial = (node, host, any::<u16>()).prop_map(|(node, host, port)| Target::Dial {
        node: node.map(|node| node.parse().unwrap()),
        host,
        port,
    });
    prop_oneof![dial, Just(Target::Echo), Just(Target::Servers)]
}

proptest! {
    #[test]
    fn every_frame_comes_back_as_it_was_sent(
        kind in kinds(),
        reason in ".{0,200}",
        (a, b, c) in (0..1_u64 << 62, 0..1_u64 << 62, 0..1_u64 << 62),
        (tells_ends, takes_credit_back) in (any::<bool>(), any::<bool>()),
    ) {
        for frame in [
            Frame::Hello(Hello { version: a, streams: b, window: c, tells_ends, takes_credit_back }),
            Frame::Credit { stream: a, limit: b },
            Frame::Release { stream: a, from: b, to: c },
            Frame::Ping(a),
            Frame::Pong(b),
            Frame::Drain,
            Frame::End { stream: a },
            Frame::Reset { stream: 7, code: u16::MAX },
            Frame::Close { kind, reason },
        ] {
            let bytes = encoded(|out| frame.encode(out));
            let (kind, body) = parts(&bytes);
            prop_assert_eq!(Frame::decode(kind, body).unwrap(), Some(frame));
        }
    }

    #[test]
    fn every_head_and_answer_comes_back_as_it_was_sent(
        stream in 0..1_u64 << 62,
        target in targets(),
        deadline in 0..1_u64 << 40,
        bulk in any::<bool>(),
        kind in kinds(),
        message in ".{0,200}",
    ) {
        let priority = if bulk { Priority::Bulk } else { Priority::Interactive };
        let open = Open { target, priority, deadline: Duration::from_millis(deadline) };
        let head = Head { stream, open };
        let bytes = encoded(|out| head.encode(out));
        let (prefix, body) = parts(&bytes);
        prop_assert_eq!(Head::decode(prefix, body).unwrap(), head);
        for answer in [Answer::Accepted, Answer::Rejected { kind, message }] {
            let bytes = encoded(|out| answer.encode(out));
            let (kind, body) = parts(&bytes);
            prop_assert_eq!(Answer::decode(kind, body).unwrap(), answer);
        }
    }

    #[test]
    fn no_bytes_panic(kind in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Frame::decode(kind, &body);
        let _ = Head::decode(kind, &body);
        let _ = Answer::decode(kind, &body);
    }
}
