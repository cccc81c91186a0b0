//! The shutdown: doors close at once, tunnels may go on for a while.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bed::{Bed, DOORS, Door, Io, Road, answer, client, shake, soon, until};
use super::targets::Target;

#[tokio::test]
async fn tunnels_go_on_after_the_doors_have_closed() {
    let mut bed = Bed::open();
    bed.lead("edge-1", Target::echo().await);
    let mut open = Vec::new();
    for door in DOORS {
        open.push(bed.dial(door, "edge-1:10250").await.unwrap());
    }
    bed.shutdown.cancel();
    until("the socket is gone", || !bed.socket.exists()).await;
    for address in [bed.listen, bed.connect] {
        let mut refused = TcpStream::connect(address).await.is_err();
        while !refused {
            tokio::task::yield_now().await;
            refused = TcpStream::connect(address).await.is_err();
        }
    }
    for stream in &mut open {
        stream.write_all(b"still here").await.unwrap();
        let mut words = [0; 10];
        soon(stream.read_exact(&mut words)).await.unwrap();
        assert_eq!(&words, b"still here");
    }
    assert!(bed.running.try_join_next().is_none());
    drop(open);
    soon(bed.running.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn tunnels_that_do_not_end_in_time_are_reset() {
    let mut bed = Bed::with(|config| config.limits.drain = Duration::from_millis(100));
    let (target, mut taken) = Target::held().await;
    bed.roads.lead("edge-1", Road::To(target.address));
    let mut stream = bed.dial(Door::Connect, "edge-1:10250").await.unwrap();
    let mut at_target = soon(taken.recv()).await.unwrap();
    bed.shutdown.cancel();
    soon(bed.running.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    stream.read_u8().await.unwrap_err();
    let ended = at_target.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn one_who_has_not_asked_yet_is_sent_away() {
    let mut bed = Bed::open();
    let (certificate, key) = bed.pki.client("prometheus", &[]);
    // In TLS 1.2 a client that is through with the handshake knows that its server is.
    let shown = Some((certificate.as_str(), key.as_str()));
    let tls = client(&bed.pki, shown, &[&rustls::version::TLS12]);
    let mut streams: [Box<dyn Io>; 2] = [
        bed.knock(Door::Socket).await,
        Box::new(shake(&tls, bed.connect).await.unwrap()),
    ];
    for stream in &mut streams {
        stream.write_all(b"CONNECT ").await.unwrap();
        stream.flush().await.unwrap();
    }
    until("both are in", || bed.counted("door_waiting{").len() == 2).await;
    bed.shutdown.cancel();
    for stream in &mut streams {
        let answer = answer(stream).await;
        assert!(
            answer.starts_with("HTTP/1.1 503 Service Unavailable: "),
            "{answer}"
        );
    }
    drop(streams);
    soon(bed.running.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn dropping_the_doors_ends_everything() {
    let mut bed = Bed::open();
    let (target, mut taken) = Target::held().await;
    bed.roads.lead("edge-1", Road::To(target.address));
    let _stream = bed.dial(Door::Socket, "edge-1:10250").await.unwrap();
    let mut at_target = soon(taken.recv()).await.unwrap();
    bed.running.shutdown().await;
    let ended = soon(at_target.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(!bed.socket.exists());
}
