//! What passes through a tunnel, and how it ends.

use std::io::{ErrorKind, IoSliceMut};
use std::mem::MaybeUninit;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UnixStream};

use super::bed::{Bed, DOORS, Door, ESTABLISHED, Road, answer, shake, soon, until};
use super::targets::{Target, all, noise};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn bytes_behind_the_head_arrive_first() {
    let bed = Bed::open();
    bed.lead("edge-1", Target::echo().await);
    for behind in [1, 7_000, 40_000] {
        for door in DOORS {
            let (mut stream, sent) = (bed.knock(door).await, noise(behind));
            let request = [b"CONNECT edge-1:10250 HTTP/1.1\r\n\r\n", sent.as_slice()].concat();
            stream.write_all(&request).await.unwrap();
            assert_eq!(answer(&mut stream).await, ESTABLISHED);
            stream.write_all(b" and more").await.unwrap();
            stream.shutdown().await.unwrap();
            let came = soon(all(&mut stream)).await.unwrap();
            assert_eq!(came, [&sent, b" and more".as_slice()].concat(), "{door:?}");
        }
    }
}

#[tokio::test]
async fn a_client_that_ends_its_direction_gets_everything_back() {
    let bed = Bed::open();
    bed.lead("edge-1", Target::echo().await);
    for door in DOORS {
        let (stream, sent) = (bed.dial(door, "edge-1:10250").await.unwrap(), noise(MIB));
        let (mut read, mut write) = tokio::io::split(stream);
        let sending = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let (came, ()) = soon(async { tokio::join!(all(&mut read), sending) }).await;
        assert!(came.unwrap() == sent, "{door:?}");
    }
    until("no tunnel is open", || {
        bed.counted("door_tunnels")
            .iter()
            .all(|line| line.ends_with(" 0"))
    })
    .await;
    assert!(bed.counted("door_aborted_total").is_empty());
}

