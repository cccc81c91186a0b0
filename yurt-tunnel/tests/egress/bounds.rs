//! What many clients at once may hold.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::bed::{Bed, Door, answer, shake, soon, until};
use super::targets::Target;

#[tokio::test]
async fn tunnels_beyond_the_limit_are_to_come_back_later() {
    let bed = Bed::with(|config| {
        config.limits.api_server_tunnels = 2;
        config.limits.client_tunnels = 1;
    });
    bed.lead("edge-1", Target::echo().await);
    let mut open = Vec::new();
    for door in [Door::Socket, Door::Listener, Door::Connect] {
        open.push(bed.dial(door, "edge-1:10250").await.unwrap());
    }
    for door in [Door::Socket, Door::Listener, Door::Connect] {
        let answer = bed.dial(door, "edge-1:10250").await.unwrap_err();
        assert!(
            answer.starts_with("HTTP/1.1 503 Service Unavailable: too many tunnels"),
            "{answer}"
        );
        assert!(answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
    }
    drop(open);
    until("the tunnels have ended", || {
        bed.counted("door_tunnels{")
            .iter()
            .all(|line| line.ends_with(" 0"))
    })
    .await;
    bed.dial(Door::Connect, "edge-1:10250").await.unwrap();
}

#[tokio::test]
async fn a_flood_of_connections_that_say_nothing_keeps_nobody_out() {
    let bed = Bed::with(|config| config.limits.waiting = 8);
    bed.lead("edge-1", Target::echo().await);
    let mut open = bed.dial(Door::Connect, "edge-1:10250").await.unwrap();
    let mut early = UnixStream::connect(&bed.socket).await.unwrap();
    let mut flood = Vec::new();
    for _ in 0..50 {
        flood.push(TcpStream::connect(bed.connect).await.unwrap());
    }
    let refused = "door_refusals_total{door=\"connect\",reason=\"too_many_handshakes\"} 43";
    until("the oldest are turned away", || {
        bed.counted("door_refusals_total") == [refused]
    })
    .await;
    assert_eq!(soon(flood[0].read(&mut [0; 1])).await.unwrap_or(0), 0);
    for door in [Door::Socket, Door::Listener, Door::Connect] {
        soon(bed.dial(door, "edge-1:10250")).await.unwrap();
    }
    // Who has a tunnel does not wait any more.
    open.write_all(b"ping").await.unwrap();
    soon(open.read_exact(&mut [0; 4])).await.unwrap();
    // One by the socket does not pay for those by the network.
    early
        .write_all(b"CONNECT edge-1:10250 HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    assert!(answer(&mut early).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_ended() {
    let bed = Bed::with(|config| config.limits.head = Duration::from_millis(200));
    let mut stream = TcpStream::connect(bed.listen).await.unwrap();
    stream.write_all(b"\x16\x03\x01").await.unwrap();
    assert_eq!(soon(stream.read(&mut [0; 1])).await.unwrap(), 0);
    let refused = "door_refusals_total{door=\"egress\",reason=\"handshake_timeout\"} 1";
    assert_eq!(bed.counted("door_refusals_total"), [refused]);
}

#[tokio::test]
async fn bytes_that_are_no_handshake_end_the_connection_alone() {
    let bed = Bed::open();
    bed.lead("edge-1", Target::echo().await);
    for bytes in [
        &b"CONNECT edge-1:10250 HTTP/1.1\r\n\r\n"[..],
        &[0; 4096],
        b"\x16\x03\x01\xff\xff",
    ] {
        let mut stream = TcpStream::connect(bed.connect).await.unwrap();
        drop(stream.write_all(bytes).await);
        drop(stream.shutdown().await);
        let mut rest = Vec::new();
        drop(soon(stream.read_to_end(&mut rest)).await);
        assert!(!rest.starts_with(b"HTTP"), "nothing is said in plain");
    }
    bed.dial(Door::Connect, "edge-1:10250").await.unwrap();
}

#[tokio::test]
async fn one_client_leaves_tunnels_to_the_others() {
    let bed = Bed::with(|config| {
        config.limits.client_tunnels = 4;
        let rule = &mut config.policy.clients[0];
        rule.users.insert("another".to_owned());
    });
    bed.lead("edge-1", Target::echo().await);
    let greedy = |_| bed.dial(Door::Connect, "edge-1:10250");
    let _open = [greedy(1).await.unwrap(), greedy(2).await.unwrap()];
    let refused = greedy(3).await.unwrap_err();
    let expected = "HTTP/1.1 503 Service Unavailable: too many tunnels are open at this door: 2, \
                    the share of ";
    assert!(refused.starts_with(expected), "{refused}");
    assert!(refused.contains("\r\nRetry-After: 1\r\n"), "{refused}");
    let mut other = shake(&bed.client("another", &[]), bed.connect)
        .await
        .unwrap();
    other
        .write_all(b"CONNECT edge-1:10250 HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    assert!(answer(&mut other).await.starts_with("HTTP/1.1 200 "));
}
