//! The table of statuses, at every door.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use yurt_core::transport::ErrorKind;
use yurt_tunnel::dial::Caller;

use super::bed::{Bed, DOORS, Door, ESTABLISHED, Road, answer, rest};
use super::targets::{Target, nobody};

#[tokio::test]
async fn every_kind_of_failure_has_its_status_at_every_door() {
    let bed = Bed::open();
    for (host, kind, code) in [
        ("no-peer", ErrorKind::NoPeer, "502 Bad Gateway"),
        ("refused", ErrorKind::Refused, "502 Bad Gateway"),
        ("unreachable", ErrorKind::Unreachable, "502 Bad Gateway"),
        ("forbidden", ErrorKind::Forbidden, "403 Forbidden"),
        ("draining", ErrorKind::Draining, "503 Service Unavailable"),
        (
            "overloaded",
            ErrorKind::Overloaded,
            "503 Service Unavailable",
        ),
        ("timeout", ErrorKind::Timeout, "504 Gateway Timeout"),
    ] {
        bed.roads.lead(host, Road::Fails(kind));
        for door in DOORS {
            let answer = bed.dial(door, &format!("{host}:10250")).await.unwrap_err();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let reason = format!("no road to {host}:10250");
            assert!(
                head.starts_with(&format!("HTTP/1.1 {code}: {reason}\r\n")),
                "{answer}"
            );
            assert!(
                head.contains("\r\nContent-Type: text/plain\r\n"),
                "{answer}"
            );
            assert!(head.contains("\r\nConnection: close"), "{answer}");
            assert_eq!(
                head.contains("\r\nRetry-After: 1\r\n"),
                code.starts_with("503"),
                "{answer}"
            );
            assert!(
                head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
                "{answer}"
            );
            assert_eq!(body, format!("{reason}\n"));
        }
    }
}

#[tokio::test]
async fn a_refused_connection_says_so_with_its_cause() {
    let bed = Bed::open();
    bed.roads.lead("edge-1", Road::To(nobody().await));
    let answer = bed.dial(Door::Socket, "edge-1:10250").await.unwrap_err();
    assert!(
        answer.starts_with("HTTP/1.1 502 Bad Gateway: connect to the target: "),
        "{answer}"
    );
    assert!(answer.contains("refused"), "{answer}");
}

#[tokio::test]
async fn what_is_no_connect_is_refused_before_anything_is_dialled() {
    let bed = Bed::open();
    let endless = format!("CONNECT a:1 HTTP/1.1\r\nA: {}", "a".repeat(100_000));
    for (request, status) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "405 Method Not Allowed",
        ),
        (
            "POST http://edge-1:9100/ HTTP/1.1\r\n\r\n",
            "405 Method Not Allowed",
        ),
        (
            "GET http://edge-1:9100/ HTTP/1.1\r\n\r\nmore",
            "400 Bad Request",
        ),
        (
            "POST /x HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
            "405 Method Not Allowed",
        ),
        ("CONNECT edge-1 HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("CONNECT edge-1:0 HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("CONNECT ::1:80 HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("CONNECT a:1 HTTP/7.0\r\n\r\n", "400 Bad Request"),
        ("\0\0\0\0", "400 Bad Request"),
        (&endless, "400 Bad Request"),
    ] {
        for door in DOORS {
            let mut stream = bed.knock(door).await;
            // The answer may come before all is sent.
            drop(stream.write_all(request.as_bytes()).await);
            let head = answer(&mut stream).await;
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status}: ")),
                "{request:.40}: {head}"
            );
            assert_eq!(
                head.contains("\r\nAllow: CONNECT, GET, HEAD\r\n"),
                status.starts_with("405")
            );
            assert!(!rest(&mut stream).await.is_empty());
        }
    }
    assert_eq!(*bed.roads.asked.lock(), []);
}

#[tokio::test]
async fn the_target_of_the_request_counts_and_the_host_header_does_not() {
    let bed = Bed::open();
    let target = Target::echo().await;
    for host in ["edge-1", "10.0.0.7", "2001:db8::7"] {
        bed.roads.lead(host, Road::To(target.address));
    }
    for (request, host) in [
        (
            "CONNECT edge-1:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            "edge-1",
        ),
        (
            "CONNECT 10.0.0.7:10250 HTTP/1.1\r\nHost: other:443\r\n\r\n",
            "10.0.0.7",
        ),
        (
            "CONNECT [2001:db8::7]:10250 HTTP/1.1\r\n\r\n",
            "2001:db8::7",
        ),
        ("CONNECT edge-1:10250 HTTP/1.0\r\n\r\n", "edge-1"),
    ] {
        for door in DOORS {
            let mut stream = bed.knock(door).await;
            stream.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(answer(&mut stream).await, ESTABLISHED);
            let (caller, address) = bed.roads.asked.lock().pop().unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, 10250));
            match (door, caller) {
                (Door::Socket | Door::Listener, Caller::ApiServer) => {}
                (Door::Connect, Caller::Client(peer)) => assert_eq!(peer.user, "prometheus"),
                (door, caller) => panic!("{door:?} has {caller:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_head_may_come_byte_by_byte() {
    let bed = Bed::open();
    bed.lead("edge-1", Target::echo().await);
    let mut stream = bed.knock(Door::Listener).await;
    for byte in b"CONNECT edge-2:1 HTTP/1.1\r\nHost: a\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 502 "));
}

#[tokio::test]
async fn a_request_that_does_not_come_is_not_waited_for() {
    let bed = Bed::with(|config| config.limits.head = Duration::from_millis(200));
    for door in DOORS {
        let mut stream = bed.knock(door).await;
        stream
            .write_all(b"CONNECT edge-1:10250 HTTP/1.1\r\n")
            .await
            .unwrap();
        assert!(
            answer(&mut stream)
                .await
                .starts_with("HTTP/1.1 408 Request Timeout: ")
        );
    }
}

#[tokio::test]
async fn a_dial_that_does_not_end_is_answered_for_it() {
    let bed = Bed::with(|config| config.limits.dial = Duration::from_millis(200));
    bed.roads.lead("edge-1", Road::Never);
    for door in DOORS {
        let answer = bed.dial(door, "edge-1:10250").await.unwrap_err();
        assert!(
            answer.starts_with(
                "HTTP/1.1 504 Gateway Timeout: edge-1:10250 was not reached within 200ms\r\n"
            ),
            "{answer}"
        );
    }
    assert_eq!(bed.roads.running(), 0);
}

#[tokio::test]
async fn every_answer_is_counted() {
    let bed = Bed::open();
    bed.lead("edge-1", Target::echo().await);
    bed.dial(Door::Connect, "edge-2:10250").await.unwrap_err();
    assert_eq!(
        bed.counted("door_answers_total"),
        ["door_answers_total{door=\"connect\",code=\"502\"} 1"]
    );
    let open = bed.dial(Door::Socket, "edge-1:10250").await;
    assert!(
        bed.counted("door_tunnels")
            .contains(&"door_tunnels{door=\"egress_socket\"} 0".to_owned())
            == open.is_err()
    );
}