#[tokio::test]
async fn a_target_that_ends_its_direction_gets_everything_that_follows() {
    let bed = Bed::open();
    let (target, mut taken) = Target::held().await;
    bed.roads.lead("edge-1", Road::To(target.address));
    for door in DOORS {
        let mut stream = bed.dial(door, "edge-1:10250").await.unwrap();
        let mut at_target = soon(taken.recv()).await.unwrap();
        at_target.write_all(b"that is all").await.unwrap();
        at_target.shutdown().await.unwrap();
        assert_eq!(soon(all(&mut stream)).await.unwrap(), b"that is all");
        let sent = noise(MIB);
        let sending = async {
            stream.write_all(&sent).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let (came, ()) = soon(async { tokio::join!(all(&mut at_target), sending) }).await;
        assert!(came.unwrap() == sent, "{door:?}");
    }
}

#[tokio::test]
async fn a_target_that_fails_has_its_client_fail() {
    let bed = Bed::open();
    let (target, mut taken) = Target::held().await;
    bed.roads.lead("edge-1", Road::To(target.address));
    for door in DOORS {
        let mut stream = bed.dial(door, "edge-1:10250").await.unwrap();
        let at_target = soon(taken.recv()).await.unwrap();
        at_target.set_zero_linger().unwrap();
        drop(at_target);
        let ended = soon(all(&mut stream)).await;
        match door {
            // A unix socket has no other end than this.
            Door::Socket => assert_eq!(ended.unwrap(), b""),
            Door::Listener | Door::Connect => {
                assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
            }
        }
    }
    until("they are counted", || {
        bed.counted("door_aborted_total").len() == 3
    })
    .await;
}

#[tokio::test]
async fn a_client_that_fails_has_its_target_fail() {
    let bed = Bed::open();
    let (target, mut taken) = Target::held().await;
    bed.roads.lead("edge-1", Road::To(target.address));
    let tls = bed.client("prometheus", &[]);
    let mut stream = shake(&tls, bed.connect).await.unwrap();
    stream
        .write_all(b"CONNECT edge-1:10250 HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(answer(&mut stream).await, ESTABLISHED);
    let mut at_target = soon(taken.recv()).await.unwrap();
    // Without TLS's farewell it is no end of the client's.
    drop(stream);
    let ended = soon(all(&mut at_target)).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_client_that_is_gone_frees_a_target_that_has_nothing_to_say() {
    let bed = Bed::with(|config| config.limits.orphan = Duration::from_millis(50));
    let (target, mut taken) = Target::held().await;
    bed.roads.lead("edge-1", Road::To(target.address));
    let mut stream = bed.dial(Door::Socket, "edge-1:10250").await.unwrap();
    let mut at_target = soon(taken.recv()).await.unwrap();
    stream.write_all(b"bye").await.unwrap();
    drop(stream);
    let mut words = [0; 3];
    soon(at_target.read_exact(&mut words)).await.unwrap();
    assert_eq!(&words, b"bye");
    assert_eq!(
        soon(at_target.read(&mut words)).await.unwrap(),
        0,
        "its end is a clean one"
    );
    until("the tunnel has ended", || {
        bed.counted("door_tunnels")
            .iter()
            .all(|line| line.ends_with(" 0"))
    })
    .await;
}

#[tokio::test]
async fn a_client_that_only_listens_is_not_gone() {
    let bed = Bed::with(|config| config.limits.orphan = Duration::from_millis(1));
    let (target, mut taken) = Target::held().await;
    bed.roads.lead("edge-1", Road::To(target.address));
    for door in DOORS {
        let mut stream = bed.dial(door, "edge-1:10250").await.unwrap();
        let mut at_target = soon(taken.recv()).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(soon(at_target.read(&mut [0; 8])).await.unwrap(), 0);
        // A hundred times as long as the patience with one that is gone.
        tokio::time::sleep(Duration::from_millis(100)).await;
        at_target.write_all(b"late words").await.unwrap();
        at_target.shutdown().await.unwrap();
        assert_eq!(soon(all(&mut stream)).await.unwrap(), b"late words");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_no_other() {
    let bed = Bed::open();
    let flood = Target::serving(async |mut stream: TcpStream| {
        let chunk = vec![7; 64 << 10];
        loop {
            stream.write_all(&chunk).await?;
        }
    })
    .await;
    bed.roads.lead("flood", Road::To(flood.address));
    bed.lead("edge-1", Target::echo().await);
    let mut unread = Vec::new();
    for door in DOORS.into_iter().cycle().take(30) {
        unread.push(bed.dial(door, "flood:1").await.unwrap());
    }
    for door in DOORS {
        let mut stream = bed.dial(door, "edge-1:10250").await.unwrap();
        for _ in 0..100 {
            stream.write_all(b"ping").await.unwrap();
            let mut pong = [0; 4];
            soon(stream.read_exact(&mut pong)).await.unwrap();
            assert_eq!(&pong, b"ping");
        }
    }
    // And it may read after all.
    let mut bytes = vec![0; 4 * MIB];
    soon(unread[0].read_exact(&mut bytes)).await.unwrap();
    assert!(bytes.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_reader_that_keeps_the_descriptor_of_the_head_waits_for_its_bytes_but_not_for_ever() {
    let bed = Bed::open();
    bed.lead("edge-1", Target::first("words").await);
    let mut stream = UnixStream::connect(&bed.socket).await.unwrap();
    stream
        .write_all(b"CONNECT edge-1:1 HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [0; 100];
    let receive = || {
        let mut buffers = [IoSliceMut::new(&mut buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        Ok(rustix::net::recvmsg(
            &stream,
            &mut buffers,
            &mut control,
            flags,
        )?)
    };
    let received = soon(stream.async_io(Interest::READABLE, receive))
        .await
        .unwrap();
    assert_eq!(&buffer[..received.bytes], ESTABLISHED.as_bytes());
    let kept: Vec<_> = control.drain().collect();
    assert_eq!(kept.len(), 1);
    let mut words = [0; 5];
    soon(stream.read_exact(&mut words)).await.unwrap();
    assert_eq!(&words, b"words");
}
