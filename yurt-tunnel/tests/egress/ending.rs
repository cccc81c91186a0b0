//! The shutdown: doors stay open as long as there is something to do, tunnels may go on for a while.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::bed::{Bed, DOORS, Door, ESTABLISHED, Road, answer, soon, until};
use super::targets::Target;

#[tokio::test]
async fn doors_stay_open_while_a_server_that_drains_has_something_to_do() {
    let mut bed = Bed::open();
    bed.lead("edge-1", Target::echo().await);
    let session = bed.work.token();
    bed.shutdown.cancel();
    until("the drain has begun", || bed.work.is_closed()).await;
    let mut open = Vec::new();
    for door in DOORS {
        open.push(bed.dial(door, "edge-1:10250").await.unwrap());
    }
    drop(session);
    for door in DOORS {
        open.push(bed.dial(door, "edge-1:10250").await.unwrap());
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
    assert!(!bed.socket.exists());
    for address in [bed.listen, bed.connect] {
        TcpStream::connect(address).await.unwrap_err();
    }
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
async fn one_who_has_not_asked_yet_is_served() {
    let bed = Bed::open();
    bed.lead("edge-1", Target::echo().await);
    let _session = bed.work.token();
    for door in DOORS {
        let mut stream = bed.knock(door).await;
        stream.write_all(b"CONNECT edge-1:10250 ").await.unwrap();
        stream.flush().await.unwrap();
        let is_in = || {
            bed.counted("door_waiting{")
                .iter()
                .any(|line| line.ends_with(" 1"))
        };
        until("it is in", is_in).await;
        bed.shutdown.cancel();
        stream.write_all(b"HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(answer(&mut stream).await, ESTABLISHED, "{door:?}");
    }
}

#[tokio::test]
async fn who_has_knocked_before_the_end_is_served() {
    let bed = Bed::open();
    bed.lead("edge-1", Target::echo().await);
    let session = bed.work.token();
    bed.shutdown.cancel();
    until("the drain has begun", || bed.work.is_closed()).await;
    // Nothing of the doors runs between these two.
    drop(session);
    let stream = std::os::unix::net::UnixStream::connect(&bed.socket).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut stream = UnixStream::from_std(stream).unwrap();
    let head = b"CONNECT edge-1:10250 HTTP/1.1\r\n\r\n";
    soon(stream.write_all(head)).await.unwrap();
    assert_eq!(answer(&mut stream).await, ESTABLISHED);
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
